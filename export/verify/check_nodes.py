"""Do the nodes of a graph say what the config says: attributes, inputs, and nothing that no graph
of gpt-edge holds there?

Read, not run: a window, a scale or an epsilon may be wrong where no probe comes, and a condition
may hold for one position or one value alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.lower_edge import LOW_ZERO_POINT, UINT8_MIDDLE
from gpt_edge.export.verify.dequantize import BIAS_INPUTS, array_of
from gpt_edge.export.verify.graph_map import ATTENTIONS, NORMS, MappedOperator
from gpt_edge.export.weights.reference_operators import LINEARS, ReferenceOperator
from gpt_edge.onnx_contract import ACTIVATION_OPERATORS

# of 8-bit rows by their zero point: what their largest and their least value are multiplied by
ROW_SCALES = {
    UINT8_MIDDLE: {"ReduceMax": 1 / (UINT8_MIDDLE - 1)},
    LOW_ZERO_POINT: {"ReduceMax": 1 / (255 - LOW_ZERO_POINT), "ReduceMin": -1 / LOW_ZERO_POINT},
    0: {"ReduceMax": 1 / 255},
}
CAST_TYPES = (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
TOLERANCE = 1e-3  # relative: attributes are float32
N_ATTENTION_INPUTS = {"GroupQueryAttention": 7, "Attention": 4}  # used; what follows is no GPT's
PICKS = {"GatherND", "Unsqueeze", "Constant"}  # rows whose logits are wanted
LINEAR_NODES = {
    "Shape", "Concat", "Expand", "Constant", "Abs", "ReduceMax", "ReduceMin", "Mul", "Max",
    "QuantizeLinear", "MatMulIntegerToFloat", "Add", "MatMulNBits", "MatMul", "FusedMatMul",
    "Gemm", "Cast", "Identity", "DynamicQuantizeLinear", "MatMulInteger", "Transpose",
    "DequantizeLinear", "Unsqueeze", "Reshape",
}  # fmt: skip
EDGE_NODES = {
    "embedding": {
        "Unsqueeze", "GatherBlockQuantized", "Reshape", "Gather", "Slice", "Cast", "Add",
        "SkipLayerNormalization", "Constant", "Shape", "Squeeze", "Range", "Identity", "Mul",
        "DequantizeLinear",
    },
    "lm_head": LINEAR_NODES | PICKS,
    "task_head": {"MatMul", "Add", "Gemm", "Slice", "Reshape"} | PICKS,
    "attn.attention": {"GroupQueryAttention"},
    "mlp.activation": {"FastGelu", "Gelu", "Relu"},
    "attn.residual": {"Add", "SkipLayerNormalization"} | PICKS,
    "mlp.residual": {"Add", "SkipLayerNormalization"},
    "attn.c_attn": LINEAR_NODES,
    "attn.c_proj": LINEAR_NODES | PICKS,
    "mlp.c_fc": LINEAR_NODES,
    "mlp.c_proj": LINEAR_NODES,
    "ln_1": set(NORMS),
    "ln_2": set(NORMS),
    "ln_f": set(NORMS),
}  # fmt: skip
# behind a product of a portable graph: its bias, the parts of queries, keys and values, the cache,
# and rows that are picked
BEHIND = {
    "MatMul", "Gemm", "Add", "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Concat",
    "Split", "Gather", "GatherND", "Cast", "Identity", "Shape",
}  # fmt: skip
# in a portable graph only the mask of attention needs any of these
CONDITIONS = {
    "Where", "If", "Loop", "Scan", "Clip", "Min", "Max", "Mod", "Equal", "Less", "LessOrEqual",
    "Greater", "GreaterOrEqual", "And", "Or", "Not", "Xor", "CumSum", "Trilu", "Round", "Floor",
    "Ceil", "Sign", "Dropout", "RandomNormal", "RandomUniform", "RandomNormalLike", "NonZero",
    "ScatterND", "ScatterElements", "Compress", "Pad", "IsNaN", "IsInf", "OneHot", "TopK",
}  # fmt: skip


def node_faults(mapped: MappedOperator, graph: str, config: GPTConfig) -> list[str]:
    """What is wrong with the nodes of one operator, by reading them. graph: "edge" or
    "portable".
    """
    faults = [f"the graph has a node {name} there" for name in _strangers(mapped, graph)]
    name, node = mapped.operator.name, mapped.node
    check = CHECKS.get(name)
    if check is not None:
        faults += check(node, mapped.operator, config)
    for other in mapped.nodes:
        faults += _axis_faults(other)
    if name in (*LINEARS, "lm_head"):
        faults += _row_faults(mapped) if graph == "edge" else _portable_faults(mapped)
    return faults


def _strangers(mapped: MappedOperator, graph: str) -> list[str]:
    """Types of nodes that do not belong to an operator."""
    types = {node.op_type for node in mapped.nodes}
    if graph == "edge":
        return sorted(types - EDGE_NODES[mapped.operator.name])
    if mapped.operator.name == "attn.attention":
        return []
    return sorted(types & CONDITIONS)


def _attention(node: ir.Node, operator: ReferenceOperator, config: GPTConfig) -> Iterator[str]:
    if node.op_type not in ATTENTIONS or operator.layer is None:
        return
    heads = {"num_heads": config.n_head, "kv_num_heads": config.n_head}
    expected: dict[str, float] = {"scale": config.attention_scale}
    if node.op_type == "GroupQueryAttention":
        window = config.layer_window(operator.layer)
        expected |= {**heads, "local_window_size": -1 if window is None else window}
    else:
        has_mask = len(node.inputs) > 3 and node.inputs[3] is not None
        expected["is_causal"] = 0 if has_mask else 1
    for name, value in expected.items():
        actual = _number(node, name)
        if actual is None or not math.isclose(actual, value, rel_tol=TOLERANCE):
            yield f"its {name} is {_shown(actual)}, the config says {_shown(value)}"
    # softcap, rotary positions, a smooth softmax …: no GPT has them
    for name in sorted(set(node.attributes) - set(expected)):
        actual = _number(node, name)
        if actual not in (0, None) and not name.startswith(("q_num", "kv_num", "softmax_prec")):
            yield f"its {name} is {_shown(actual)}, expected 0"
    n_used = N_ATTENTION_INPUTS.get(node.op_type, len(node.inputs))
    extra = [i for i, value in enumerate(node.inputs) if i >= n_used and value is not None]
    if extra:
        yield f"it has an input {extra[0]}, which no GPT needs"


def _norm(node: ir.Node, operator: ReferenceOperator, config: GPTConfig) -> Iterator[str]:
    """An epsilon that is off is too small to show on most inputs."""
    if node.op_type not in NORMS:
        return
    actual = _number(node, "epsilon")
    if actual is None:
        actual = 1e-12 if node.op_type == "SkipLayerNormalization" else 1e-5
    expected = config.layer_norm_epsilon
    if not math.isclose(actual, expected, rel_tol=TOLERANCE):
        yield f"its epsilon is {actual:.3g}, the reference's is {expected:.3g}"


def _activation(node: ir.Node, operator: ReferenceOperator, config: GPTConfig) -> Iterator[str]:
    is_tanh = "approximate" in node.attributes
    is_tanh = is_tanh and node.attributes["approximate"].as_string() == "tanh"
    kind = "FastGelu" if node.op_type == "Gelu" and is_tanh else node.op_type
    expected = ACTIVATION_OPERATORS[config.activation]
    if kind != expected:
        yield f"it is {kind}, the config says {config.activation}"


Check = Callable[[ir.Node, ReferenceOperator, GPTConfig], Iterator[str]]
CHECKS: dict[str, Check] = {
    "attn.attention": _attention,
    "mlp.activation": _activation,
    **dict.fromkeys(("ln_1", "ln_2", "ln_f"), _norm),
}


def _axis_faults(node: ir.Node) -> Iterator[str]:
    """Attributes of the nodes that quantize activations and pick rows."""
    if node.op_type == "QuantizeLinear" and _number(node, "axis") not in (-1, 2):
        yield f"its activations are quantized along axis {_shown(_number(node, 'axis'))}"
    if node.op_type == "GatherND" and _number(node, "batch_dims") != 1:
        yield f"its rows are picked with batch_dims {_shown(_number(node, 'batch_dims'))}"
    if node.op_type == "Cast" and _number(node, "to") not in CAST_TYPES:
        yield f"a value is rounded to {ir.DataType(int(_number(node, 'to') or 0)).name}"
    if node.op_type in NORMS and _number(node, "axis") not in (None, -1, 2):
        yield f"it is normed along axis {_shown(_number(node, 'axis'))}"


def _row_faults(mapped: MappedOperator) -> Iterator[str]:
    """A product adds one bias, if any, and multiplies only by the scales of its rows."""
    counts = Counter(node.op_type for node in mapped.nodes)
    if counts["MatMulInteger"]:  # Optimum's own arrangement
        return
    n_biases = sum(_has_bias(node) for node in mapped.nodes) + (mapped.bias is not None)
    n_biases += counts["Add"]
    if n_biases > 1 or (n_biases and mapped.operator.name == "lm_head"):
        yield f"{n_biases} values are added to its product"
    n_rows = counts["ReduceMax"] + counts["ReduceMin"]
    expected = n_rows + 1 if n_rows else 0
    if counts["Mul"] != expected:
        yield f"the graph multiplies {counts['Mul']} times there, expected {expected}"
    products = [node for node in mapped.nodes if node.op_type == "MatMulIntegerToFloat"]
    for node in products:
        one = _scalar(node.inputs[2])
        if one is not None and one != 1:
            yield f"its product is scaled by {one:.6g}"
    zero = next((_scalar(node.inputs[4]) for node in products), None)
    for node in mapped.nodes:
        if node.op_type == "Mul":
            yield from _scale_faults(node, ROW_SCALES.get(int(zero or 0), {}))
        elif node.op_type == "Max" and {_source_of(value) for value in node.inputs} != {"Mul"}:
            yield "its rows' scale is not the larger of two"
    if counts["Max"] != counts["ReduceMin"]:
        yield f"the graph has {counts['Max']} nodes Max there, expected {counts['ReduceMin']}"


def _scale_faults(node: ir.Node, expected: Mapping[str, float]) -> Iterator[str]:
    """Of a Mul by a constant: what makes the scale of rows of their largest or least value."""
    for value, other in (node.inputs, node.inputs[::-1]):
        scale = _scalar(value)
        wanted = expected.get(_source_of(other), math.nan)
        if scale is not None and not math.isclose(scale, wanted, rel_tol=1e-6):
            yield f"its rows are scaled by {scale:.6g}, expected {wanted:.6g}"


def _source_of(value: ir.Value | None) -> str:
    """The type of the node that makes a value; "" of a constant."""
    node = value.producer() if value is not None else None
    return "" if node is None else node.op_type


def _scalar(value: ir.Value | None) -> float | None:
    """The first number of an initializer; None where it is none."""
    array = array_of(value) if value is not None and value.is_initializer() else None
    return None if array is None else float(array.reshape(-1)[0])


def _portable_faults(mapped: MappedOperator) -> Iterator[str]:
    """Behind a product one bias is added, and nothing is multiplied; shapes are computed beside
    it.
    """
    reached: set[ir.Value] = set()
    behind = Counter[str]()
    for node in mapped.nodes:  # in order
        if node.op_type in ("MatMul", "Gemm") or any(value in reached for value in node.inputs):
            reached.update(node.outputs)
            behind[node.op_type] += 1
    if behind["Add"] > (mapped.operator.name != "lm_head"):
        yield f"{behind['Add']} values are added to its product"
    for name in sorted(set(behind) - BEHIND):
        yield f"the graph has a node {name} behind its product"


def _has_bias(node: ir.Node) -> bool:
    index = BIAS_INPUTS.get(node.op_type)
    return index is not None and len(node.inputs) > index and node.inputs[index] is not None


def _number(node: ir.Node, name: str) -> float | None:
    attribute = node.attributes.get(name)
    if attribute is None or not isinstance(attribute.value, int | float):
        return None
    return float(attribute.value)


def _shown(value: float | None) -> str:
    return "not given" if value is None else f"{value:.6g}"
