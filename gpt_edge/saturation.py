"""Does this CPU saturate products of unsigned and signed 8-bit numbers?

x86 CPUs without VNNI add two such products in 16 bits: 2 * 255 * 127 becomes 32,767 (onnxruntime#14642, #6004). No
flag of the CPU says what onnxruntime's kernels do on it, so a product that would saturate is computed and looked at.
"""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime as ort

DEPTH, WIDTH = 4, 16
# An ONNX model of one node: y int32 [M, 16] = MatMulInteger(a uint8 [M, 4], b int8 [4, 16]), b being 127 everywhere.
MODEL = bytes.fromhex(
    "080812003a96010a180a01610a0162120179220d4d61744d756c496e74656765721201702a4b0804081010034201624a40"
)
MODEL += b"\x7f" * (DEPTH * WIDTH) + bytes.fromhex(
    "5a140a0161120f0a0d080212090a0312014d0a02080462140a0179120f0a0d080612090a0312014d0a02081042040a00100d"
)


@functools.cache
def products_saturate() -> bool:
    """True where onnxruntime's u8 x s8 products are wrong on this CPU. Costs about a millisecond, once a process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    return any(
        bool((session.run(None, {"a": np.full((rows, DEPTH), 255, np.uint8)})[0] != DEPTH * 255 * 127).any())
        for rows in (1, 8)  # one row and several take different kernels
    )
