"""PortableRunner feeds what a file asks for: Optimum's older files lack position_ids or have
use_cache_branch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.runtime.kv_cache import KVCache
from gpt_edge.runtime.open_graph import USE_CACHE_BRANCH
from gpt_edge.runtime.portable_runner import PortableRunner

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=8, n_ctx=16, vocab_size=5)
PASTS = (onnx_contract.past_key(0), onnx_contract.past_value(0))


class Recorder:
    """A graph runner and its bindings in one: notes what each run was fed; the keys become the
    ids.
    """

    def __init__(
        self, *extra: str, cache_type: str = "tensor(float)", logits_type: str = "tensor(float)"
    ) -> None:
        self.input_types = {
            **dict.fromkeys((onnx_contract.INPUT_IDS, *extra), "tensor(float)"),
            **dict.fromkeys(PASTS, cache_type),
        }
        self.output_types = {onnx_contract.LOGITS: logits_type}
        self.runs: list[dict[str, np.ndarray]] = []
        self._bound: dict[str, Any] = {}

    def new_binding(self) -> Recorder:
        self._bound = {}
        return self

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self._bound[name] = value

    bind_ortvalue_output = bind_ortvalue_input

    def run(self, binding: Recorder) -> None:
        assert binding is self
        self.runs.append(
            {
                name: value.numpy().copy()
                for name, value in self._bound.items()
                if name in self.input_types
            }
        )
        present = self._bound[onnx_contract.present_key(0)]
        past = self.runs[-1][PASTS[0]].shape[2]
        memory = np.concatenate(
            [
                self.runs[-1][PASTS[0]],
                np.broadcast_to(
                    self.runs[-1][onnx_contract.INPUT_IDS][:, None, :, None],
                    (*present.shape()[:2], present.shape()[2] - past, 4),
                ),
            ],
            axis=2,
        ).astype(np.float32)
        present.update_inplace(memory)


def runner(session: Recorder) -> PortableRunner:
    return PortableRunner(session, CONFIG)  # type: ignore[arg-type]


def append(own: PortableRunner, cache: KVCache, row: int, ids: list[int]) -> None:
    out = np.empty((1, CONFIG.vocab_size), np.float32)
    own.append(np.array(ids), cache, row, np.array([len(ids) - 1]), out)


def test_only_what_the_file_asks_for_is_fed() -> None:
    session = Recorder(onnx_contract.ATTENTION_MASK)
    own, cache = runner(session), KVCache(CONFIG, "portable")
    append(own, cache, 0, [1, 2, 3])
    own.decode([4], cache)
    assert [set(fed) for fed in session.runs] == [
        {onnx_contract.INPUT_IDS, onnx_contract.ATTENTION_MASK, *PASTS}
    ] * 2
    assert session.runs[1][onnx_contract.ATTENTION_MASK].tolist() == [[1, 1, 1, 1]]
    assert session.runs[1][PASTS[0]][0, 0, :, 0].tolist() == [1, 2, 3]


def test_a_merged_decoder_is_told_whether_there_is_a_past() -> None:
    session = Recorder(onnx_contract.ATTENTION_MASK, onnx_contract.POSITION_IDS, USE_CACHE_BRANCH)
    for ids in ([1], [1, 2]):
        own, cache = runner(session), KVCache(CONFIG, "portable")
        append(own, cache, 0, ids)
        own.decode([3], cache)
    told = [fed[USE_CACHE_BRANCH].tolist() for fed in session.runs]
    assert told == [[False], [True]] * 2


def test_rows_of_different_lengths_are_masked_and_lie_at_the_start() -> None:
    session = Recorder(onnx_contract.ATTENTION_MASK, onnx_contract.POSITION_IDS)
    own, cache = runner(session), KVCache(CONFIG, "portable", batch=2)
    append(own, cache, 0, [1, 2, 3])
    append(own, cache, 1, [4])
    for ids in ([3, 2], [1, 0]):
        own.decode(ids, cache)
    assert len(session.runs) == 4
    assert session.runs[3][onnx_contract.ATTENTION_MASK].tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 1],
    ]
    assert session.runs[3][onnx_contract.POSITION_IDS].tolist() == [[4], [2]]
    assert cache.arrays[0][0, 0, :5, 0].tolist() == [1, 2, 3, 3, 1]
    assert cache.arrays[0][1, 0, :3, 0].tolist() == [4, 2, 0]
    assert cache.lengths.tolist() == [5, 3]


def test_without_position_ids_rows_of_different_lengths_go_alone() -> None:
    session = Recorder(onnx_contract.ATTENTION_MASK)
    own, cache = runner(session), KVCache(CONFIG, "portable", batch=2)
    append(own, cache, 0, [1, 2, 3])
    append(own, cache, 1, [4])
    own.decode([3, 2], cache)
    assert [fed[onnx_contract.INPUT_IDS].tolist() for fed in session.runs[2:]] == [[[3]], [[2]]]
    assert [fed[onnx_contract.ATTENTION_MASK].shape for fed in session.runs[2:]] == [(1, 4), (1, 2)]
    assert cache.lengths.tolist() == [4, 2]


def test_without_position_ids_rows_of_one_length_go_together() -> None:
    session = Recorder(onnx_contract.ATTENTION_MASK)
    own, cache = runner(session), KVCache(CONFIG, "portable", batch=2)
    for row, ids in enumerate([[1, 2], [4, 3]]):
        append(own, cache, row, ids)
    own.decode([3, 2], cache)
    assert [fed[onnx_contract.INPUT_IDS].tolist() for fed in session.runs[2:]] == [[[3], [2]]]


@pytest.mark.parametrize(
    "types", [{"cache_type": "tensor(int8)"}, {"logits_type": "tensor(double)"}]
)
def test_a_type_that_is_no_float_is_refused(types: dict[str, str]) -> None:
    with pytest.raises(BundleError, match=r"expected one of tensor\(float\), tensor\(float16\)"):
        runner(Recorder(**types))
