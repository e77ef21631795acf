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

from gpt_edge.native.onnx_model import (
    Constant,
    Model,
    Node,
    node_field,
    read_model,
    retype,
    write_model,
)

DOMAIN = "gpt_edge"
LAST_AXIS = b"\xff" * 8  # -1
FLOAT32, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10  # onnx.TensorProto.DataType
MAX_HEAD_SIZE = 128  # floats; operators/attend.h
# onnxruntime's operators that choose another order of adding for another number of rows
SUMMING = {
    "Gemm",
    "GroupQueryAttention",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
}
MIN_DEPTH, MIN_WIDTH = 16, 64  # of a RowProduct's weights; operators/row_product.h


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A model's bytes, how many operators of each kind it has got, and whether all that add numbers
    across a row are among them: then a token's bits depend on no neighbour.
    """

    model: bytes
    counts: dict[str, int]
    is_row_exact: bool


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


@dataclass(frozen=True, slots=True)
class _RowProductMatch:
    """The nodes that one RowProduct replaces: what finds a row's scale, QuantizeLinear, the integer
    product, the Mul that rescales it, and maybe what adds a bias (and applies GELU).

    inputs: the operator's. high, low: fractions of a row's largest and smallest value, see
    `_row_scale`.
    """

    nodes: list[Node]
    inputs: list[str]
    bias: str  # "" for none
    is_gelu: bool
    zero_point: int
    high: float
    low: float


class _Rewriter:
    def __init__(self, model: Model, threads: int, head_size: int, half_cache: bool) -> None:
        self.model, self.threads, self.half_cache = model, threads, half_cache
        self.can_attend = 0 < head_size <= MAX_HEAD_SIZE
        self.makers = {name: node for node, _ in model.nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node, _ in model.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.gone: set[int] = set()  # id() of nodes that a new one replaces
        self.new: dict[int, Node] = {}  # by the id() of the last of them, whose place it takes
        self.counts: dict[str, int] = {}

    def run(self) -> Rewritten | None:
        rewriters = {
            "MatMulIntegerToFloat": self._row_product,
            "MatMulNBits": self._block_product,
            "SkipLayerNormalization": self._skip_norm,
            "GroupQueryAttention": self._attention,
        }
        for node, _ in self.model.nodes:
            if node.op in rewriters:
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
        left = {node.op for node, _ in self.model.nodes if id(node) not in self.gone}
        model = write_model(self.model, nodes, DOMAIN)
        return Rewritten(model, self.counts, left.isdisjoint(SUMMING))

    def _replace(self, old: list[Node], new: Node) -> None:
        self.gone.update(map(id, old))
        self.new[id(old[-1])] = new
        self.counts[new.op] = self.counts.get(new.op, 0) + 1

    def _row_product(self, product: Node) -> None:
        """An int8 product by rows: one operator replaces all nodes of a `_RowProductMatch`."""
        match = self._match_row_product(product)
        if match is None or not self._are_private(match.nodes):
            return
        attributes: dict[str, int | float] = {
            "threads": self.threads,
            "zero_point": match.zero_point,
            "has_bias": int(bool(match.bias)),
            "is_gelu": int(match.is_gelu),
            "high": match.high,
            "low": match.low,
        }
        new = Node(
            "RowProduct", match.inputs, match.nodes[-1].outputs, attributes, DOMAIN, product.name
        )
        self._replace(match.nodes, new)

    def _match_row_product(self, product: Node) -> _RowProductMatch | None:
        """The nodes around an integer product whose rows are quantized as RowProduct does it."""
        quantize = self._match_quantize_rows(product)
        if quantize is None:
            return None
        _, weights, _, scales, zero = product.inputs
        x, row_scale, _ = quantize.inputs
        range_match = self._row_scale(row_scale, x)
        rescale = self._only_reader(product.outputs[0], "Mul")
        zero_point = self._constant(zero, UINT8)
        if range_match is None or rescale is None or zero_point is None:
            return None
        if set(rescale.inputs) != {product.outputs[0], row_scale}:
            return None
        range_nodes, high, low = range_match
        nodes = [*range_nodes, quantize, product, rescale]
        inputs = [x, weights, scales]
        bias_node, bias = self._match_bias(rescale, scales)
        if bias_node is not None:
            nodes.append(bias_node)
            inputs.append(bias)
        is_gelu = bias_node is not None and bias_node.op == "FastGelu"
        return _RowProductMatch(nodes, inputs, bias, is_gelu, zero_point.raw[0], high, low)

    def _match_quantize_rows(self, product: Node) -> Node | None:
        """The QuantizeLinear before a product, if it quantizes each whole row with one scale and
        the product's zero point.
        """
        if len(product.inputs) != 5:
            return None
        quantized, weights, one, scales, zero = product.inputs
        quantize = self.makers.get(quantized)
        if quantize is None or quantize.op != "QuantizeLinear":
            return None
        if not self._is_made_for(weights, scales, one):
            return None
        _, _, zeros = quantize.inputs
        depth = self.model.constants[weights].dims[0]
        expand = self.makers.get(zeros)
        has_row_blocks = quantize.attributes.get("block_size") == depth
        if quantize.attributes.get("axis") != -1 or not has_row_blocks:
            return None
        if expand is None or expand.op != "Expand" or expand.inputs[0] != zero:
            return None
        return quantize

    def _match_bias(self, rescale: Node, scales: str) -> tuple[Node | None, str]:
        """The node that alone reads a rescaled product and adds a constant bias, and the bias."""
        output = rescale.outputs[0]
        node = self._only_reader(output, "Add") or self._only_reader(output, "FastGelu")
        if node is None or len(node.inputs) != 2:
            return None, ""
        bias = next(name for name in node.inputs if name != output)
        constant = self.model.constants.get(bias)
        if constant is None or constant.dims != self.model.constants[scales].dims:
            return None, ""
        return node, bias

    def _block_product(self, node: Node) -> None:
        """Weights in blocks around the middle of their range; those with zero points of their own
        stay.
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
        if bias and (
            bias not in self.model.constants or self.model.constants[bias].dims != (width,)
        ):
            return
        attributes: dict[str, int | float] = {
            "threads": self.threads,
            "depth": depth,
            "width": width,
            "block": block,
            "bits": bits,
            "has_bias": int(bool(bias)),
        }
        inputs = [*node.inputs[:3], *([bias] if bias else [])]
        self._replace(
            [node], Node("BlockProduct", inputs, node.outputs, attributes, DOMAIN, node.name)
        )

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
        attributes: dict[str, int | float] = {
            "threads": self.threads,
            "has_bias": int(has_bias),
            "epsilon": epsilon,
        }
        inputs = node.inputs[: 5 if has_bias else 4]
        self._replace(
            [node],
            Node("SkipNorm", inputs, [node.outputs[0], total], attributes, DOMAIN, node.name),
        )

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
            given != [True, False, False, False, False, True, True] or self._reads(node.outputs[1:])
        ):
            return
        attributes: dict[str, int | float] = {
            "threads": self.threads,
            "heads": int(heads),
            "window": int(window),
            "scale": float(scale),
        }
        op, outputs = (
            ("CachedAttention", node.outputs) if has_past else ("PlainAttention", node.outputs[:1])
        )
        inputs = [name for name in node.inputs if name]
        self._replace([node], Node(op, inputs, outputs, attributes, DOMAIN, node.name))

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

    def _reads(self, names: list[str]) -> bool:
        """Does another node, or who runs the graph, want one of these?"""
        return any(name in self.readers or name in self.model.values for name in names)

    def _is_made_for(self, weights: str, scales: str, one: str) -> bool:
        w, s = self.model.constants.get(weights), self.model.constants.get(scales)
        unit = self._constant(one, FLOAT32)
        return (
            w is not None
            and s is not None
            and unit is not None
            and struct.unpack("<f", unit.raw) == (1.0,)
            and w.type == INT8
            and len(w.dims) == 2
            and w.dims[0] >= MIN_DEPTH
            and w.dims[1] >= MIN_WIDTH
            and s.dims == w.dims[1:]
        )

    def _row_scale(self, name: str, x: str) -> tuple[list[Node], float, float] | None:
        """The nodes that find a row's scale, and its shares of the largest value and of the
        smallest (0: of |x|).
        """
        maker = self.makers.get(name)
        if maker is None:
            return None
        if maker.op == "Mul":
            found = self._share(maker, "ReduceMax")
            if found is None:
                return None
            nodes, source, high = found
            absolute = self.makers.get(source)
            if absolute is None or absolute.op != "Abs" or absolute.inputs != [x]:
                return None
            return [absolute, *nodes], high, 0.0
        if maker.op != "Max" or len(maker.inputs) != 2:
            return None
        top = self._share(self.makers.get(maker.inputs[0]), "ReduceMax")
        bottom = self._share(self.makers.get(maker.inputs[1]), "ReduceMin")
        if top is None or bottom is None or top[1] != x or bottom[1] != x:
            return None
        return [*top[0], *bottom[0], maker], top[2], bottom[2]

    def _share(self, mul: Node | None, op: str) -> tuple[list[Node], str, float] | None:
        """A share of a reduction over the last axis: its nodes, what is reduced, and the share."""
        if mul is None or mul.op != "Mul" or len(mul.inputs) != 2:
            return None
        reduction, share = self.makers.get(mul.inputs[0]), self._constant(mul.inputs[1], FLOAT32)
        if reduction is None or reduction.op != op or share is None or len(reduction.inputs) != 2:
            return None
        axes = self._constant(reduction.inputs[1], INT64)
        if axes is None or axes.raw != LAST_AXIS:
            return None
        return [reduction, mul], reduction.inputs[0], struct.unpack("<f", share.raw)[0]

    def _constant(self, name: str, kind: int) -> Constant | None:
        """A constant of one value that lies in the file itself."""
        found = self.model.constants.get(name)
        return (
            found
            if found and found.type == kind and found.dims in ((), (1,)) and found.raw
            else None
        )

    def _only_reader(self, name: str, op: str) -> Node | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op == op else None

    def _are_private(self, nodes: list[Node]) -> bool:
        """Does nobody else read what all but the last of them make?"""
        ids = set(map(id, nodes))
        inner = [name for node in nodes[:-1] for name in node.outputs]
        is_output = any(name in self.model.values for name in inner)
        return not is_output and all(
            id(reader) in ids for name in inner for reader in self.readers[name]
        )
