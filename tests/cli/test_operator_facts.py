"""`inspect` and `native`: which operators are custom, what stays with onnxruntime, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_edge.bundle.reader import builtin_bundles
from tests.support.runner import done


def test_a_built_in_model_leaves_nothing() -> None:
    told = done("inspect", "--json").json["operators"]
    assert told["error"] is None
    assert (told["outside"], told["same_bits"]) == ([], True)
    assert told["custom"] == {"SkipNorm": 15, "BlockProduct": 29, "CachedAttention16": 7}
    shown = done("inspect").out
    assert "custom operators  15 x SkipNorm, 29 x BlockProduct, 7 x CachedAttention16" in shown
    assert "same bits" in shown


def test_float_weights_and_portable_graphs_stay(tiny_edge: Path) -> None:
    told = done("inspect", tiny_edge, "--json").json["operators"]
    assert told["outside"] == [
        {"operator": "MatMul", "count": 8, "reason": "float weights"},
        {"operator": "FusedMatMul", "count": 1, "reason": "float weights"},
    ]
    assert not told["same_bits"]
    assert "onnxruntime's     8 x MatMul: float weights" in done("inspect", tiny_edge).out
    told = done("inspect", tiny_edge.with_name("tiny-portable"), "--json").json["operators"]
    assert (told["custom"], told["error"]) == ({}, "custom operators are for edge graphs")


@pytest.mark.parametrize(
    ("scheme", "operator", "reason"),
    [
        ("int8", "MatMulIntegerToFloat", "weights of 16 x 48, below 16 x 64"),
        ("int8-block", None, ""),
    ],
)
def test_a_narrow_model_says_its_shapes(
    scheme: str, operator: str | None, reason: str, tiny_edge: Path, tmp_path: Path
) -> None:
    done("quantize", tiny_edge, tmp_path / scheme, "--scheme", scheme)
    outside = done("inspect", tmp_path / scheme, "--json").json["operators"]["outside"]
    found = {(one["operator"], one["reason"]) for one in outside}
    assert (operator is None and not found) or (operator, reason) in found


def test_native_lists_the_built_in_models() -> None:
    shown = done("native").out
    told = [line for line in shown.splitlines() if line.endswith("stays with onnxruntime")]
    assert "not in use" in shown or len(told) == len(builtin_bundles())
