"""A bundle's graph arranged for onnxruntime-web: weights by block are unpacked while a session
starts, instead of at every call.

MatMulNBits has no kernel of its own in wasm: each call unpacks every weight to float32 and
multiplies then, 12 ms a token where 3 are enough for the built-in model. Here the same steps are
nodes of their own on constants, which onnxruntime computes once, and a float32 product reads the
result. The file of weights stays as it is, byte for byte; memory grows to 4 bytes a weight.
Integer products by row stay, as they are quick in wasm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gpt_edge.native.graph_view import FLOAT32, INT64, UINT8
from gpt_edge.native.onnx_model import (
    Constant,
    Model,
    Node,
    constant_field,
    node_field,
    read_model,
    write_model,
)

MICROSOFT = "com.microsoft"
# parameters; their float32 would come near the 4 GB that wasm can hold
LARGEST_UNPACKED = 400_000_000
PREFIX = "web."  # of the names of new values


def arrange(data: bytes) -> bytes:
    """Return the graph with every MatMulNBits unpacked; the same bytes where there is none.

    Raises ValueError for what is no ONNX model.
    """
    model = read_model(data)
    arrangement = _Arrangement(model)
    nodes = []
    for node, whole in model.nodes:
        new = arrangement.product(node) if node.op == "MatMulNBits" else None
        nodes += [whole] if new is None else [node_field(one) for one in new]
    if not arrangement.unpacked:
        return data
    model.graph_rest += [
        constant_field(name, constant) for name, constant in arrangement.constants.items()
    ]
    return write_model(model, nodes, None)


@dataclass(slots=True)
class _Arrangement:
    """unpacked: by the name of a packed weight, the name of its floats [N, K]."""

    model: Model
    unpacked: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)

    def product(self, node: Node) -> list[Node] | None:
        """The nodes that replace a MatMulNBits; None where its weight is no constant."""
        weight = node.inputs[1]
        if weight not in self.model.constants:
            return None
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
        nodes, levels = self._levels(name, weight, bits, (width, n_blocks, block))
        zeros = node.inputs[3] if len(node.inputs) > 3 else ""
        more, zero = self._zero_points(name, zeros, bits, width, n_blocks)
        nodes += [
            *more,
            Node("Cast", [levels], [f"{name}.floats"], {"to": FLOAT32}),
            Node("Sub", [f"{name}.floats", zero], [f"{name}.centred"], {}),
            Node(
                "Reshape", [scales, self._shape(width, n_blocks, 1)], [f"{name}.block_scales"], {}
            ),
            Node("Mul", [f"{name}.centred", f"{name}.block_scales"], [f"{name}.blocks"], {}),
            Node("Reshape", [f"{name}.blocks", self._shape(width, n_blocks * block)], [name], {}),
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
            return [Node("Reshape", [packed, self._shape(*shape)], [f"{name}.levels"], {})], (
                f"{name}.levels"
            )
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
        """Zero points float32 [N, blocks, 1], or the middle of the levels for all."""
        if not zeros:
            middle = float(1 << (bits - 1))
            return [], self._constant(f"middle_{bits}", (), FLOAT32, struct.pack("<f", middle))
        stored = n_blocks if bits == 8 else n_blocks + n_blocks % 2  # whole bytes a row
        nodes, levels = self._levels(f"{name}.zero", zeros, bits, (width, stored, 1))
        if stored != n_blocks:
            bounds = [self._shape(0), self._shape(n_blocks), self._shape(1)]
            nodes.append(Node("Slice", [levels, *bounds], [f"{name}.zero.cut"], {}))
            levels = f"{name}.zero.cut"
        nodes.append(Node("Cast", [levels], [f"{name}.zero.floats"], {"to": FLOAT32}))
        return nodes, f"{name}.zero.floats"

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
