"""The memory of a bundle: calculated, predicted, and measured in a separate process that loads it
and runs one token.

Calculated are the weights file, the keys and values of a full context, and one row of logits. What
onnxruntime repacks or allocates for itself is missing from that; the prediction and the measurement
include it.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import cache_head_size
from gpt_edge.runtime.memory_model import predict_memory
from gpt_edge.system.python_process import python_command, python_environment

FLOAT_BYTES = 4
SECONDS = 600
MEASURE = """
import json, sys
from gpt_edge.bench.process import peak_bytes
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime.session import Session
base = peak_bytes()
session = Session(Bundle.open(sys.argv[1], check=False))
cache = session.new_cache()
session.forward([[0]], cache)
print(json.dumps([base, peak_bytes(), cache.arrays[0].itemsize]))
"""


def memory_figures(bundle: Bundle) -> dict[str, Any]:
    """Return bytes by name. The measured ones are None where the system does not report them.
    Raises BundleError if the bundle cannot be loaded.
    """
    config = bundle.config
    base, peak, item = _measure(bundle)
    per_token = 2 * config.n_layer * config.n_head * cache_head_size(config, bundle.graph) * item
    model = bundle.model_path.name
    weights = sum(
        record["size"] for name, record in bundle.manifest.files.items() if name.startswith(model)
    )
    logits = config.vocab_size * FLOAT_BYTES
    prediction = predict_memory(bundle)
    return {
        "weights": weights,
        "cache_per_token": per_token,
        "n_ctx": config.n_ctx,
        "cache": per_token * config.n_ctx,
        "logits": logits,
        "sum": weights + per_token * config.n_ctx + logits,
        "predicted_peak": prediction.loaded,
        "predicted_full": prediction.full,
        "measured_base": base,
        "measured_peak": peak,
    }


def _measure(bundle: Bundle) -> tuple[int | None, int | None, int]:
    """Return the resident bytes before and after, and the bytes of one number in the cache."""
    done = subprocess.run(
        python_command("-c", MEASURE, os.path.abspath(bundle.path)),
        env=python_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BundleError(f"{bundle.path} could not be loaded to measure its memory: {last[:300]}")
    base, peak, item = json.loads(done.stdout)
    return base, peak, item
