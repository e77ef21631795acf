"""A bundle's graph arranged for onnxruntime-web: weights by block are unpacked while a session
starts, instead of at every call.

MatMulNBits has no kernel of its own in wasm: each call unpacks every weight to float32 and
multiplies then, 12 ms a token where 3 are enough for the built-in model. Here the same steps are
nodes of their own on constants, which onnxruntime computes once, and a float32 product reads the
result. The file of weights stays as it is, byte for byte; memory grows to 4 bytes a weight.

Integer products by row are quick in wasm, but round activations in another way than other
processors do: tokens differ at near ties. In a small model they become float32 products too, whose
tokens are those of Python; in a larger one they stay, for its memory.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from gpt_edge.native.graph_view import INT64, UINT8, GraphView
from gpt_edge.native.onnx_model import (
    Constant,
    Model,
    Node,
    constant_field,
    node_field,
    read_model,
    write_model,
)
from gpt_edge.native.row_products import match_row_product

MICROSOFT = "com.microsoft"
# parameters; their float32 would come near the 4 GB that wasm can hold
LARGEST_UNPACKED = 400_000_000
LARGEST_WITHOUT_INTEGERS = 50_000_000
PREFIX = "web."  # of the names of new values


def arrange(data: bytes, n_parameters: int) -> bytes:
    """Return the graph with every MatMulNBits unpacked, and the integer products of a small model;
    the same bytes where there is nothing to do. n_parameters: of the model.

    Raises ValueError for what is no ONNX model.
    """
    if n_parameters > LARGEST_UNPACKED:
        return data
    model = read_model(data)
    arrangement = _Arrangement(model, GraphView(model))
    for node, _ in model.nodes:
        if node.op == "MatMulNBits":
            arrangement.unpack_blocks(node)
        elif node.op == "MatMulIntegerToFloat" and n_parameters <= LARGEST_WITHOUT_INTEGERS:
            arrangement.unpack_rows(node)
    if not arrangement.new:
        return data
    nodes = []
    for node, whole in model.nodes:
        nodes += [node_field(one) for one in arrangement.new.get(id(node), ())]
        if id(node) not in arrangement.gone:
            nodes.append(whole)
    model.graph_rest += [
        constant_field(name, constant) for name, constant in arrangement.constants.items()
    ]
    return write_model(model, nodes, None)


@dataclass(slots=True)
class _Arrangement:
    """new: the nodes that come before one, by its id(); gone: id() of nodes that they replace.
    unpacked: by the name of a packed weight, the name of its floats [N, K].
    """

    model: Model
    view: GraphView
    new: dict[int, list[Node]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    unpacked: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)

    def unpack_rows(self, product: Node) -> None:
        """An integer product by rows, with all that quantizes and rescales its rows: a product of
        the rows as they are and float weights [K, N].
        """
        match = match_row_product(self.view, product)
        rescale = self.view.only_reader(product.outputs[0], "Mul")
        if match is None or rescale is None:
            return
        x, weight, scales = match.inputs[:3]
        name = PREFIX + weight
        width = math.prod(self.model.constants[scales].dims)  # [N], whatever ones are around it
        nodes = [
            Node("Reshape", [scales, self._shape(width)], [f"{name}.scales"], {}),
            Node("DequantizeLinear", [weight, f"{name}.scales"], [name], {"axis": 1}),
            # MatMul would be fused with DequantizeLinear to a product that rounds activations
            Node("FusedMatMul", [x, name], rescale.outputs, {}, MICROSOFT, product.name),
        ]
        replaced = match.nodes[: match.nodes.index(rescale) + 1]
        self.gone.update(map(id, replaced))
        self.new[id(rescale)] = nodes

    def unpack_blocks(self, node: Node) -> None:
        """A MatMulNBits whose weight is a constant."""
        if node.inputs[1] in self.model.constants:
            self.gone.add(id(node))
            self.new[id(node)] = self._block_product(node)

    def _block_product(self, node: Node) -> list[Node]:
        """Its weight unpacked, where no other product has done so, a float product, and a bias."""
        weight = node.inputs[1]
        nodes = [] if weight in self.unpacked else self._unpack(node)
        result = node.outputs[0]
        bias = node.inputs[5] if len(node.inputs) > 5 else ""
        target = f"{PREFIX}{result}" if bias else result
        factors = [node.inputs[0], self.unpacked[weight]]
        nodes.append(Node("FusedMatMul", factors, [target], {"transB": 1}, MICROSOFT, node.name))
        if bias:
            nodes.append(Node("Add", [target, bias], [result], {}))
        return nodes

    def _unpack(self, node: Node) -> list[Node]:
        """The weight [N, K] as floats: (level - zero point) * scale, without what fills the last
        block.
        """
        weight, scales = node.inputs[1:3]
        depth, width, block, bits = (
            int(node.attributes[name]) for name in ("K", "N", "block_size", "bits")
        )
        n_blocks = -(-depth // block)
        name = PREFIX + weight
        nodes, levels = self._levels(name, weight, bits, (width, n_blocks * block))
        zeros = node.inputs[3] if len(node.inputs) > 3 else ""
        more, zero = self._zero_points(name, zeros, bits, width, n_blocks)
        by_block = self._shape(width, n_blocks)
        nodes += [
            *more,
            Node("Reshape", [scales, by_block], [f"{name}.scales"], {}),
            Node(
                "DequantizeLinear",
                [levels, f"{name}.scales", zero],
                [name],
                {"axis": 1, "block_size": block},
            ),
        ]
        self.unpacked[weight] = name
        if n_blocks * block != depth:
            bounds = [self._shape(0), self._shape(depth), self._shape(1)]
            nodes.append(Node("Slice", [name, *bounds], [f"{name}.cut"], {}))
            self.unpacked[weight] = f"{name}.cut"
        return nodes

    def _levels(
        self, name: str, packed: str, bits: int, shape: tuple[int, ...]
    ) -> tuple[list[Node], str]:
        """Levels uint8 of a shape: as they are, or two of each byte, the low one first."""
        if bits == 8:
            shaped = Node("Reshape", [packed, self._shape(*shape)], [f"{name}.levels"], {})
            return [shaped], f"{name}.levels"
        low, high = f"{name}.low", f"{name}.high"
        pair = self._shape(-1, 1)
        nodes = [
            Node("Reshape", [packed, pair], [f"{name}.bytes"], {}),
            Node("BitwiseAnd", [f"{name}.bytes", self._byte(15)], [low], {}),
            Node("BitShift", [f"{name}.bytes", self._byte(4)], [high], {"direction": "RIGHT"}),
            Node("Concat", [low, high], [f"{name}.pairs"], {"axis": 1}),
            Node("Reshape", [f"{name}.pairs", self._shape(*shape)], [f"{name}.levels"], {}),
        ]
        return nodes, f"{name}.levels"

    def _zero_points(
        self, name: str, zeros: str, bits: int, width: int, n_blocks: int
    ) -> tuple[list[Node], str]:
        """Zero points uint8 [N, blocks]: those of the node, or the middle of the levels for all."""
        zero = f"{name}.zero"
        if not zeros:
            middle = self._byte(1 << (bits - 1))
            return [Node("Expand", [middle, self._shape(width, n_blocks)], [zero], {})], zero
        stored = n_blocks if bits == 8 else n_blocks + n_blocks % 2  # whole bytes a row
        nodes, levels = self._levels(zero, zeros, bits, (width, stored))
        if stored != n_blocks:
            bounds = [self._shape(0), self._shape(n_blocks), self._shape(1)]
            nodes.append(Node("Slice", [levels, *bounds], [f"{zero}.cut"], {}))
            levels = f"{zero}.cut"
        return nodes, levels

    def _shape(self, *numbers: int) -> str:
        """A constant int64 [n]: a shape, or one of the numbers of a Slice."""
        name = "numbers_" + "_".join(map(str, numbers))
        return self._constant(
            name, (len(numbers),), INT64, struct.pack(f"<{len(numbers)}q", *numbers)
        )

    def _byte(self, value: int) -> str:
        return self._constant(f"byte_{value}", (), UINT8, bytes([value]))

    def _constant(self, name: str, dims: tuple[int, ...], kind: int, raw: bytes) -> str:
        self.constants[PREFIX + name] = Constant(dims, kind, raw)
        return PREFIX + name
