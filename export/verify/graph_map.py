"""Where a GPT's operators stand in a bundle's graph: the value that each of them leaves behind,
found by the wiring.

Norms, attentions, activations and residual sums are single nodes in every arrangement; what lies
between two of them is a linear layer, however many nodes it takes. Their order must be that of the
reference; where it is not, the graph is wrong at that place. Layers count by their place in the
graph, never by the names of weights: a name may lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.weights.reference_operators import (
    LINEARS,
    ReferenceOperator,
    reference_operators,
)

NORMS = ("LayerNormalization", "SkipLayerNormalization")
ATTENTIONS = ("GroupQueryAttention", "Attention", "MultiHeadAttention")
ACTIVATIONS = ("Gelu", "FastGelu", "QuickGelu", "Relu")
# operators that add a bias to what they read
BIAS_INPUTS = {"FastGelu": 1, "SkipLayerNormalization": 4}
EVENTS = {
    "ln_1": "norm",
    "ln_2": "norm",
    "ln_f": "norm",
    "attn.attention": "attention",
    "mlp.activation": "activation",
    "attn.residual": "residual",
    "mlp.residual": "residual",
    "embedding": "residual",  # the sum of tokens and positions
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a place is in one graph.

    node: the one that computes it; of a linear layer the one that reads its result. values: what it
    leaves behind, one value; queries, keys and values where attention reads them apart; the two
    summands of a sum that no node shows. bias: what the reading node still adds to it, so that it
    is part of it. nodes: all nodes between this place and those before it.
    """

    place: ReferenceOperator
    node: ir.Node
    values: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    bias: ir.Value | None = None


@dataclass(frozen=True, slots=True)
class Misfit:
    """A place where the graph has something else than the reference."""

    place: ReferenceOperator
    text: str


def find_sites(
    graph: ir.Graph, config: GPTConfig
) -> tuple[dict[ReferenceOperator, Site], Misfit | None]:
    """Return the site of each place in order, up to the first one that is not there, and what is
    there instead.
    """
    events = list(_events(graph))
    found: dict[ReferenceOperator, Site] = {}
    seen: set[ir.Node] = set()
    origin: ir.Node | None = None  # the attention or activation that a branch starts from
    for place in reference_operators(config):
        if place.name in EVENTS:
            wanted = EVENTS[place.name]
            kind, node = events.pop(0) if events else ("end", None)
            if kind != wanted or node is None:
                what = "its end" if node is None else f"a node of kind {kind} ({node.op_type})"
                return found, Misfit(
                    place, f"the graph has {what} where the reference has a node of kind {wanted}"
                )
            values, origin = _left_behind(node, kind), node
        elif place.name == "lm_head":
            if events:
                return found, Misfit(
                    place, f"the graph has one more node of kind {events[0][0]} before its head"
                )
            logits = next(
                (value for value in graph.outputs if value.name == onnx_contract.LOGITS), None
            )
            node = logits.producer() if logits is not None else None
            if logits is None or node is None:
                return found, Misfit(place, "the graph computes no logits")
            values = (logits,)
        else:
            node = next(
                (node for kind, node in events if kind in ("attention", "activation", "residual")),
                None,
            )
            if node is None:
                return found, Misfit(place, "the graph ends before it")
            values = _read_by(node, place, origin, seen)
            if not values:
                return found, Misfit(
                    place, "nothing in the graph leads from its input to the sum that reads it"
                )
        before = _before(values, seen)
        seen |= before
        found[place] = Site(
            place,
            node,
            values,
            tuple(node for node in graph if node in before),
            _bias(node, place, values),
        )
    return found, None


def _events(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """Norms, attentions, activations and sums of two activations, in order; a fused norm is a sum
    and a norm.
    """
    stream = _stream(graph)
    for node in graph:
        if node.op_type in NORMS:
            if node.op_type == "SkipLayerNormalization":
                yield "residual", node
            yield "norm", node
        elif node.op_type in ATTENTIONS:
            yield "attention", node
        elif node.op_type in ACTIVATIONS:
            yield "activation", node
        elif node.op_type == "Add" and all(value in stream for value in node.inputs):
            yield "residual", node


def _stream(graph: ir.Graph) -> set[ir.Value]:
    """Every value that the embeddings flow into, what is looked up of them included; masks and
    lengths are not.
    """
    stream: set[ir.Value] = set()
    for node in graph:
        looks_up = node.op_type in ("Gather", "GatherBlockQuantized") and _is_table(node.inputs[0])
        if looks_up or any(value in stream for value in node.inputs if value is not None):
            if node.op_type in ("Shape", "Size"):
                continue
            stream.update(node.outputs)
    return stream


def _is_table(value: ir.Value | None) -> bool:
    """Whether a value is a weight of at least two axes, as embeddings are and tables of indices are
    not.
    """
    return (
        value is not None
        and value.is_initializer()
        and value.shape is not None
        and len(value.shape) >= 2
    )


def _left_behind(node: ir.Node, kind: str) -> tuple[ir.Value, ...]:
    if kind == "residual" and node.op_type == "SkipLayerNormalization":
        if len(node.outputs) > 3 and node.outputs[3].name:
            return (node.outputs[3],)
        return tuple(value for value in node.inputs[:2] if value is not None)
    return (node.outputs[0],)


def _bias(node: ir.Node, place: ReferenceOperator, values: tuple[ir.Value, ...]) -> ir.Value | None:
    """The bias that the reading node adds: it belongs to a linear layer, and to a sum that no node
    shows.
    """
    index = BIAS_INPUTS.get(node.op_type, len(node.inputs))
    reads_it = place.name in LINEARS or (
        place.name in ("attn.residual", "mlp.residual") and len(values) > 1
    )
    return node.inputs[index] if reads_it and index < len(node.inputs) else None


def _read_by(
    node: ir.Node, place: ReferenceOperator, origin: ir.Node | None, seen: Collection[ir.Node]
) -> tuple[ir.Value, ...]:
    """What a linear layer hands to the node that reads it; nothing where its input's `origin` does
    not lead there.
    """
    if place.name == "attn.c_attn":
        packed = node.op_type == "GroupQueryAttention" and node.inputs[1] is None
        return tuple(value for value in node.inputs[: 1 if packed else 3] if value is not None)
    if place.name == "mlp.c_fc":
        return tuple(value for value in node.inputs[:1] if value is not None)
    branches = [
        value for value in node.inputs[:2] if value is not None and _comes_from(value, origin, seen)
    ]
    return tuple(branches[:1])


def _comes_from(value: ir.Value, origin: ir.Node | None, seen: Collection[ir.Node]) -> bool:
    """Whether `value` is made of what `origin` computes, by nodes that belong to no
    earlier place.
    """
    todo, known = [value], set()
    while todo:
        node = todo.pop().producer()
        if node is None or node in known:
            continue
        known.add(node)
        if node is origin:
            return True
        if node not in seen:
            todo += [value for value in node.inputs if value is not None]
    return False


def _before(values: tuple[ir.Value, ...], seen: Collection[ir.Node]) -> set[ir.Node]:
    """The nodes that lead to `values` and belong to no earlier place."""
    todo, found = list(values), set()
    while todo:
        node = todo.pop().producer()
        if node is not None and node not in seen and node not in found:
            found.add(node)
            todo += [value for value in node.inputs if value is not None]
    return found


def initializers(nodes: Collection[ir.Node]) -> dict[str, ir.Value]:
    """The weights that these nodes read, by name."""
    values = [
        value
        for node in nodes
        for value in node.inputs
        if value is not None and value.is_initializer()
    ]
    return {str(value.name): value for value in values}
