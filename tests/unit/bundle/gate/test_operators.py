"""The allow-list of the gate: domains, numbers of inputs and outputs, and attributes."""

from __future__ import annotations

import dataclasses

import pytest

from gpt_edge.bundle.gate.arithmetic import same
from gpt_edge.bundle.gate.limits import INT64, GateError
from gpt_edge.bundle.gate.operators import FLAG, MICROSOFT, Rule, _rule
from gpt_edge.bundle.gate.records import Node, Tensor
from gpt_edge.bundle.gate.shaping import constant
from gpt_edge.bundle.gate.values import Place, given
from tests.unit.bundle.gate.calls import CONFIG, Call, call, floats, known, refused, whole

SUM = call("ReduceSum", floats(2, 3), known(1), keepdims=1)
GELU = call("Gelu", floats(2, 8), approximate="tanh")
NORM = call("LayerNormalization", floats(2, 8), floats(8), floats(8), epsilon=1e-5)
TURNED = call("Transpose", floats(2, 3), perm=(1, 0))
FAST = call("FastGelu", floats(2, 8), None)


@pytest.mark.parametrize("good", [SUM, GELU, NORM, TURNED, FAST, SUM.having(keepdims=0)], ids=str)
def test_what_exports_write_is_allowed(good: Call) -> None:
    good.results()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (dataclasses.replace(SUM, op="Loop"), "no export has it"),
        (dataclasses.replace(SUM, domain=MICROSOFT), "no export has it"),
        (dataclasses.replace(FAST, domain=""), "no export has it"),
        (dataclasses.replace(SUM, domain="ai.onnx"), "no export has it"),
        (call("Add", floats(2)), "it has 1 inputs, expected 2 to 2"),
        (call("Add", floats(2), floats(2), floats(2)), "it has 3 inputs, expected 2 to 2"),
        (call("Slice", floats(2), *[known(0)] * 5), "it has 6 inputs, expected 3 to 5"),
        (call("Add", None, floats(2)), "its input 0 is empty"),
        (call("Add", floats(2), None), "its input 1 is empty"),
        (dataclasses.replace(FAST, inputs=(None, floats(8))), "its input 0 is empty"),
        (dataclasses.replace(SUM, outputs=()), "it has 0 outputs, expected 1 to 1"),
        (dataclasses.replace(SUM, outputs=("a", "b")), "it has 2 outputs, expected 1 to 1"),
        (dataclasses.replace(SUM, outputs=("",)), "it has 1 outputs"),
        (call("DynamicQuantizeLinear", floats(2)), "it has 1 outputs, expected 3 to 3"),
        (SUM.having(keepdims=2), "its attribute 'keepdims' is 2"),
        (SUM.having(keepdims=-1), "its attribute 'keepdims' is -1"),
        (SUM.having(keepdims=1.0), "its attribute 'keepdims' is 1.0"),
        (SUM.having(keepdims="1"), "its attribute 'keepdims' is '1'"),
        (SUM.having(keepdims=(1,)), "its attribute 'keepdims' is a list or a tensor"),
        (SUM.having(axes=1), "its attribute 'axes' is 1"),
        (GELU.having(approximate="sigmoid"), "its attribute 'approximate' is 'sigmoid'"),
        (GELU.having(approximate=1), "its attribute 'approximate' is 1"),
        (NORM.having(epsilon=1), "its attribute 'epsilon' is 1"),
        (NORM.having(epsilon=2.0), "its attribute 'epsilon' is 2.0"),
        (NORM.having(epsilon=0.0), "its attribute 'epsilon' is 0.0"),
        (TURNED.having(perm=1), "its attribute 'perm' is 1"),
        (call("Constant", value=(1,)), "its attribute 'value' is a list or a tensor"),
        (call("Constant", value_ints=Tensor("", INT64, (), bytes(8))), "a list or a tensor"),
        (call("Constant", value_float=1.0), "its attribute 'value_float' is 1.0"),
    ],
    ids=str,
)
def test_what_no_export_writes_is_refused(bad: Call, words: str) -> None:
    refused(bad, words)


def test_what_rules_have_kept_out_is_refused_once_more() -> None:
    odd = Node("Constant", "", (), ("out",), {"value": 1.0}, "", b"")
    with pytest.raises(GateError, match="its value is of a kind that exports do not have"):
        constant(odd, (), Place(CONFIG, True, 4, 100))
    with pytest.raises(GateError, match="its input 1 is missing"):
        given(odd, (floats(2), None), 1)


def test_the_portable_graph_has_none_of_onnxruntime_s_operators() -> None:
    SUM.results(is_edge=False)
    with pytest.raises(GateError, match="no export has it"):
        FAST.results(is_edge=False)


def test_a_rule_without_a_largest_number_has_one_number_of_inputs() -> None:
    for most, wanted in ((None, (2, 2)), (5, (2, 5))):
        rule = _rule(same, 2, most, (1,), (1, 3), keepdims=FLAG)
        assert rule == Rule(same, wanted, (1, 3), {"keepdims": FLAG}, frozenset({1}))


def test_a_value_that_only_a_call_knows_says_no_shape() -> None:
    refused(call("Reshape", floats(2, 3), whole(2)), "only a call knows")
