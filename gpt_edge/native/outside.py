"""What a rewritten graph leaves to onnxruntime although the library has an operator of that kind,
and why: for people who wonder where their speed or their equal bits went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from gpt_edge.native.graph_view import INT8
from gpt_edge.native.onnx_model import Model, Node
from gpt_edge.native.row_products import MIN_DEPTH, MIN_WIDTH


def what_is_outside(model: Model, nodes: Iterable[Node]) -> dict[tuple[str, str], int]:
    """How many of the nodes that stay have a kind that the library knows, by operator and
    reason.
    """
    found: Counter[tuple[str, str]] = Counter()
    for node in nodes:
        if node.op in REASONS:
            found[node.op, REASONS[node.op](model, node)] += 1
    return dict(found)


def _row_product(model: Model, node: Node) -> str:
    weights = model.constants.get(node.inputs[1])
    if weights is None or weights.type != INT8 or len(weights.dims) != 2:
        return "its weights are no int8 matrix of the file"
    depth, width = weights.dims
    if depth < MIN_DEPTH or width < MIN_WIDTH:
        return f"weights of {depth} x {width}, below {MIN_DEPTH} x {MIN_WIDTH}"
    return "its rows are quantized in another way"


def _block_product(model: Model, node: Node) -> str:
    depth, width, block, bits = (
        int(node.attributes.get(name, 0)) for name in ("K", "N", "block_size", "bits")
    )
    if any(node.inputs[3:5]):
        return "its blocks have zero points"
    if bits not in (4, 8):
        return f"weights of {bits} bits, not 4 or 8"
    if block < 16 or block & (block - 1) or depth % block:
        return f"blocks of {block} do not divide its {depth} rows"
    if width < 16:
        return f"{width} columns, below 16"
    return "its activations are not to be quantized"


def _attention(model: Model, node: Node) -> str:
    if node.attributes.get("num_heads") != node.attributes.get("kv_num_heads"):
        return "several heads share keys and values"
    return "heads wider than 128 numbers, or rotary positions, caps or masks"


def _says(reason: str) -> Callable[[Model, Node], str]:
    return lambda model, node: reason


REASONS: dict[str, Callable[[Model, Node], str]] = {
    "MatMulIntegerToFloat": _row_product,
    "MatMulInteger": _says("not an int8 product of gpt-edge's edge graph"),
    "MatMulNBits": _block_product,
    "MatMul": _says("float weights"),
    "FusedMatMul": _says("float weights"),
    "Gemm": _says("float weights"),
    "GroupQueryAttention": _attention,
    "FastGelu": _says("others read what it is made of"),
    "Gelu": _says("others read what it is made of"),
    "SkipLayerNormalization": _says("its mean or variance is read, or it has no shift"),
    "LayerNormalization": _says("no sum comes before it"),
}
