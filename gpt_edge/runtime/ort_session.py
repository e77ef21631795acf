"""The one place that starts an onnxruntime session, so that the guard for CPUs without VNNI reaches
every graph.

x86 CPUs without VNNI add two products of unsigned and signed 8-bit numbers in 16 bits: 2 * 255 *
127 becomes 32,767 (onnxruntime#14642, #6004). No flag of the CPU says what onnxruntime's kernels do
on it, so a product that would saturate is computed and looked at.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from gpt_edge.bundle.integer_products import has_integer_products

SILENT = 4  # onnxruntime's severity "fatal": errors are raised, not printed
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        value
        for value in vars(ort_errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
MESSAGE_LENGTH = 300
DEPTH, WIDTH = 4, 16
# An ONNX model of one node: y int32 [M, 16] = MatMulInteger(a uint8 [M, 4], b int8 [4, 16]), b
# being 127 everywhere.
MODEL = bytes.fromhex(
    "080812003a96010a180a01610a0162120179220d4d61744d756c496e74656765721201702a4b0804081010034201624a40"
)
MODEL += b"\x7f" * (DEPTH * WIDTH) + bytes.fromhex(
    "5a140a0161120f0a0d080212090a0312014d0a02080462140a0179120f0a0d080612090a0312014d0a02081042040a00100d"
)


def start_session(
    model: Path | bytes, options: ort.SessionOptions, *, is_guarded: bool = True
) -> ort.InferenceSession:
    """Start a graph on the CPU, exact where the CPU's 8-bit products saturate. Raises one of
    ORT_ERRORS.

    is_guarded: False leaves saturating products as they are; the probe alone wants that.
    """
    # The guard copies every signed weight, for 0.5 s of CPU time with 124M parameters: a graph
    # without integer products, or whose products are all custom operators, goes without.
    if is_guarded and has_integer_products(model) and products_saturate():
        # signed weights become unsigned
        options.add_session_config_entry("session.x64quantprecision", "1")
        # Without this the option also rewrites DequantizeLinear, gives a block's zero points one
        # dimension, and fails.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@functools.cache
def products_saturate() -> bool:
    """True where onnxruntime's u8 x s8 products are wrong on this CPU. Costs about a millisecond,
    once a process.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = start_session(MODEL, options, is_guarded=False)
    return any(
        bool(
            (
                session.run(None, {"a": np.full((rows, DEPTH), 255, np.uint8)})[0]
                != DEPTH * 255 * 127
            ).any()
        )
        for rows in (1, 8)  # one row and several take different kernels
    )


def cause_of(error: BaseException) -> str:
    """What onnxruntime says, in one line. A long message keeps its end, where the cause is; it
    begins with the node and the path of a source file.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MESSAGE_LENGTH else "..." + text[-MESSAGE_LENGTH:].lstrip()
