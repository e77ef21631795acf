"""Windows over ids: each target once, with the context that the stride promises, in whatever pieces
the ids come.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.evaluate import windows
from gpt_edge.evaluate.windows import WindowCutter


def as_transformers_does(n_ids: int, max_length: int, stride: int) -> list[tuple[int, int, int]]:
    """Begin, end and number of targets of each window: the loop of transformers' "Perplexity of
    fixed-length models".
    """
    found, previous_end = [], 0
    for begin in range(0, n_ids, stride):
        end = min(begin + max_length, n_ids)
        found.append((begin, end, end - previous_end))
        previous_end = end
        if end == n_ids:
            break
    return found


@given(n_ids=st.integers(2, 200), context=st.integers(1, 40), data=st.data())
def test_windows_are_those_of_transformers_documentation(
    n_ids: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    found = [
        (int(ids[0]), int(ids[-1]) + 1, len(ids) - 1 - n_counted)
        for ids, n_counted in windows(np.arange(n_ids), context, stride)
    ]
    wanted = as_transformers_does(n_ids, context + 1, stride)
    # the first id is nobody's target: the loss shifts it away
    wanted[0] = (*wanted[0][:2], wanted[0][2] - 1)
    assert found == wanted


@given(n_ids=st.integers(0, 120), context=st.integers(1, 20), data=st.data())
def test_each_target_counts_once_with_enough_before_it(
    n_ids: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    seen = []
    for ids, n_counted in windows(np.arange(n_ids), context, stride):
        assert 2 <= len(ids) <= context + 1
        assert (n_counted == 0 and ids[0] == 0) or n_counted == context - stride
        seen += ids[1 + n_counted :].tolist()
    assert seen == list(range(1, n_ids))


@given(
    n_ids=st.integers(0, 120),
    context=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 120), max_size=5),
)
def test_pieces_give_the_windows_of_the_whole(n_ids: int, context: int, cuts: list[int]) -> None:
    ids, stride = np.arange(n_ids), max(1, context // 2)
    cutter = WindowCutter(context, stride)
    for _ in range(2):  # it can be used for the next document
        found = [
            part for piece in np.split(ids, sorted(cuts)) for part in cutter.push(piece)
        ] + list(cutter.finish())
        wanted = windows(ids, context)
        assert [(part.tolist(), n) for part, n in found] == [
            (part.tolist(), n) for part, n in wanted
        ]


@pytest.mark.parametrize(("context", "stride"), [(8, 0), (8, 9), (8, -1), (0, 1)])
def test_a_stride_that_leaves_out_tokens_or_does_not_move_is_refused(
    context: int, stride: int
) -> None:
    with pytest.raises(
        ValueError, match=r"stride must be from 1 to the window of 8|window must be at least 1"
    ):
        windows(np.arange(20), context, stride)
