"""How much memory a bundle will take, predicted from its files before anything is loaded.

The factors were fitted to measured peaks: fp32, int8, int8-block and portable int8 of 0.1 to 498 MB
(benchmarks/results/memory.md). They hold onnxruntime's habit of packing weights into a second copy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.integer_products import has_integer_products, has_signed_weights
from gpt_edge.errors import BundleError
from gpt_edge.native.library import Native, find_library
from gpt_edge.onnx_contract import cache_head_size
from gpt_edge.runtime.open_graph import LARGE
from gpt_edge.runtime.ort_session import products_saturate
from gpt_edge.runtime.tuning import DEFAULT, Tuning
from gpt_edge.schemes import SCHEMES

# Bytes of Python, numpy, onnxruntime and an opened graph without weights: interpreters from 3.13 on
# take more for the same modules.
PROCESS_OF = {(3, 11): 63_000_000, (3, 12): 63_000_000, (3, 13): 72_000_000, (3, 14): 80_000_000}
PROCESS = PROCESS_OF.get(sys.version_info[:2], 80_000_000)
# Resident bytes for each byte of weights, when the peak is reached.
MAPPED = 1.1  # used where the file is mapped: custom operators, and fp32 of a large model
PACKED = {"edge": 1.35, "portable": 1.85}  # portable: also the copy that the fused product reads
PACKED_FLOAT = 1.3
GUARDED = 0.6  # more: the guard's unsigned copies
FLOAT_BYTES, HALF_BYTES = 4, 2


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """Bytes. loaded: the peak of resident memory until the first token. cache: keys and values of a
    full context. work: what a piece of a long prompt takes beside them.
    """

    loaded: int
    cache: int
    work: int

    @property
    def full(self) -> int:
        """The peak with a full context."""
        return self.loaded + self.cache + self.work


def predict_memory(
    bundle: Bundle, *, native: Native = None, tuning: Tuning = DEFAULT
) -> MemoryPrediction:
    """Predict the memory of a process that opens `bundle` and nothing else."""
    config = bundle.config
    has_operators = bundle.graph == "edge" and find_library(native) is not None
    model = bundle.model_path.name
    weights = sum(
        record["size"] for name, record in bundle.manifest.files.items() if name.startswith(model)
    )
    is_half = has_operators and not SCHEMES[bundle.scheme].is_float
    item = HALF_BYTES if is_half else FLOAT_BYTES
    width = config.n_head * cache_head_size(config, bundle.graph)
    cache = 2 * config.n_layer * width * config.n_ctx * item
    chunk = min(tuning.prefill_chunk, config.n_ctx)
    inner = 3 * config.inner_size + 8 * config.n_embd  # floats of a token that exist at once
    scores = config.n_head * config.n_ctx
    return MemoryPrediction(
        loaded=PROCESS + int(_factor(bundle, has_operators) * weights),
        cache=cache,
        work=chunk * (inner + scores) * FLOAT_BYTES,
    )


def check_memory(
    bundle: Bundle, max_memory: int, *, native: Native = None, tuning: Tuning = DEFAULT
) -> None:
    """Raise BundleError unless the prediction with a full context is within `max_memory` bytes."""
    prediction = predict_memory(bundle, native=native, tuning=tuning)
    if prediction.full > max_memory:
        raise BundleError(
            f"{bundle.path} needs about {prediction.full / 1e6:.0f} MB "
            f"({prediction.loaded / 1e6:.0f} MB to load, the rest for a full context), the limit "
            f"is {max_memory / 1e6:.0f} MB",
            hint="gpt-edge quantize makes a smaller bundle; gpt-edge inspect --memory shows where "
            "the memory goes",
        )


def _factor(bundle: Bundle, has_operators: bool) -> float:
    is_float = SCHEMES[bundle.scheme].is_float
    if (has_operators and not is_float) or (is_float and bundle.config.n_parameters > LARGE):
        return MAPPED
    if is_float:
        return PACKED_FLOAT
    path = bundle.model_path
    is_guarded = has_integer_products(path) and has_signed_weights(path) and products_saturate()
    return PACKED[bundle.graph] + (GUARDED if is_guarded else 0.0)
