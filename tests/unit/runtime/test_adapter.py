"""Adapters in memory: what a base's graph reads of one, of none, and on which base it runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT, StoredArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import TASK_TOKENS, adapter_inputs
from gpt_edge.runtime.adapter import _floats, adapter_of, check_base, no_adapter
from gpt_edge.tasks import new_task

CONFIG = GPTConfig(
    n_layer=2, n_head=2, n_embd=8, n_ctx=16, vocab_size=50, n_inner=12, takes_adapters=True
)
TASK = new_task("classification", 50, ("a", "b", "c"))


def arrays_of(rank: int, graph: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rank)
    shapes: dict[str, tuple[int, ...]] = {
        TASK_TOKENS: (3, 8),
        HEAD_WEIGHT: (3, 8),
        HEAD_BIAS: (3,),
    }
    for spec in adapter_inputs(CONFIG, graph)[1:] if rank else ():
        shapes[spec.name] = tuple(rank if axis == "rank" else int(axis) for axis in spec.axes)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("graph", ["edge", "portable"])
def test_a_graph_reads_every_input_and_other_tokens_get_zeros(graph: str, rank: int) -> None:
    arrays = arrays_of(rank, graph)
    adapter = adapter_of(arrays, CONFIG, graph, TASK, Path("here"), "mine")
    assert (adapter.name, adapter.path, adapter.task, adapter.rank) == (
        "mine", Path("here"), TASK, rank,
    )  # fmt: skip
    assert set(adapter.values) == {spec.name for spec in adapter_inputs(CONFIG, graph)}
    for spec in adapter_inputs(CONFIG, graph):
        found = adapter.values[spec.name].numpy()
        assert found.dtype == np.float32
        if spec.name == TASK_TOKENS:
            assert not found[0].any()
            np.testing.assert_array_equal(found[1:], arrays[TASK_TOKENS])
        elif rank:
            np.testing.assert_array_equal(found, arrays[spec.name])
        else:
            wanted = tuple(1 if axis == "rank" else axis for axis in spec.axes)
            assert (found.shape, found.any()) == (wanted, False)
    empty = no_adapter(CONFIG, graph)
    assert set(empty) == set(adapter.values)
    assert empty[TASK_TOKENS].numpy().shape == (4, 8)


def test_the_head_is_applied_row_by_row() -> None:
    arrays = arrays_of(0, "edge")
    adapter = adapter_of(arrays, CONFIG, "edge", TASK, Path("here"), "mine")
    states = np.random.default_rng(1).standard_normal((6, 8), np.float32)
    found = adapter.logits(states)
    expected = states @ arrays[HEAD_WEIGHT].T + arrays[HEAD_BIAS]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for row in range(6):
        np.testing.assert_array_equal(adapter.logits(states[row : row + 1])[0], found[row])


@pytest.mark.parametrize(("dtype", "name"), [("<f2", "F16"), ("<f4", "F32")])
def test_stored_arrays_are_floats(dtype: str, name: str) -> None:
    values = np.arange(6).astype(dtype).reshape(2, 3)
    found = _floats(StoredArray(name, (2, 3), values.tobytes()))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def base_of(**changes: Any) -> Any:
    values = {
        "path": Path("base"),
        "kind": "base",
        "config": CONFIG,
        "weights_hash": lambda: "a" * 64,
    }
    return SimpleNamespace(**values | changes)


def test_an_adapter_runs_on_its_own_base_alone() -> None:
    manifest = SimpleNamespace(base={"name": "its-base", "sha256": "a" * 64})
    adapter: Any = SimpleNamespace(path=Path("mine"), config=CONFIG, manifest=manifest)
    check_base(adapter, base_of())
    other = GPTConfig(n_layer=2, n_head=2, n_embd=8, n_ctx=32, vocab_size=50, takes_adapters=True)
    for base in (base_of(weights_hash=lambda: "b" * 64), base_of(config=other)):
        with pytest.raises(BundleError, match="mine is an adapter of the base its-base with the"):
            check_base(adapter, base)
    plain = GPTConfig(n_layer=2, n_head=2, n_embd=8, n_ctx=16, vocab_size=50)
    with pytest.raises(
        BundleError, match="base is a bundle of kind causal-lm: it takes no adapter"
    ):
        check_base(adapter, base_of(config=plain, kind="causal-lm"))
