"""The same bundle on a CPU without VNNI: run under an emulator, its logits held against this
machine's.

    python benchmarks/speed/cpus.py BUNDLE... --cpu Haswell --cpu Nehalem

Needs qemu-x86_64 (package qemu-user).

Prints, for each bundle and CPU, whether products of 8-bit numbers saturate there, the mean and
largest KL divergence in nats of the logits of one text, and how many rows choose the same token.
"not guarded" is what a runtime shows that does not ask for unsigned weights where they are needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHILD = """
import json, sys
import numpy as np
from gpt_edge.runtime import ort_session
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime.session import Session
bundle, out, n_tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
guarded = sys.argv[4] == "guarded"
saturates = ort_session.products_saturate()
if not guarded:
    ort_session.products_saturate = lambda: False
model = Session(Bundle.open(bundle), threads=1)
ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, n_tokens))
np.save(out, model.forward(ids, model.new_cache(), "all")[0])
print(json.dumps({"saturates": saturates}))
"""


def logits(
    command: list[str], bundle: Path, n_tokens: int, *, guarded: bool = True
) -> tuple[np.ndarray, bool]:
    """Logits [T, V] of a fixed text in a process of its own, and whether products saturate
    in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        mode = "guarded" if guarded else "not guarded"
        arguments = [
            *command,
            sys.executable,
            "-c",
            CHILD,
            str(bundle),
            str(out),
            str(n_tokens),
            mode,
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
        return np.load(out), bool(json.loads(done.stdout.splitlines()[-1])["saturates"])


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL divergence in nats of each row."""
    logs = [
        x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
        for x in (p.astype(np.float64), q.astype(np.float64))
    ]
    return (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)


def main() -> None:
    """Print a Markdown row for each bundle and CPU."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundles", nargs="+", type=Path)
    arguments.add_argument("--cpu", action="append", default=None)
    arguments.add_argument("--emulator", default="qemu-x86_64")
    arguments.add_argument("--tokens", type=int, default=64)
    given = arguments.parse_args()
    print(
        "| bundle | CPU | saturates | mean KL | largest KL | same token "
        "|\n|---|---|---|---|---|---|",
        flush=True,
    )
    for bundle in given.bundles:
        here, _ = logits([], bundle, given.tokens)
        for cpu in given.cpu or ["Haswell"]:
            for guarded in (True, False):
                there, saturates = logits(
                    [given.emulator, "-cpu", cpu], bundle, given.tokens, guarded=guarded
                )
                apart = kl(here, there)
                same = (here.argmax(-1) == there.argmax(-1)).sum()
                name = cpu if guarded else f"{cpu}, not guarded"
                row = f"{apart.mean():.1e} | {apart.max():.1e} | {same} of {len(here)}"
                print(
                    f"| {bundle.name} | {name} | {'yes' if saturates else 'no'} | {row} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
