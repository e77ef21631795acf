"""The pairs that are judged: the default bundle decodes, and reads a prompt, beside the reference.
And the stored ratios.

    python -m tests.speed.pairs

measures the ratios on this machine and stores them: after a change that is meant to be slower, or
so much faster that the old ratio would hide the loss of it. Ratios of other kinds of CPU stay as
they are.
"""

from __future__ import annotations

import json
import platform
import statistics
from pathlib import Path
from typing import Any

from gpt_edge.bench.machine import describe_machine
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.load import load
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.stream import TokenStream
from tests.speed.judge import Pair, measure_ratio
from tests.speed.reference import reference_session, reference_work

STORED = Path(__file__).with_name("ratios.json")
COMMAND = "python -m tests.speed.pairs"
CONTEXT, DECODED, PROMPT = 16, 2, 16  # tokens
RECORDINGS = 9
# by which int8 kernels differ
INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx2", "i8mm", "asimddp")
FOREVER = SamplingParams(ignore_end_token=True)


class Decoding:
    """Writes some tokens at the start of a generation, always the same ones."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._stream: TokenStream | None = None

    def prepare(self) -> None:
        """Read the prompt."""
        self._stream = self._generator.generate_ids(range(CONTEXT), FOREVER)
        next(self._stream)

    def work(self) -> None:
        """Decode."""
        assert self._stream is not None
        for _ in range(DECODED):
            next(self._stream)


def make_pairs() -> tuple[Pair, Pair]:
    """Decoding and reading a prompt with the embedded default bundle, on one thread, as an app does
    it.
    """
    generator = load(threads=1)
    config = generator.session.config
    reference = reference_session(config)
    decoding = Decoding(generator)

    def read() -> None:
        next(generator.generate_ids(range(PROMPT), FOREVER))

    return (
        Pair(
            "decode",
            decoding.work,
            reference_work(reference, config, CONTEXT, 1, DECODED),
            decoding.prepare,
        ),
        Pair("prefill", read, reference_work(reference, config, 0, PROMPT)),
    )


def cpu_kind() -> str:
    """Architecture and the best instructions for int8: kernels of different kinds have ratios of
    their own.
    """
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    except OSError:
        pass
    return " ".join([platform.machine(), *[name for name in INSTRUCTIONS if name in flags][:1]])


def read_ratios() -> dict[str, dict[str, Any]]:
    """Stored ratios by kind of CPU and name of the pair, each with how it was made."""
    stored: dict[str, dict[str, Any]] = json.loads(STORED.read_text()) if STORED.exists() else {}
    return stored


def record(path: Path = STORED) -> dict[str, Any]:
    """Measure the ratios here and store them at `path`, beside those of other kinds of CPU. Returns
    what was measured.
    """
    found = {}
    for pair in make_pairs():
        ratios = [measure_ratio(pair) for _ in range(RECORDINGS)]
        found[pair.name] = {
            "ratio": round(statistics.median(ratios), 4),
            "lowest": round(min(ratios), 4),
            "highest": round(max(ratios), 4),
        }
    own = {**found, "made_by": {"command": COMMAND, **describe_machine()}}
    path.write_text(json.dumps({**read_ratios(), cpu_kind(): own}, indent=1, sort_keys=True) + "\n")
    return own


if __name__ == "__main__":
    print(json.dumps(record(), indent=1))
