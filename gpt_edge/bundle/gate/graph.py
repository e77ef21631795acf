"""A graph of gpt-edge's exports, walked from its inputs to its outputs: every operator is allowed,
every shape follows from the config, and what comes out is what the contract says.

The sizes that only a call knows (sequences, tokens, the past) are stood in for by numbers that
nobody can foresee. Sizes only ever add, so a graph that is right for them is right for all.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

from gpt_edge import onnx_contract
from gpt_edge.bundle.gate.limits import FLOAT32, INT32, INT64, GateError, shown
from gpt_edge.bundle.gate.operators import MICROSOFT, find_rule
from gpt_edge.bundle.gate.records import Declared, Graph, Node
from gpt_edge.bundle.gate.shaping import tensor_value
from gpt_edge.bundle.gate.values import IDS, POSITIONS, Inputs, Place, Value
from gpt_edge.config import GPTConfig
from gpt_edge.onnx_contract import TensorSpec
from gpt_edge.tasks import EVERY_TOKEN

TYPES = {"float32": FLOAT32, "int64": INT64, "int32": INT32}
ORIGINS = {onnx_contract.INPUT_IDS: IDS, onnx_contract.POSITION_IDS: POSITIONS}
ATTENTION = {"edge": "GroupQueryAttention", "portable": "Attention"}
# what an older graph may lack
OPTIONAL = {
    "edge": {onnx_contract.HIDDEN_STATES},
    "portable": {
        onnx_contract.HIDDEN_STATES,
        onnx_contract.POSITION_IDS,
        onnx_contract.ATTENTION_MASK,
    },
}


def check_graph(graph: Graph, config: GPTConfig, kind: str, task: str | None) -> set[str]:
    """Check a graph of that kind ("edge" or "portable"); returns the names of its scales.

    task: the kind of a classifier's task. Raises GateError.
    """
    if config.n_layer > len(graph.nodes):  # before anything loops over the layers
        raise GateError(f"it has {len(graph.nodes)} nodes, the config has {config.n_layer} layers")
    sizes = _sizes(config, task)
    place = _place(config, kind, sizes)
    values: dict[str, Value | None] = {"": None}
    for tensor in graph.initializers:
        values[tensor.name] = tensor_value(tensor)
    _check_inputs(graph, config, kind, sizes, values)
    _check_opsets(graph, kind)
    n_attention = sum(node.op == ATTENTION[kind] for node in graph.nodes)
    if n_attention != config.n_layer:
        raise GateError(f"it has {n_attention} layers, the config has {config.n_layer}")
    made = _walk(graph, place, kind, values)
    _check_outputs(graph, kind, _outputs(config, kind, task), sizes, made)
    right: set[tuple[Declared, Value | None]] = set()
    for name, declared in graph.hints.items():
        pair = declared, values.get(name)
        if pair not in right:
            _check_declared(name, *pair)
            right.add(pair)
    return _scales(graph)


def _check_opsets(graph: Graph, kind: str) -> None:
    known = {"": (18, 25), MICROSOFT: (1, 1)}
    for domain, version in graph.opsets.items():
        low, high = known.get(domain, (0, -1))
        if not low <= version <= high:
            raise GateError(f"it asks for the operators {shown(domain)} of version {version}")
    if "" not in graph.opsets or (kind == "edge" and MICROSOFT not in graph.opsets):
        raise GateError("it does not say which operators it has")


def _sizes(config: GPTConfig, task: str | None) -> dict[str, int]:
    """Numbers in place of the sizes of a call, by the contract's names of axes."""
    batch = 2 * (3 + secrets.randbelow(50))
    tokens = 120 + secrets.randbelow(400)
    past = 600 + secrets.randbelow(400)
    return {
        "batch": batch,
        "batch_size": batch,
        "sequence": tokens,
        "past_sequence": past,
        "total_sequence": tokens if config.is_encoder else past + tokens,
        "capacity": 1100 + secrets.randbelow(400),
        "rows": 110 + secrets.randbelow(8),
        "examples": batch // 2 if task == "similarity" else batch,  # two orders of its texts,
        onnx_contract.RANK: 70 + secrets.randbelow(30),
    }


def _place(config: GPTConfig, kind: str, sizes: Mapping[str, int]) -> Place:
    """What operators must agree with, and how large the largest value of a model can be."""
    head_size = onnx_contract.cache_head_size(config, kind)
    heads = config.n_head * head_size
    rank = sizes[onnx_contract.RANK] if config.takes_adapters else 0
    widest = max(config.vocab_size, config.inner_size, 3 * heads, config.n_embd, rank)
    rows = sizes["batch"] * sizes["sequence"]
    total = max(sizes["total_sequence"], sizes["capacity"])
    largest = max(
        rows * widest,
        rows * total,
        sizes["batch"] * total * heads,
        config.vocab_size * config.n_embd,
        config.n_ctx * config.n_embd,
        config.n_embd * max(config.inner_size, 3 * heads),
        (config.n_label or 0) * config.n_embd,
    )
    return Place(config, kind == "edge", head_size, largest)


def _check_inputs(
    graph: Graph,
    config: GPTConfig,
    kind: str,
    sizes: Mapping[str, int],
    values: dict[str, Value | None],
) -> None:
    specs = {spec.name: spec for spec in onnx_contract.inputs(config, kind)}
    _check_names("input", kind, set(graph.inputs), set(specs), OPTIONAL[kind])
    for name, declared in graph.inputs.items():
        if name in values:
            raise GateError(f"the input {name} is stored as well")
        values[name] = _from_spec(specs[name], sizes)
        _check_spec(name, declared, specs[name])


def _from_spec(spec: TensorSpec, sizes: Mapping[str, int]) -> Value:
    dims = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.axes)
    return Value(TYPES[spec.dtype], dims, origin=ORIGINS.get(spec.name, ""))


def _check_spec(name: str, declared: Declared, spec: TensorSpec) -> None:
    wanted = tuple(-1 if isinstance(axis, str) else axis for axis in spec.axes)
    if declared.type != TYPES[spec.dtype] or declared.dims != wanted:
        dims = None if declared.dims is None else list(declared.dims)
        raise GateError(f"{name} has the shape {dims} or a type that the config does not have")


def _check_names(
    side: str, kind: str, found: set[str], expected: set[str], optional: Collection[str]
) -> None:
    missing = sorted(expected - found - set(optional))
    unknown = sorted(found - expected)
    if missing or unknown:
        names = ", ".join(map(shown, (missing or unknown)[:3]))
        what = "lacks the" if missing else "has an unknown"
        raise GateError(f"it {what} {side} {names}, which the {kind} graph does not allow")


def _walk(
    graph: Graph, place: Place, kind: str, values: dict[str, Value | None]
) -> dict[str, Value]:
    """Every node in order; returns what they make, by name."""
    made: dict[str, Value] = {}
    inferred: dict[object, list[Value]] = {}  # layers repeat
    layer = 0
    for node in graph.nodes:
        try:
            inputs = _values_of(node.inputs, values)
            call = (node.kind, inputs, *map(bool, node.outputs))
            results = inferred.get(call)
            if results is None:
                results = inferred[call] = _infer(node, inputs, place)
            for name, value in zip(node.outputs, results, strict=False):
                if not name:
                    continue
                if name in values:
                    raise GateError(f"the value {shown(name)} is made twice")
                values[name] = made[name] = value
            if node.op == ATTENTION[kind]:
                _check_layer(node, place.config, kind, layer)
                layer += 1
        except GateError as error:
            raise GateError(f"its node {shown(node.name)} ({shown(node.op)}): {error}") from None
    return made


def _values_of(names: Sequence[str], values: Mapping[str, Value | None]) -> Inputs:
    try:
        return tuple([values[name] for name in names])
    except KeyError as error:
        raise GateError(f"nothing before it makes {shown(error.args[0])}") from None


def _infer(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """What a node makes: it follows from its kind, its inputs, and which outputs have a name."""
    results = find_rule(node, place.is_edge).infer(node, inputs, place)
    for name, value in zip(node.outputs, results, strict=False):
        if name and value.size > place.max_elements:
            raise GateError(f"it makes {list(value.dims)}, more than a model has")
    return results


def _check_layer(node: Node, config: GPTConfig, kind: str, layer: int) -> None:
    """An attention belongs to its layer: its cache, its window and its scale."""
    if kind == "portable":
        return
    wanted = config.layer_window(layer) or -1
    window = node.attributes.get("local_window_size", -1)
    if window != wanted:
        raise GateError(f"it sees a window of {window}, the config has {wanted}")
    scale = node.attributes.get("scale")
    if not isinstance(scale, float) or abs(scale - config.attention_scale) > 1e-5:
        raise GateError(f"its scale is {scale}, the config's is {config.attention_scale}")
    if config.is_encoder:
        return
    past = (onnx_contract.past_key(layer), onnx_contract.past_value(layer))
    present = (onnx_contract.present_key(layer), onnx_contract.present_value(layer))
    if node.inputs[3:5] != past or node.outputs[1:] != present:
        raise GateError(f"it is not that of layer {layer}")


def _outputs(config: GPTConfig, kind: str, task: str | None) -> dict[str, TensorSpec]:
    """The contract's outputs; a head that reads every token has a row for each."""
    specs = {spec.name: spec for spec in onnx_contract.outputs(config, kind)}
    if task in EVERY_TOKEN and kind == "portable" and config.n_label is not None:
        axes = ("examples", "sequence", config.n_label)
        specs[onnx_contract.LOGITS] = TensorSpec(onnx_contract.LOGITS, "float32", axes)
    return specs


def _check_outputs(
    graph: Graph,
    kind: str,
    specs: Mapping[str, TensorSpec],
    sizes: Mapping[str, int],
    made: Mapping[str, Value],
) -> None:
    logits = specs.get(onnx_contract.LOGITS)  # a base has none
    is_of_tokens = logits is not None and logits.axes[:2] == ("examples", "sequence")
    _check_names("output", kind, set(graph.outputs), set(specs), OPTIONAL[kind] if logits else ())
    for name, declared in graph.outputs.items():
        expected = _from_spec(specs[name], sizes)
        found = made.get(name)
        if found is None:
            raise GateError(f"nothing makes its output {name}")
        if (found.type, found.dims) != (expected.type, expected.dims):
            raise GateError(
                f"its output {name} has the shape {list(found.dims)}, the config says "
                f"{list(expected.dims)}"
            )
        if name != onnx_contract.LOGITS or not is_of_tokens:  # exports declare one axis too few
            _check_declared(name, declared, found)


def _check_declared(name: str, declared: Declared, found: Value | None) -> None:
    """What a graph says of a value is what the value is; onnxruntime would believe it."""
    if found is None or declared.type == 0:
        return
    is_right = declared.type == found.type
    if declared.dims is not None:
        is_right = is_right and len(declared.dims) == len(found.dims)
        for said, size in zip(declared.dims, found.dims, strict=False):
            is_right = is_right and said in (-1, size)
    if not is_right:
        raise GateError(f"the value {shown(name)} is declared as what it is not")


def _scales(graph: Graph) -> set[str]:
    """Stored tensors that operators read as scales, an Unsqueeze between them or not."""
    place_of = {
        "MatMulNBits": (2,),
        "GatherBlockQuantized": (2,),
        "DequantizeLinear": (1,),
        "MatMulIntegerToFloat": (2, 3),
    }
    renamed = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.op == "Unsqueeze"}
    names = [
        node.inputs[at]
        for node in graph.nodes
        for at in place_of.get(node.op, ())
        if at < len(node.inputs)
    ]
    return {renamed.get(name, name) for name in names}
