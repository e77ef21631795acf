"""What the gate asks of a graph as a whole, where an operator's own rule would not let it come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpt_edge import onnx_contract
from gpt_edge.bundle.gate import graph
from gpt_edge.bundle.gate.limits import FLOAT32, GateError
from gpt_edge.bundle.gate.records import Declared, Node
from gpt_edge.bundle.gate.values import Value
from gpt_edge.onnx_contract import LOGITS
from tests.unit.bundle.gate.calls import CONFIG


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"local_window_size": 4}, "it sees a window of 4, the config has -1"),
        ({"scale": 7.0}, "its scale is 7.0, the config's is 0.5"),
        ({}, "its scale is None"),
    ],
)
def test_a_window_or_a_scale_that_the_config_does_not_have_is_refused(
    attributes: dict[str, Any], words: str
) -> None:
    node = Node("GroupQueryAttention", "", (), (), attributes, "", b"")
    with pytest.raises(GateError, match=words):
        graph._check_layer(node, CONFIG, "edge", 0)


def test_an_output_that_nothing_makes_is_refused() -> None:
    specs = {spec.name: spec for spec in onnx_contract.outputs(CONFIG, "edge")}
    declared = {name: Declared(FLOAT32, None) for name in specs}
    with pytest.raises(GateError, match="nothing makes its output"):
        graph._check_outputs(of(declared), "edge", specs, graph._sizes(CONFIG, None), {})


def test_logits_of_every_token_may_be_declared_with_an_axis_less() -> None:
    spec = onnx_contract.TensorSpec(LOGITS, "float32", ("examples", "sequence", 3))
    sizes = graph._sizes(CONFIG, None)
    made = {LOGITS: Value(FLOAT32, (sizes["examples"], sizes["sequence"], 3))}
    declared = {LOGITS: Declared(FLOAT32, (-1, 3))}
    graph._check_outputs(of(declared), "portable", {LOGITS: spec}, sizes, made)


def of(outputs: dict[str, Declared]) -> Any:
    return SimpleNamespace(outputs=outputs)
