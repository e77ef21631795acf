"""Which nodes of a bundle's graph compute which operator of the reference, found by the wiring.

Norms, attentions, activations and residual sums are single nodes in every arrangement, and serve as
markers; what lies between two of them is a linear layer, however many nodes it takes. Their order
must be that of the reference; where it is not, the graph is wrong at that operator. Layers count by
their position in the graph, never by the names of weights: a name may lie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.fuse import BIAS_INPUTS
from gpt_edge.export.weights.reference_operators import (
    LINEARS,
    ReferenceOperator,
    reference_operators,
)

NORMS = ("LayerNormalization", "SkipLayerNormalization")
ATTENTIONS = ("GroupQueryAttention", "Attention", "MultiHeadAttention")
ACTIVATIONS = ("Gelu", "FastGelu", "QuickGelu", "Relu")
# the kind of node that computes an operator; the embedding is the sum of tokens and positions
MARKERS = {
    "embedding": "residual",
    "ln_1": "norm",
    "ln_2": "norm",
    "ln_f": "norm",
    "attn.attention": "attention",
    "mlp.activation": "activation",
    "attn.residual": "residual",
    "mlp.residual": "residual",
}
# the markers that read a linear layer's result
LINEAR_READERS = ("attention", "activation", "residual")


@dataclass(frozen=True, slots=True)
class MappedOperator:
    """An operator of the reference in one graph.

    node: the one that computes it; of a linear layer the one that reads its result. values: its
    result, one value; queries, keys and values where attention reads them apart; the two summands
    of a sum that no node shows. nodes: all nodes between it and the operators before it. bias: what
    the reading node still adds to the result, so that it belongs to this operator.
    """

    operator: ReferenceOperator
    node: ir.Node
    values: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An operator in whose stead the graph has something else."""

    operator: ReferenceOperator
    text: str


@dataclass(frozen=True, slots=True)
class _Marker:
    """A node of one of the kinds in MARKERS; a fused node is two of them."""

    kind: str
    node: ir.Node


def map_operators(
    onnx_graph: ir.Graph, config: GPTConfig
) -> tuple[dict[ReferenceOperator, MappedOperator], Mismatch | None]:
    """Map each operator in the reference's order, up to the first one that the graph does not have,
    and say what is there instead.
    """
    walk = _Walk(onnx_graph)
    mapped: dict[ReferenceOperator, MappedOperator] = {}
    for operator in reference_operators(config):
        result = MATCHERS[operator.name](operator, walk)
        if isinstance(result, Mismatch):
            return mapped, result
        mapped[operator] = result
    return mapped, None


class _Walk:
    """A graph on the way from its inputs to its outputs.

    markers: those still ahead. claimed: the nodes of the operators so far. origin: the last marker,
    which a branch starts from.
    """

    def __init__(self, onnx_graph: ir.Graph) -> None:
        self.onnx_graph = onnx_graph
        self.markers = deque(_markers(onnx_graph))
        self.claimed: set[ir.Node] = set()
        self.origin: ir.Node | None = None

    def claim(
        self, operator: ReferenceOperator, node: ir.Node, values: tuple[ir.Value, ...]
    ) -> MappedOperator:
        """Map an operator to all unclaimed nodes that lead to its values."""
        nodes = _nodes_before(values, self.claimed)
        self.claimed |= nodes
        in_order = tuple(node for node in self.onnx_graph if node in nodes)
        return MappedOperator(operator, node, values, in_order, _bias(node, operator, values))


def match_marker(operator: ReferenceOperator, walk: _Walk) -> MappedOperator | Mismatch:
    """A norm, attention, activation or sum: the next marker must be of its kind."""
    expected = MARKERS[operator.name]
    if not walk.markers:
        return Mismatch(
            operator,
            f"the graph has its end where the reference has a node of kind {expected}",
        )
    marker = walk.markers.popleft()
    if marker.kind != expected:
        return Mismatch(
            operator,
            f"the graph has a node of kind {marker.kind} ({marker.node.op_type}) where the "
            f"reference has a node of kind {expected}",
        )
    walk.origin = marker.node
    return walk.claim(operator, marker.node, _result_of(marker))


def match_linear(operator: ReferenceOperator, walk: _Walk) -> MappedOperator | Mismatch:
    """A linear layer: what the next marker but norms reads of it."""
    readers = (marker.node for marker in walk.markers if marker.kind in LINEAR_READERS)
    reader = next(readers, None)
    if reader is None:
        return Mismatch(operator, "the graph ends before it")
    values = _read_by(reader, operator, walk)
    if not values:
        return Mismatch(
            operator, "nothing in the graph leads from its input to the sum that reads it"
        )
    return walk.claim(operator, reader, values)


def match_head(operator: ReferenceOperator, walk: _Walk) -> MappedOperator | Mismatch:
    """The head: the logits, with no marker left before them, but for the sum of a similarity's two
    orders.
    """
    kinds = [marker.kind for marker in walk.markers]
    if kinds and not (operator.name == "task_head" and kinds == ["residual"]):
        return Mismatch(operator, f"the graph has one more node of kind {kinds[0]} before its head")
    outputs = (value for value in walk.onnx_graph.outputs if value.name == onnx_contract.LOGITS)
    logits = next(outputs, None)
    node = logits.producer() if logits is not None else None
    if logits is None or node is None:
        return Mismatch(operator, "the graph computes no logits")
    return walk.claim(operator, node, (logits,))


Matcher = Callable[[ReferenceOperator, _Walk], MappedOperator | Mismatch]
MATCHERS: dict[str, Matcher] = {
    **dict.fromkeys(MARKERS, match_marker),
    **dict.fromkeys(LINEARS, match_linear),
    "lm_head": match_head,
    "task_head": match_head,
}


def _markers(onnx_graph: ir.Graph) -> Iterator[_Marker]:
    """Norms, attentions, activations and sums of two activations, in order; a fused norm is a sum
    and a norm.
    """
    stream = _stream(onnx_graph)
    for node in onnx_graph:
        if node.op_type in NORMS:
            if node.op_type == "SkipLayerNormalization":
                yield _Marker("residual", node)
            yield _Marker("norm", node)
        elif node.op_type in ATTENTIONS:
            yield _Marker("attention", node)
        elif node.op_type in ACTIVATIONS:
            yield _Marker("activation", node)
        elif node.op_type == "Add" and all(value in stream for value in node.inputs):
            yield _Marker("residual", node)


def _stream(onnx_graph: ir.Graph) -> set[ir.Value]:
    """Every value that the embeddings flow into, their looked-up rows included; masks and lengths
    are not.
    """
    stream: set[ir.Value] = set()
    for node in onnx_graph:
        if node.op_type in ("Shape", "Size"):
            continue
        looks_up = node.op_type in ("Gather", "GatherBlockQuantized") and _is_table(node.inputs[0])
        if looks_up or any(value in stream for value in node.inputs if value is not None):
            stream.update(node.outputs)
    return stream


def _is_table(value: ir.Value | None) -> bool:
    """Whether a value is a weight of at least two axes, as embeddings are and tables of indices are
    not.
    """
    if value is None or not value.is_initializer() or value.shape is None:
        return False
    return len(value.shape) >= 2


def _result_of(marker: _Marker) -> tuple[ir.Value, ...]:
    """What a marker computes: of the sum in a fused norm its fourth output, or the summands."""
    node = marker.node
    if marker.kind == "residual" and node.op_type == "SkipLayerNormalization":
        if len(node.outputs) > 3 and node.outputs[3].name:
            return (node.outputs[3],)
        return tuple(value for value in node.inputs[:2] if value is not None)
    return (node.outputs[0],)


def _bias(
    node: ir.Node, operator: ReferenceOperator, values: tuple[ir.Value, ...]
) -> ir.Value | None:
    """The bias that the reading node adds: it belongs to a linear layer, and to a sum that no node
    shows.
    """
    is_hidden_sum = operator.name in ("attn.residual", "mlp.residual") and len(values) > 1
    if operator.name not in LINEARS and not is_hidden_sum:
        return None
    index = BIAS_INPUTS.get(node.op_type, len(node.inputs))
    return node.inputs[index] if index < len(node.inputs) else None


def _read_by(reader: ir.Node, operator: ReferenceOperator, walk: _Walk) -> tuple[ir.Value, ...]:
    """What a linear layer hands to the node that reads it; nothing where the walk's origin does not
    lead there.
    """
    if operator.name == "attn.c_attn":
        is_packed = reader.op_type == "GroupQueryAttention" and reader.inputs[1] is None
        inputs = reader.inputs[: 1 if is_packed else 3]
        return tuple(value for value in inputs if value is not None)
    if operator.name == "mlp.c_fc":
        return tuple(value for value in reader.inputs[:1] if value is not None)
    for value in reader.inputs[:2]:
        if value is not None and _comes_from(value, walk.origin, walk.claimed):
            return (value,)
    return ()


def _comes_from(value: ir.Value, origin: ir.Node | None, claimed: Collection[ir.Node]) -> bool:
    """Whether `value` is computed from what `origin` computes, by nodes that belong to no earlier
    operator.
    """
    pending = [value]
    visited = set()
    while pending:
        node = pending.pop().producer()
        if node is None or node in visited:
            continue
        visited.add(node)
        if node is origin:
            return True
        if node not in claimed:
            pending += [value for value in node.inputs if value is not None]
    return False


def _nodes_before(values: tuple[ir.Value, ...], claimed: Collection[ir.Node]) -> set[ir.Node]:
    """The nodes that lead to `values` and belong to no earlier operator."""
    pending = list(values)
    nodes: set[ir.Node] = set()
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in claimed and node not in nodes:
            nodes.add(node)
            pending += [value for value in node.inputs if value is not None]
    return nodes
