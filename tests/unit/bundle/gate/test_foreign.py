"""The gate for graphs of other tools: what it reads, and what it refuses in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate import foreign
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.bundle.gate.foreign import check_foreign
from gpt_edge.bundle.gate.limits import FLOAT32, INT64, GateError
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from tests.unit.bundle.gate.calls import CONFIG, ENCODER
from tests.unit.bundle.gate.messages import (
    GRAPH,
    HINT,
    INITIALIZER,
    INPUT,
    NODE,
    OUTPUT,
    attribute,
    declared,
    model,
    node,
    opset,
    shape,
)
from tests.unit.bundle.gate.wire import field

NAME = field(1, "k")


def stored(name: str, *numbers: int) -> bytes:
    content = b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)
    return field(1, len(numbers)) + field(2, INT64) + field(8, name) + field(9, content)


def beside(name: str, offset: int = 0, length: int = 8, location: str = "model.onnx_data") -> bytes:
    entries = (("location", location), ("offset", offset), ("length", length))
    place = field(13, *(field(1, key) + field(2, str(value)) for key, value in entries))
    return field(1, 1) + field(2, INT64) + field(8, name) + place + field(14, 1)


def past(name: str, *dims: int | str | None) -> bytes:
    dims = dims or ("batch", 2, "past", 4)
    return field(INPUT, declared(name, FLOAT32, shape(*dims)))


CACHE = b"".join(
    past(f"past_key_values.{layer}.{kind}") for layer in range(2) for kind in ("key", "value")
)


def check(content: bytes = CACHE, config: GPTConfig = CONFIG, **parts: bytes) -> None:
    bundle = cast(Bundle, SimpleNamespace(config=config))
    check_foreign(memoryview(model(content, **parts)), bundle, {"model.onnx_data": 100})


def refused(content: bytes, words: str, **others: Any) -> None:
    with pytest.raises(GateError, match=words):
        check(CACHE + content, **others)


def branch(content: bytes, depth: int = 1) -> bytes:
    """A node whose attribute is a graph, so deep."""
    for _ in range(depth):
        content = field(NODE, node("If", attributes=field(5, NAME + field(6, content))))
    return content


def of(op: str, domain: str = "", **parts: bytes) -> bytes:
    return field(NODE, node(op, domain=field(7, domain) if domain else b"", **parts))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        of("Add"),
        of("Add", "ai.onnx"),
        of("FastGelu", "com.microsoft"),
        of("Concat"),
        of("Slice", inputs=field(1, "a", "", "b")),
        field(NODE, node("Add") + field(6, "a note") + field(9, b"note")),
        field(INITIALIZER, stored("t", 1, 2), beside("u"), beside("v", 8)),
        field(10, "a note") + field(14, b"quantized") + field(16, b"note"),
        branch(of("Add") + field(INITIALIZER, stored("t", 1))),
        branch(of("Add"), foreign.MAX_FOREIGN_DEPTH),
        # a branch may have a tensor of the graph around it, and declares what it likes
        field(INITIALIZER, beside("t")) + branch(field(INITIALIZER, beside("t"))),
        branch(past("past_key_values.9.key")),
        of("Gather", attributes=field(5, attribute("axis", 2, field(3, 8)))),
        of("Gather", attributes=field(5, attribute("axis", 2, field(3, -8)))),
        of("Slice", attributes=field(5, attribute("end", 2, field(3, 1 << 40)))),
        of("Range", attributes=field(5, attribute("other", 2, field(3, 1 << 31)))),
        of("Constant", attributes=field(5, NAME + field(5, stored("", 1)))),
        field(INITIALIZER, stored("s", 1 << 14, 1 << 14)) + of("Expand", inputs=field(1, "a", "s")),
        field(INITIALIZER, stored("s", 1 << 30, 1)) + of("Reshape", inputs=field(1, "a", "s")),
        field(OUTPUT, declared("logits", FLOAT32, shape("batch", 3, 40))),
        field(OUTPUT, declared("logits", FLOAT32, shape("batch", 3, "vocab"))),
        field(OUTPUT, declared("logits", FLOAT32, shape())),
        field(OUTPUT, declared("logits")),
        field(OUTPUT, declared("others", FLOAT32, shape(7))),
        field(INPUT, declared("input_ids", INT64, shape(1, 9, 9))),
    ],
)
def test_what_exports_of_other_tools_write_passes(content: bytes) -> None:
    check(CACHE + content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (of("Loop"), "the operator 'Loop' of ''"),
        (of("FastGelu"), "the operator 'FastGelu' of ''"),
        (of("Add", "com.microsoft"), "the operator 'Add' of 'com.microsoft'"),
        (of("Add", "org.other"), "the operator 'Add' of 'org.other'"),
        (of("Concat", inputs=field(1, "a", "")), "an input of Concat is empty"),
        (of("Max", inputs=field(1, "", "a")), "an input of Max is empty"),
        (field(INITIALIZER, stored("t", 1), stored("t", 1)), "'t' comes twice"),
        (field(INITIALIZER, stored("t", 1) + field(8, "u")), "a field twice"),
        (field(INITIALIZER, beside("u", 93)), "ends at byte 101"),
        (field(INITIALIZER, beside("u", location="other")), "no file of the bundle"),
        (field(INITIALIZER, beside("u"), beside("v", 4)), "overlap"),
        (branch(field(INITIALIZER, beside("u", 93))), "ends at byte 101"),
        (branch(field(INITIALIZER, beside("u", length=7))), "takes 8"),
        (field(INITIALIZER, beside("t")) + branch(field(INITIALIZER, beside("t", length=7))),
         "takes 8"),
        (branch(of("Add"), foreign.MAX_FOREIGN_DEPTH + 1), "nested 3 deep"),
        (of("Add", attributes=field(5, NAME + field(6, b""))), "Add has a graph in it"),
        (branch(of("Loop")), "the operator 'Loop'"),
        (of("Gather", attributes=field(5, attribute("axis", 2, field(3, 9)))), "the 'axis' 9"),
        (of("Gather", attributes=field(5, attribute("axis", 2, field(3, -9)))), "the 'axis' -9"),
        (of("Range", attributes=field(5, attribute("other", 2, field(3, (1 << 31) + 1)))),
         "the 'other'"),
        (of("Constant", attributes=field(5, NAME + field(5, beside("")))), "lies in another file"),
        (of("Constant", attributes=field(5, NAME + field(5, stored("", 1)[:2] + field(2, INT64)))),
         "takes 8"),
        (field(INITIALIZER, stored("s", 1 << 14, (1 << 14) + 1))
         + of("Expand", inputs=field(1, "a", "s")), "it makes"),
        (field(INITIALIZER, stored("s", (1 << 28) + 1))
         + of("ConstantOfShape", inputs=field(1, "s")), "it makes"),
        (field(INITIALIZER, stored("s", (1 << 28) + 1)) + of("Tile", inputs=field(1, "a", "s")),
         "it makes"),
        (field(INPUT, declared("x\x07")), "no printable text"),
        (field(OUTPUT, declared("x\x07")), "no printable text"),
        (past("past_key_values.2.key") + past("past_key_values.2.value"), "3 layers"),
        (field(OUTPUT, declared("logits", FLOAT32, shape("batch", 3, 41))), "41 columns"),
    ],
)  # fmt: skip
def test_what_they_do_not_write_is_refused(content: bytes, words: str) -> None:
    refused(content, words)


@pytest.mark.parametrize(
    ("dims", "is_right"),
    [
        (("batch", 2, "past", 4), True),
        ((1, "heads", 7, "size"), True),
        (("batch", 3, "past", 4), False),
        (("batch", 2, "past", 8), False),
        (("batch", 2, "past"), False),
        (("batch", 2, "past", 4, 1), False),
    ],
)
def test_a_cache_has_the_config_s_heads(dims: tuple[int | str, ...], is_right: bool) -> None:
    content = CACHE[len(past("past_key_values.0.key")) :] + past("past_key_values.0.key", *dims)
    if is_right:
        check(content)
    else:
        with pytest.raises(GateError, match="the heads differ"):
            check(content)


def test_layers_are_those_of_the_config() -> None:
    check(b"")  # one without a cache has none to count
    one = past("past_key_values.0.key") + past("past_key_values.0.value")
    with pytest.raises(GateError, match="it has 1 layers, the config has 2"):
        check(one)
    check(one, ENCODER)
    check(field(OUTPUT, declared("logits", FLOAT32, shape("batch", 3))), ENCODER)
    with pytest.raises(GateError, match="40 columns, the config has 3"):
        check(field(OUTPUT, declared("logits", FLOAT32, shape("batch", 40))), ENCODER)


def test_operator_sets_are_known() -> None:
    for domain in ("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "org.pytorch.aten"):
        for version in (1, 25):
            check(opsets=opset(domain, version))
        for version in (0, 26):
            refused(b"", f"of version {version}", opsets=opset(domain, version))
    refused(b"", "asks for the operators 'other'", opsets=opset("other", 1))
    refused(b"", "of version None", opsets=field(8, field(1, "")))
    refused(b"", "no printable text", opsets=opset("\x07", 1))


def test_a_model_has_one_graph() -> None:
    refused(b"", "it has no graph", graph=b"")
    refused(b"", "it has two graphs", graph=field(GRAPH, CACHE, CACHE))
    check(notes=field(4, "domain") + field(5, 1) + field(6, "a note"))


def test_nodes_and_tensors_of_all_branches_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_FOREIGN_NODES", 4)
    two = field(NODE, node("Add"), node("Mul"))
    check(CACHE + two + branch(field(NODE, node("Add"))))
    refused(two + branch(two), "more than 4 nodes or tensors")
    tensors = [stored(name, 1) for name in "abcde"]
    check(CACHE + field(INITIALIZER, *tensors[:4]))
    check(CACHE + field(INITIALIZER, *tensors[:4]) + branch(field(INITIALIZER, *tensors[:4])))
    refused(field(INITIALIZER, *tensors), "more than 4 nodes or tensors")
    refused(
        field(INITIALIZER, *tensors[:4]) + branch(field(INITIALIZER, tensors[4])),
        "more than 4 nodes or tensors",
    )


def test_parts_of_a_graph_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_FOREIGN_PARTS", 6)
    check(CACHE + field(HINT, declared("x")))
    with pytest.raises(ValueError, match="more than 6 fields"):
        check(CACHE + field(HINT, declared("x"), declared("y")))
    several = of("Add", attributes=field(5, NAME + field(8, *range(4)) + field(20, 7)))
    check(CACHE + several)
    with pytest.raises(ValueError, match="more than 6 fields"):
        check(CACHE + of("Add", attributes=field(5, NAME + field(8, *range(6)) + field(20, 7))))


def test_a_config_of_other_heads_has_another_cache() -> None:
    wide = dataclasses.replace(CONFIG, n_head=4)
    with pytest.raises(GateError, match="the heads differ"):
        check(CACHE, wide)


def test_a_folder_of_another_tool_is_handed_over_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(CACHE))
    bundle: Any = SimpleNamespace(model_path=path, is_optimum_export=True, config=CONFIG)
    assert checked_model(bundle) == path
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=r"gpt-edge cannot load .*model\.onnx: it is empty"):
        checked_model(bundle)
