"""Portable bundles in an onnxruntime session that sets nothing, as Optimum and other programs open
them: the divergence from an fp32 bundle, and what opening and a token cost.

    python benchmarks/speed/plain_session.py FP32 BUNDLE... [--option KEY=VALUE]

FP32 and every BUNDLE are portable. Prints, for each bundle, the mean KL divergence in nats of the
logits of 64 random tokens, how many rows choose the same token, the CPU seconds of opening, the CPU
milliseconds of a token after those 64, and the peak of resident memory. One thread; a process of
its own for each bundle.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cpus import kl

CHILD = """
import json, sys, time
import numpy as np
import onnxruntime as ort
from gpt_edge.bench.process import peak_bytes

N_TOKENS, N_STEPS = 64, 8
model, out, options = sys.argv[1], sys.argv[2], ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
for pair in sys.argv[3:]:
    options.add_session_config_entry(*pair.split("=", 1))
start = time.process_time()
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
opened = time.process_time()
names = [value.name for value in session.get_outputs()]
pasts = [value for value in session.get_inputs() if value.name.startswith("past")]
state = {v.name: np.zeros((1, v.shape[1], 0, v.shape[3]), np.float32) for v in pasts}


def run(ids, n_past):
    total = n_past + ids.shape[1]
    state["input_ids"] = ids
    state["position_ids"] = np.arange(n_past, total)[None]
    state["attention_mask"] = np.ones((1, total), np.int64)
    results = dict(zip(names, session.run(names, state)))
    for value in pasts:
        state[value.name] = results[value.name.replace("past_key_values", "present")]
    return results["logits"]


vocab_size = session.get_outputs()[names.index("logits")].shape[-1]
logits = run(np.random.default_rng(0).integers(0, vocab_size, (1, N_TOKENS)), 0)
np.save(out, logits[0])
began = time.process_time()
for step in range(N_STEPS):
    logits = run(logits[:, -1:].argmax(-1), N_TOKENS + step)
figures = {
    "open": opened - start,
    "token": (time.process_time() - began) / N_STEPS * 1e3,
    "peak": (peak_bytes() or 0) / 1e6,
}
print(json.dumps(figures))
"""


def measure(bundle: Path, options: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Logits [T, V] and figures of one bundle."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        command = [sys.executable, "-c", CHILD, str(bundle / "model.onnx"), str(out), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{bundle} failed: {done.stderr.strip().splitlines()[-1:]}")
        return np.load(out), json.loads(done.stdout)


def main() -> None:
    """Print a Markdown row for each bundle."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("fp32", type=Path)
    arguments.add_argument("bundles", nargs="+", type=Path)
    arguments.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    given = arguments.parse_args()
    reference, _ = measure(given.fp32, [])
    print("| bundle | mean KL | same token | open, s | token, ms | peak RSS, MB |")
    print("|---|---|---|---|---|---|", flush=True)
    for bundle in given.bundles:
        logits, figures = measure(bundle, given.option)
        same = int((reference.argmax(-1) == logits.argmax(-1)).sum())
        print(
            f"| {bundle.name} | {kl(reference, logits).mean():.1e} | {same} of {len(logits)} | "
            f"{figures['open']:.1f} | {figures['token']:.0f} | {figures['peak']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
