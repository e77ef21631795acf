"""Which nodes make and read the values of a parsed graph, to look for patterns of nodes."""

from __future__ import annotations

import struct

from gpt_edge.native.onnx_model import Constant, Model, Node

FLOAT32, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10  # onnx.TensorProto.DataType


class GraphView:
    """A model's nodes by the names of their outputs (`makers`) and inputs (`readers`)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.makers = {name: node for node, _ in model.nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node, _ in model.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def is_read(self, names: list[str]) -> bool:
        """Does another node, or who runs the graph, want one of these?"""
        return any(name in self.readers or name in self.model.values for name in names)

    def has_constant(self, name: str, kind: int, dims: tuple[int, ...]) -> bool:
        """Is there a constant of this type and shape?"""
        found = self.model.constants.get(name)
        return found is not None and found.type == kind and found.dims == dims

    def single(self, name: str, kind: int) -> Constant | None:
        """A constant of one value that lies in the file itself."""
        found = self.model.constants.get(name)
        if found is None or found.type != kind or found.dims not in ((), (1,)) or not found.raw:
            return None
        return found

    def single_float(self, name: str) -> float | None:
        """The value of a float32 constant of one value, None for another."""
        found = self.single(name, FLOAT32)
        if found is None:
            return None
        value: float = struct.unpack("<f", found.raw)[0]
        return value

    def only_reader(self, name: str, *ops: str) -> Node | None:
        """The node that alone reads a value, if it is one of these operators."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op in ops else None

    def are_private(self, nodes: list[Node]) -> bool:
        """Does nobody else read what all but the last of them make?"""
        ids = set(map(id, nodes))
        inner = [name for node in nodes[:-1] for name in node.outputs]
        is_output = any(name in self.model.values for name in inner)
        return not is_output and all(
            id(reader) in ids for name in inner for reader in self.readers[name]
        )
