"""The figures that a report of peers.py is made of: samples read, and their medians. Pure, as
`speed_report.py` is.

A sample is one JSON line of the harness's drive.py: the runner's figures with `peer`,
`foreign_cores` (what other processes used meanwhile), `steal_cores` (what the host of a virtual
machine took) and `canary_gb_s` (read bandwidth just before). Every figure is a median over rounds;
a round in which an engine was disturbed is left out for all of them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Sample = Mapping[str, Any]
Setting = tuple[int, int, int]  # batch, threads, tokens of the prompt

OURS = "gpt-edge"  # what run_gpt_edge.py calls its engine
BASELINE = "optimum-int8"  # what a user does today
BITS_OF = {  # bits per weight of the harness's peers; of a bundle it is its scheme that tells
    "ov-int8": 8,
    "ov-int8-bf16": 8,
    "ov-int8-optimum": 8,
    "llama-q8_0": 8,
    "ct2-int8": 8,
    "ort-oldtool-int8": 8,
    "genai-int8": 8,
    "optimum-int8": 8,
    "llama-q4_0": 4,
}
WANTED = {
    *(
        "peer",
        "engine",
        "version",
        "precision",
        "threads",
        "batch",
        "prompt_tokens",
        "new_tokens",
        "repeats",
        "when",
    ),
    *(
        "load_s",
        "first_token_s",
        "prefill_tok_s",
        "decode_tok_s",
        "peak_rss_mb",
        "disk_bytes",
        "head_ids",
    ),
    "foreign_cores",
}
# cores; drive.py's limit for other processes, and ours for what the host of a virtual machine took
DISTURBED = 0.15
WEIGHT_BYTES = {8: 124e6, 4: 70e6}  # that a token has to read: 123.7M weights and their scales
KV_BYTES = 73_728  # that a token has to read for each earlier one: 12 layers x 2 x 768 in fp32


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one engine at one setting. `low` and `high` are the slowest and fastest round's
    decode tokens/s.
    """

    engine: str
    bits: int | None  # None: unknown, so it is compared with nothing
    is_ours: bool
    is_native: bool  # ours, with gpt-edge's operators
    decode: float  # tokens/s, all rows together
    low: float
    high: float
    first_token_ms: float
    prefill: float  # tokens/s
    load_seconds: float
    peak_rss_mb: float
    disk_mb: float
    new_tokens: int
    n_kept: int
    n_rounds: int
    kv_bytes: int  # that a token has to read for each earlier one
    is_disturbed: bool  # every round was: a figure to look at, not to quote


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file. Raises ValueError naming the line that is none, or the engine that
    changed in between.
    """
    samples: list[Sample] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            sample = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(sample, dict) or (missing := sorted(WANTED - sample.keys())):
            what = f"lacks {', '.join(missing)}" if isinstance(sample, dict) else "is no object"
            raise ValueError(f"{path}, line {number} is no sample of drive.py: it {what}")
        samples.append(sample)
    if not samples:
        raise ValueError(f"{path} holds no samples")
    if len(lengths := {sample["new_tokens"] for sample in samples}) > 1:
        raise ValueError(f"{path} mixes runs of {sorted(lengths)} new tokens; start a new file")
    for name in {sample["peer"] for sample in samples}:
        kinds = {
            (s["version"], s["precision"], s["disk_bytes"]) for s in samples if s["peer"] == name
        }
        if len(kinds) > 1:
            raise ValueError(
                f"{path} mixes {len(kinds)} states of {name}: {sorted(kinds)}; start a new file"
            )
    return samples


def undisturbed(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that neither another process nor the machine's host disturbed, or all if there are
    none.
    """
    return [sample for sample in samples if not disturbance(sample)] or samples


def disturbance(sample: Sample) -> str:
    """Who disturbed it: "process", "host", or nobody, ""."""
    if sample["foreign_cores"] >= DISTURBED:
        return "process"
    return "host" if sample.get("steal_cores", 0.0) >= DISTURBED else ""


def medians(samples: Iterable[Sample]) -> dict[Setting, list[Figures]]:
    """By setting, the fastest engine first."""
    groups: dict[Setting, dict[str, list[Sample]]] = {}
    for sample in samples:
        setting = sample["batch"], sample["threads"], sample["prompt_tokens"]
        groups.setdefault(setting, {}).setdefault(sample["peer"], []).append(sample)
    table = {}
    for setting, engines in sorted(groups.items()):
        kept = shared_rounds(engines)
        found = [_figures(name, kept[name], len(rounds)) for name, rounds in engines.items()]
        table[setting] = sorted(found, key=lambda figures: -figures.decode)
    return table


def shared_rounds(engines: Mapping[str, Sequence[Sample]]) -> Mapping[str, Sequence[Sample]]:
    """The rounds in which nobody was disturbed, for all engines alike: fast and slow hours count
    the same for each.

    Where there is no such round, or engines ran unequally often, each keeps the rounds in which it
    was not disturbed.
    """
    counts = {len(rounds) for rounds in engines.values()}
    if len(counts) == 1:
        quiet = [
            i
            for i in range(counts.pop())
            if not any(disturbance(rounds[i]) for rounds in engines.values())
        ]
        if quiet:
            return {name: [rounds[i] for i in quiet] for name, rounds in engines.items()}
    return {name: undisturbed(rounds) for name, rounds in engines.items()}


def _figures(name: str, kept: Sequence[Sample], n_rounds: int) -> Figures:
    def median(key: str) -> float:
        return float(statistics.median(sample[key] for sample in kept))

    speeds = [sample["decode_tok_s"] for sample in kept]
    is_ours = kept[0]["engine"] == OURS
    is_native = is_ours and kept[0]["version"].endswith("native")
    scheme_bits = {"int8": 8, "int4": 4}.get(kept[0]["precision"].partition("-")[0])
    return Figures(
        engine=name,
        bits=scheme_bits if is_ours else BITS_OF.get(name),
        is_ours=is_ours,
        is_native=is_native,
        decode=median("decode_tok_s"),
        low=min(speeds),
        high=max(speeds),
        first_token_ms=1e3 * median("first_token_s"),
        prefill=median("prefill_tok_s"),
        load_seconds=median("load_s"),
        peak_rss_mb=median("peak_rss_mb"),
        disk_mb=median("disk_bytes") / 1e6,
        new_tokens=kept[0]["new_tokens"],
        n_kept=len(kept),
        n_rounds=n_rounds,
        kv_bytes=KV_BYTES // 2 if is_native else KV_BYTES,
        is_disturbed=bool(disturbance(kept[0])),
    )


def bandwidths(samples: Iterable[Sample]) -> dict[int, tuple[float, float, float]]:
    """GB/s read of 120 MB by number of threads, before runs of batch 1: median, lowest, highest;
    empty without a canary.
    """
    found: dict[int, list[float]] = {}
    for sample in samples:
        if sample["batch"] == 1 and sample.get("canary_gb_s") is not None:
            found.setdefault(sample["threads"], []).append(sample["canary_gb_s"])
    return {
        threads: (statistics.median(all_), min(all_), max(all_))
        for threads, all_ in sorted(found.items())
    }


def roofline(found: Figures, setting: Setting, gb_s: float) -> float:
    """The share of what the bandwidth allows: weights once a token, and keys and values of what
    came before.
    """
    assert found.bits is not None
    context = setting[2] + found.new_tokens / 2  # on average
    return found.decode * (WEIGHT_BYTES[found.bits] + found.kv_bytes * context) / (gb_s * 1e9)


def best_peer(
    engines: Iterable[Figures], bits: int | None, *, first_token: bool = False
) -> Figures | None:
    """The peer with the most tokens/s, or with the earliest first token, among those with as many
    bits per weight.
    """
    peers = [
        found for found in engines if not found.is_ours and bits is not None and found.bits == bits
    ]
    if first_token:
        return min(peers, key=lambda found: found.first_token_ms, default=None)
    return max(peers, key=lambda found: found.decode, default=None)
