"""The products of scheme `int8` in an edge graph: seven nodes or more, replaced by one RowProduct.

A product counts only if its rows are quantized as kernels/operators/row_product.h does it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.native.activations import NONE, activation_of, follower
from gpt_edge.native.graph_view import FLOAT32, INT8, INT64, UINT8, GraphView
from gpt_edge.native.onnx_model import Node

LAST_AXIS = b"\xff" * 8  # -1
MIN_DEPTH, MIN_WIDTH = 16, 64  # of the weights; operators/row_product.h


@dataclass(frozen=True, slots=True)
class RowProductMatch:
    """The nodes that one RowProduct replaces: what finds a row's scale, QuantizeLinear, the integer
    product, the Mul that rescales it, and maybe what adds a bias and applies an activation.

    inputs: the operator's. high, low: fractions of a row's largest and smallest value, see
    `_row_scale`.
    """

    nodes: list[Node]
    inputs: list[str]
    has_bias: bool
    activation: int
    zero_point: int
    high: float
    low: float


def match_row_product(view: GraphView, product: Node) -> RowProductMatch | None:
    """The nodes around an integer product; None where they compute something else, or others need
    what is between them.
    """
    quantize = _quantize_rows(view, product)
    if quantize is None:
        return None
    _, weights, _, scales, zero = product.inputs
    x, row_scale, _ = quantize.inputs
    scale_match = _row_scale(view, row_scale, x)
    rescale = view.only_reader(product.outputs[0], "Mul")
    zero_point = view.single(zero, UINT8)
    if scale_match is None or rescale is None or zero_point is None:
        return None
    if set(rescale.inputs) != {product.outputs[0], row_scale}:
        return None
    scale_nodes, high, low = scale_match
    end, bias, activation = _bias_and_activation(view, rescale, scales)
    nodes = [*scale_nodes, quantize, product, rescale, *end]
    inputs = [x, weights, scales, *([bias] if bias else [])]
    if not view.are_private(nodes):
        return None
    return RowProductMatch(nodes, inputs, bool(bias), activation, zero_point.raw[0], high, low)


def _quantize_rows(view: GraphView, product: Node) -> Node | None:
    """The QuantizeLinear before a product, if it quantizes each whole row with one scale and the
    product's zero point.
    """
    if len(product.inputs) != 5:
        return None
    quantized, weights, one, scales, zero = product.inputs
    quantize = view.makers.get(quantized)
    if quantize is None or quantize.op != "QuantizeLinear":
        return None
    if not _are_weights(view, weights, scales) or view.single_float(one) != 1.0:
        return None
    _, _, zeros = quantize.inputs
    depth = view.model.constants[weights].dims[0]
    expand = view.makers.get(zeros)
    has_row_blocks = quantize.attributes.get("block_size") == depth
    if quantize.attributes.get("axis") != -1 or not has_row_blocks:
        return None
    if expand is None or expand.op != "Expand" or expand.inputs[0] != zero:
        return None
    return quantize


def _are_weights(view: GraphView, weights: str, scales: str) -> bool:
    w, s = view.model.constants.get(weights), view.model.constants.get(scales)
    if w is None or s is None or w.type != INT8 or len(w.dims) != 2:
        return False
    return w.dims[0] >= MIN_DEPTH and w.dims[1] >= MIN_WIDTH and s.dims == w.dims[1:]


def _bias_and_activation(
    view: GraphView, rescale: Node, scales: str
) -> tuple[list[Node], str, int]:
    """The nodes behind a rescaled product that add a constant bias and apply an activation, as far
    as nobody else reads what they do; the bias, "" for none; the activation.
    """
    output = rescale.outputs[0]
    adds = view.only_reader(output, "Add", "FastGelu")
    nodes, bias = [], ""
    if adds is not None and len(adds.inputs) == 2:
        bias = next((name for name in adds.inputs if name != output), "")
        if not view.has_constant(bias, FLOAT32, view.model.constants[scales].dims):
            return [], "", NONE
        nodes.append(adds)
        if adds.op == "FastGelu":
            return nodes, bias, activation_of(adds)
        output = adds.outputs[0]
    last = follower(view, output)
    if last is None:
        return nodes, bias, NONE
    return [*nodes, last], bias, activation_of(last)


def _row_scale(view: GraphView, name: str, x: str) -> tuple[list[Node], float, float] | None:
    """The nodes that find a row's scale, and its fractions of the largest value and of the smallest
    (0: of |x|).
    """
    maker = view.makers.get(name)
    if maker is None:
        return None
    if maker.op == "Mul":
        found = _share(view, maker, "ReduceMax")
        if found is None:
            return None
        nodes, source, high = found
        before = view.makers.get(source)
        if before is None:
            return None
        if before.op == "Abs" and before.inputs == [x]:
            return [before, *nodes], high, 0.0
        # what is never negative is its own |x|
        return (nodes, high, 0.0) if before.op == "Relu" and source == x else None
    if maker.op != "Max" or len(maker.inputs) != 2:
        return None
    top = _share(view, view.makers.get(maker.inputs[0]), "ReduceMax")
    bottom = _share(view, view.makers.get(maker.inputs[1]), "ReduceMin")
    if top is None or bottom is None or top[1] != x or bottom[1] != x:
        return None
    return [*top[0], *bottom[0], maker], top[2], bottom[2]


def _share(view: GraphView, mul: Node | None, op: str) -> tuple[list[Node], str, float] | None:
    """A fraction of a reduction over the last axis: its nodes, what is reduced, and the
    fraction.
    """
    if mul is None or mul.op != "Mul" or len(mul.inputs) != 2:
        return None
    reduction, share = view.makers.get(mul.inputs[0]), view.single_float(mul.inputs[1])
    if reduction is None or reduction.op != op or share is None or len(reduction.inputs) != 2:
        return None
    axes = view.single(reduction.inputs[1], INT64)
    if axes is None or axes.raw != LAST_AXIS:
        return None
    return [reduction, mul], reduction.inputs[0], share
