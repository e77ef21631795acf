"""The gate for folders that Optimum, transformers.js and their like exported: wider, as their
graphs differ from version to version, and as strict about files.

Operators are those that their exports of GPT-2 and GPT-Neo have, before and after onnxruntime's own
optimizer. Shapes are not followed, so such a graph may still ask for more memory than there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gpt_edge import onnx_contract
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate import proto
from gpt_edge.bundle.gate.limits import (
    MAX_FOREIGN_DEPTH,
    MAX_FOREIGN_NODES,
    MAX_FOREIGN_PARTS,
    GateError,
    shown,
)
from gpt_edge.bundle.gate.records import Declared, Dims, Tensor, signed, text
from gpt_edge.bundle.gate.shaping import tensor_value
from gpt_edge.bundle.gate.stored import TENSOR_FIELDS, read_tensor
from gpt_edge.bundle.gate.tensors import check_length, check_tensors
from gpt_edge.bundle.onnx_wire import split

MORE_MODEL = {34, 40, 50}  # domain, version, a note
MORE_GRAPH = {82, 114, 130}  # a note, quantization parameters, notes by name
MORE_NODE = {50, 74}
MORE_ATTRIBUTE = {proto.A_GRAPH, 58, 61, 74, 106}  # a graph, floats, texts, a note
MORE_TENSOR = {37, 40, 56, 82, 90, 98, 130}  # numbers one by one, doubles, a note
STANDARD = """
    Abs Add And ArgMax Attention Cast CastLike Clip Concat Constant ConstantOfShape Cos CumSum
    DequantizeLinear Div DynamicQuantizeLinear Equal Erf Exp Expand Flatten Gather GatherElements
    GatherND Gelu Gemm Greater GreaterOrEqual Identity If IsInf IsNaN LayerNormalization Less
    LessOrEqual MatMul MatMulInteger Max Min Mod Mul Neg Not Or Pow QuantizeLinear Range Reciprocal
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape ScatterND Shape Sigmoid Sin
    Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose Trilu Unsqueeze Where Xor
"""
OF_MICROSOFT = """
    Attention BiasGelu DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedMatMul
    GatherBlockQuantized Gelu GroupQueryAttention MatMulIntegerToFloat MatMulNBits
    MultiHeadAttention QAttention QEmbedLayerNormalization QuickGelu SkipLayerNormalization
"""
DOMAINS = {
    "": frozenset(STANDARD.split()),
    "ai.onnx": frozenset(STANDARD.split()),
    "com.microsoft": frozenset(OF_MICROSOFT.split()),
}
# asked for by files of Optimum's, which use none of their operators
EMPTY_DOMAINS = {
    "ai.onnx.ml",
    "ai.onnx.training",
    "ai.onnx.preview.training",
    "com.ms.internal.nhwc",
}
EMPTY_DOMAINS |= {"com.microsoft.experimental", "com.microsoft.nchwc", "org.pytorch.aten"}
SMALL_ATTRIBUTES = {"axis": 8, "batch_dims": 4, "exclusive": 1, "reverse": 1, "start": 8}
MAX_ATTRIBUTE = 1 << 31
ALL_INPUTS = {"Concat", "LayerNormalization", "Max", "Min"}  # onnxruntime reads each of theirs
MAX_RESULT = 1 << 28  # elements that a shape stored in the file may make


def check_foreign(data: memoryview, bundle: Bundle, sizes: Mapping[str, int]) -> None:
    """Check a graph of another tool. sizes: of the files beside it that may hold its weights.
    Raises GateError, or ValueError for what is no ONNX file.
    """
    found = _Foreign()
    has_graph = False
    for key, value in split(data, proto.MODEL_FIELDS | MORE_MODEL):
        if key == proto.GRAPH:
            if has_graph:
                raise GateError("it has two graphs")
            has_graph = True
            found.graph(value, 0)
        elif key == proto.OPSET:
            found.opset(bytes(value))
    if not has_graph:
        raise GateError("it has no graph")
    found.check_names()
    check_tensors(found.tensors, sizes, sizes)
    _check_signature(found, bundle)


class _Foreign:
    """The parts of a graph and of the branches in it, counted together."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.inputs: dict[str, Declared] = {}
        self.outputs: dict[str, Declared] = {}
        self._n_nodes = 0
        self._reader = proto.Reader()

    def check_names(self) -> None:
        """Those of the inputs and the outputs; others are checked when they are read."""
        self._reader.names.check()

    def opset(self, data: bytes) -> None:
        """An operator set that it asks for."""
        parts = dict(split(data, {proto.FIRST, proto.SECOND_NUMBER}))
        domain, version = text(parts.get(proto.FIRST, b"")), parts.get(proto.SECOND_NUMBER)
        if domain not in DOMAINS and domain not in EMPTY_DOMAINS:
            raise GateError(f"it asks for the operators {shown(domain)}")
        if not isinstance(version, int) or not 1 <= version <= 25:
            raise GateError(f"it asks for the operators {shown(domain)} of version {version!r}")

    def graph(self, data: memoryview, depth: int) -> None:
        """A graph, or the branch of an If."""
        if depth > MAX_FOREIGN_DEPTH:
            raise GateError(f"its branches are nested {depth} deep")
        stored: dict[str, Tensor] = {}
        nodes = []
        for key, value in split(data, proto.GRAPH_FIELDS | MORE_GRAPH, MAX_FOREIGN_PARTS):
            if key == proto.NODE:
                nodes.append(value)
            elif key == proto.INITIALIZER:
                tensor = read_tensor(value, TENSOR_FIELDS | MORE_TENSOR)
                if tensor.name in stored:
                    raise GateError(f"the tensor {shown(tensor.name)} comes twice")
                stored[tensor.name] = tensor
            elif depth == 0 and key in (proto.INPUT, proto.OUTPUT):
                name, declared = self._reader.declared(bytes(value))
                (self.inputs if key == proto.INPUT else self.outputs)[name] = declared
        self._count(stored, len(nodes))
        for node in nodes:
            self._node(node, stored, depth)

    def _count(self, stored: Mapping[str, Tensor], n_nodes: int) -> None:
        """Add a graph's tensors, of which a branch may have some of the graph around it."""
        known = {tensor.name for tensor in self.tensors}
        self.tensors += [tensor for name, tensor in stored.items() if name not in known]
        for tensor in stored.values():
            check_length(tensor)
        self._n_nodes += n_nodes
        if max(self._n_nodes, len(self.tensors)) > MAX_FOREIGN_NODES:
            raise GateError(f"it has more than {MAX_FOREIGN_NODES} nodes or tensors")

    def _node(self, data: memoryview, stored: Mapping[str, Tensor], depth: int) -> None:
        texts: dict[int, str] = {}
        inputs: list[str] = []
        attributes = []
        for key, value in split(data, proto.NODE_FIELDS | MORE_NODE):
            if key == proto.ATTRIBUTE:
                attributes.append(value)
            elif key == proto.NODE_INPUT:
                inputs.append(text(value))
            elif key not in MORE_NODE:
                texts[key] = text(value)
        op, domain = texts.get(proto.NODE_OP, ""), texts.get(proto.NODE_DOMAIN, "")
        if op not in DOMAINS.get(domain, ()):
            raise GateError(f"it has the operator {shown(op)} of {shown(domain)}")
        if op in ALL_INPUTS and not all(inputs):
            raise GateError(f"an input of {op} is empty")
        for attribute in attributes:
            self._attribute(attribute, op, depth)
        if op in ("Expand", "ConstantOfShape", "Tile") and inputs and inputs[-1] in stored:
            _check_result(tensor_value(stored[inputs[-1]]).content)

    def _attribute(self, data: memoryview, op: str, depth: int) -> None:
        parts = split(data, proto.ATTRIBUTE_FIELDS | MORE_ATTRIBUTE, MAX_FOREIGN_PARTS)
        name = text(dict(parts).get(proto.A_NAME, b""))
        limit = SMALL_ATTRIBUTES.get(name, MAX_ATTRIBUTE)
        for key, value in parts:
            if key == proto.A_GRAPH:
                if op != "If":
                    raise GateError(f"{op} has a graph in it")
                self.graph(value, depth + 1)
            elif key == proto.A_TENSOR:
                self._stored(read_tensor(value, TENSOR_FIELDS | MORE_TENSOR))
            elif key == proto.A_INT:
                number = signed(value)
                if name != "end" and not -limit <= number <= limit:
                    raise GateError(f"{op} has the {shown(name)} {number}")

    def _stored(self, tensor: Tensor) -> None:
        """A tensor in an attribute lies in the graph itself."""
        if tensor.data is None:
            raise GateError("a tensor in an attribute lies in another file")
        check_length(tensor)


def _check_result(content: Dims | None) -> None:
    if content is not None and math.prod(content) > MAX_RESULT:
        raise GateError(f"it makes {list(content)}")


def _check_signature(found: _Foreign, bundle: Bundle) -> None:
    """The graph has the config's layers, heads and vocabulary, as far as it declares them."""
    config = bundle.config
    keys = sum(name.startswith("past_key_values.") for name in found.inputs) // 2
    n_layer = config.n_layer if config.n_label is None and keys else keys
    if keys != n_layer:
        raise GateError(f"it has {keys} layers, the config has {config.n_layer}")
    cache = (config.n_head, config.head_size)
    for name, declared in found.inputs.items():
        dims = declared.dims
        if not name.startswith("past_key_values.") or dims is None:
            continue
        if len(dims) != 4 or any(d not in (-1, w) for d, w in zip(dims[1::2], cache, strict=True)):
            raise GateError(f"{shown(name)} has the shape {list(dims)}, the heads differ")
    logits = found.outputs.get(onnx_contract.LOGITS)
    wanted = config.n_label or config.vocab_size
    if logits is not None and logits.dims and logits.dims[-1] not in (-1, wanted):
        raise GateError(f"its logits have {logits.dims[-1]} columns, the config has {wanted}")
