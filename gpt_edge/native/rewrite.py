"""Which nodes of an edge graph the library's operators replace: matched by what they compute, not
by their names.

A node is replaced only where shapes and settings are those that the operator is made for;
everything else stays with onnxruntime. The file of the bundle is not changed: the graph is
rewritten in memory, while it is opened.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from gpt_edge.native.activations import NONE, activation_of, follower
from gpt_edge.native.graph_view import FLOAT16, FLOAT32, UINT8, GraphView
from gpt_edge.native.onnx_model import Model, Node, node_field, read_model, retype, write_model
from gpt_edge.native.outside import what_is_outside
from gpt_edge.native.row_products import match_row_product

DOMAIN = "gpt_edge"
MAX_HEAD_SIZE = 128  # floats; operators/attend.h
Numbers = dict[str, int | float | str]
# onnxruntime's operators that choose another order of adding for another number of rows
SUMMING = {
    "FusedMatMul",
    "Gemm",
    "GroupQueryAttention",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A model's bytes, how many operators of each kind it has got, and whether all that add numbers
    across a row are among them: then a token's bits depend on no neighbour. outside: how many of
    onnxruntime's operators stay that the library has one for, by name and reason.
    """

    model: bytes
    counts: dict[str, int]
    is_row_exact: bool
    outside: dict[tuple[str, str], int]


def rewrite(data: bytes, threads: int, head_size: int, *, half_cache: bool) -> Rewritten | None:
    """The model with the library's operators; None where it has none that they replace, or cannot
    be read.

    head_size: of its attention, in floats. half_cache: keep keys and values in float16, if every
    layer can.
    """
    try:
        return _Rewriter(read_model(data), threads, head_size, half_cache).run()
    except (ValueError, LookupError, AssertionError, StopIteration, struct.error):
        return None  # not for this module to say what is wrong with the file


class _Rewriter:
    def __init__(self, model: Model, threads: int, head_size: int, half_cache: bool) -> None:
        self.model, self.threads, self.half_cache = model, threads, half_cache
        self.view = GraphView(model)
        self.can_attend = 0 < head_size <= MAX_HEAD_SIZE
        self.gone: set[int] = set()  # id() of nodes that a new one replaces
        self.new: dict[int, Node] = {}  # by the id() of the last of them, whose place it takes
        self.counts: dict[str, int] = {}

    def run(self) -> Rewritten | None:
        rewriters = {
            "MatMulIntegerToFloat": self._row_product,
            "MatMulNBits": self._block_product,
            "MatMul": self._float_product,
            "FastGelu": self._gelu,
            "Gelu": self._gelu,
            "SkipLayerNormalization": self._skip_norm,
            "GroupQueryAttention": self._attention,
        }
        for node, _ in self.model.nodes:
            if node.op in rewriters and id(node) not in self.gone:
                rewriters[node.op](node)
        if not self.new:
            return None
        if self.half_cache:
            self._halve_cache()
        nodes = []
        for node, data in self.model.nodes:
            if id(node) in self.new:
                nodes.append(node_field(self.new[id(node)]))
            elif id(node) not in self.gone:
                nodes.append(data)
        left = [node for node, _ in self.model.nodes if id(node) not in self.gone]
        model = write_model(self.model, nodes, DOMAIN)
        is_row_exact = SUMMING.isdisjoint(node.op for node in left)
        return Rewritten(model, self.counts, is_row_exact, what_is_outside(self.model, left))

    def _replace(
        self, old: list[Node], op: str, inputs: list[str], outputs: list[str], attributes: Numbers
    ) -> None:
        """Put an operator where the last of the old nodes stands, named as the first."""
        self.gone.update(map(id, old))
        attributes = {"threads": self.threads, **attributes}
        self.new[id(old[-1])] = Node(op, inputs, outputs, attributes, DOMAIN, old[0].name)
        self.counts[op] = self.counts.get(op, 0) + 1

    def _row_product(self, product: Node) -> None:
        """An int8 product by rows: one operator replaces all nodes of a `RowProductMatch`."""
        match = match_row_product(self.view, product)
        if match is None:
            return
        attributes: Numbers = {
            "zero_point": match.zero_point,
            "has_bias": int(match.has_bias),
            "activation": match.activation,
            "high": match.high,
            "low": match.low,
        }
        self._replace(match.nodes, "RowProduct", match.inputs, match.nodes[-1].outputs, attributes)

    def _block_product(self, node: Node) -> None:
        """Weights in blocks around the middle of their range, and the activation behind; those with
        zero points of their own stay.
        """
        depth, width, block, bits = (
            int(node.attributes.get(name, 0)) for name in ("K", "N", "block_size", "bits")
        )
        weights = self.model.constants.get(node.inputs[1])
        bias = node.inputs[5] if len(node.inputs) > 5 else ""
        is_known = bits in (4, 8) and block >= 16 and depth % block == 0 and width >= 16
        if not is_known or weights is None or weights.type != UINT8 or any(node.inputs[3:5]):
            return
        if node.attributes.get("accuracy_level") != 4 or block & (block - 1):
            return
        scales = self.model.constants.get(node.inputs[2])
        fits = math.prod(weights.dims) == width * depth * bits // 8
        if (
            not fits
            or scales is None
            or scales.type != FLOAT32
            or math.prod(scales.dims) != width * (depth // block)
        ):
            return
        if bias and not self.view.has_constant(bias, FLOAT32, (width,)):
            return
        last = follower(self.view, node.outputs[0])
        attributes: Numbers = {
            "depth": depth,
            "width": width,
            "block": block,
            "bits": bits,
            "has_bias": int(bool(bias)),
            "activation": NONE if last is None else activation_of(last),
        }
        nodes = [node] if last is None else [node, last]
        inputs = [*node.inputs[:3], *([bias] if bias else [])]
        self._replace(nodes, "BlockProduct", inputs, nodes[-1].outputs, attributes)

    def _float_product(self, node: Node) -> None:
        """A classifier's head: a product with a bias, whose sum is an output of the graph. The
        layers of fp32 models stay.
        """
        dims, add = self._dims(node.inputs[1]), self.view.only_reader(node.outputs[0], "Add")
        if len(dims) != 2 or add is None:
            return
        bias = next((name for name in add.inputs if name != node.outputs[0]), "")
        is_head = add.outputs[0] in self.model.values and self.view.are_private([node, add])
        if is_head and self._dims(bias) == dims[1:]:
            self._replace([node, add], "FloatProduct", [*node.inputs, bias], add.outputs, {})

    def _gelu(self, node: Node) -> None:
        """GELU that follows no product of the library, with the bias of the float product before
        it.
        """
        activation = activation_of(node)
        nodes, inputs = [node], [name for name in node.inputs if name]
        add = self.view.makers.get(inputs[0])
        if len(inputs) == 1 and add is not None and self._adds_bias(add):
            nodes, inputs = [add, node], list(add.inputs)
        is_bias = all(len(self._dims(name)) == 1 for name in inputs[1:])
        if activation == NONE or not is_bias or not self.view.are_private(nodes):
            return
        attributes: Numbers = {"has_bias": len(inputs) - 1, "activation": activation}
        self._replace(nodes, "Gelu", inputs, node.outputs, attributes)

    def _adds_bias(self, add: Node) -> bool:
        """Does a node that stays add a constant to all rows of a float product?"""
        product = self.view.makers.get(add.inputs[0])
        if add.op != "Add" or id(add) in self.gone or product is None or product.op != "MatMul":
            return False
        is_private = self.view.only_reader(add.outputs[0], "FastGelu", "Gelu") is not None
        dims = self._dims(product.inputs[1])
        return is_private and len(dims) == 2 and self._dims(add.inputs[1]) == dims[1:]

    def _dims(self, name: str) -> tuple[int, ...]:
        """The shape of a float32 constant, () for anything else."""
        found = self.model.constants.get(name)
        return found.dims if found is not None and found.type == FLOAT32 else ()

    def _skip_norm(self, node: Node) -> None:
        """A sum and its norm. Both results are made; one that nobody reads gets a name of
        its own.
        """
        parts = [self.model.constants.get(name) for name in node.inputs[2:] if name]
        widths = {part.dims if part is not None and part.type == FLOAT32 else () for part in parts}
        is_wide = len(widths) == 1 and all(len(dims) == 1 for dims in widths)
        has_shift = len(node.inputs) > 3 and bool(node.inputs[3])
        if not is_wide or not has_shift or any(node.outputs[1:3]):
            return
        has_bias = len(node.inputs) > 4 and bool(node.inputs[4])
        total = (
            node.outputs[3]
            if len(node.outputs) > 3 and node.outputs[3]
            else f"{node.outputs[0]}/sum"
        )
        epsilon = float(node.attributes.get("epsilon", 1e-12))
        attributes: Numbers = {"has_bias": int(has_bias), "epsilon": epsilon}
        inputs = node.inputs[: 5 if has_bias else 4]
        self._replace([node], "SkipNorm", inputs, [node.outputs[0], total], attributes)

    def _attention(self, node: Node) -> None:
        """Attention to all heads' own keys and values, which come beside the queries; rotary
        positions and caps stay.
        """
        given = [bool(name) for name in node.inputs]
        heads, scale = node.attributes.get("num_heads"), node.attributes.get("scale")
        window = node.attributes.get("local_window_size", -1)
        known = {"num_heads", "kv_num_heads", "scale", "local_window_size"}
        is_plain = heads == node.attributes.get("kv_num_heads") and set(node.attributes) <= known
        if not (self.can_attend and is_plain and heads and scale):
            return
        has_past = given == [True, False, False, True, True, True, True]
        if not has_past and (
            given != [True, False, False, False, False, True, True]
            or self.view.is_read(node.outputs[1:])
        ):
            return
        attributes: Numbers = {"heads": int(heads), "window": int(window), "scale": float(scale)}
        op, outputs = (
            ("CachedAttention", node.outputs) if has_past else ("PlainAttention", node.outputs[:1])
        )
        inputs = [name for name in node.inputs if name]
        self._replace([node], op, inputs, outputs, attributes)

    def _halve_cache(self) -> None:
        """Keys and values in float16: half of what a new token reads of them. All layers or none: a
        cache has one type.
        """
        layers = [node for node in self.new.values() if node.op == "CachedAttention"]
        if len(layers) < sum(node.op == "GroupQueryAttention" for node, _ in self.model.nodes):
            return
        for node in layers:
            node.op = "CachedAttention16"
            for name in (*node.inputs[1:3], *node.outputs[1:3]):
                retype(self.model, name, FLOAT16)
        if layers:
            self.counts["CachedAttention16"] = self.counts.pop("CachedAttention")
