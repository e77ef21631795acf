"""GPT-1's input transformations, held against figure 1 of the paper, and TaskSpec."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.task_inputs import encode_texts, transform
from gpt_edge.tasks import (
    KINDS,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    TEXT,
    TaskSpec,
    new_task,
)
from gpt_edge.tasks import (
    TOKENS as TOKEN_LABELS,
)

S, D, E = 100, 101, 102  # start, delimiter, extract
TOKENS = st.lists(st.integers(0, 99), min_size=1, max_size=60)


def spec_of(kind: str) -> TaskSpec:
    labels = () if kind == "multiple-choice" else ("no", "yes")
    return new_task(kind, 100, labels)


@pytest.mark.parametrize(
    ("kind", "texts", "wanted"),
    [
        ("classification", [[1, 2]], [(S, 1, 2, E)]),
        ("entailment", [[1, 2], [3]], [(S, 1, 2, D, 3, E)]),
        ("similarity", [[1, 2], [3]], [(S, 1, 2, D, 3, E), (S, 3, D, 1, 2, E)]),
        ("multiple-choice", [[1, 2], [3], [4, 5]], [(S, 1, 2, D, 3, E), (S, 1, 2, D, 4, 5, E)]),
    ],
)
def test_each_kind_is_laid_out_as_in_figure_1(
    kind: str, texts: list[list[int]], wanted: list[tuple[int, ...]]
) -> None:
    found = transform(spec_of(kind), texts, n_ctx=16)
    assert list(found.sequences) == wanted
    assert found.n_truncated == 0


@given(
    kind=st.sampled_from(KINDS),
    texts=st.lists(TOKENS, min_size=3, max_size=5),
    n_ctx=st.integers(5, 64),
)
def test_no_sequence_passes_the_context_and_every_lost_token_is_counted(
    kind: str, texts: list[list[int]], n_ctx: int
) -> None:
    if kind != "multiple-choice":
        texts = texts[: 1 if kind == "classification" else 2]
    found = transform(spec_of(kind), texts, n_ctx)
    for ids in found.sequences:
        assert len(ids) <= n_ctx
        assert (ids[0], ids[-1], ids.count(S), ids.count(E)) == (S, E, 1, 1)
        assert ids.count(D) == (kind != "classification")
        assert all(part for part in _parts(ids))
    if kind == "multiple-choice":
        contexts = {tuple(_parts(ids)[0]) for ids in found.sequences}
        assert len(contexts) == 1
        n_kept = len(contexts.pop()) + sum(len(_parts(ids)[1]) for ids in found.sequences)
    else:
        n_kept = sum(map(len, _parts(found.sequences[0])))
    assert found.n_truncated == sum(map(len, texts)) - n_kept
    if all(len(ids) < n_ctx for ids in found.sequences):
        assert found.n_truncated == 0


def _parts(ids: tuple[int, ...]) -> list[list[int]]:
    inner = list(ids[1:-1])
    if D not in inner:
        return [inner]
    at = inner.index(D)
    return [inner[:at], inner[at + 1 :]]


def test_the_longer_text_of_a_pair_loses_its_end_and_the_shorter_one_stays() -> None:
    found = transform(spec_of("entailment"), [list(range(20)), [50, 51]], n_ctx=10)
    assert found.sequences == ((S, 0, 1, 2, 3, 4, D, 50, 51, E),)
    assert found.n_truncated == 15


def test_two_long_texts_are_cut_to_halves_and_the_first_gets_the_odd_token() -> None:
    (ids,) = transform(
        spec_of("entailment"), [list(range(20)), list(range(50, 70))], n_ctx=10
    ).sequences
    assert ids == (S, 0, 1, 2, 3, D, 50, 51, 52, E)


def test_the_context_of_a_choice_keeps_its_end_the_same_for_every_answer() -> None:
    found = transform(spec_of("multiple-choice"), [list(range(20)), [50], [60, 61, 62]], n_ctx=9)
    assert found.sequences == ((S, 17, 18, 19, D, 50, E), (S, 17, 18, 19, D, 60, 61, 62, E))
    assert found.n_truncated == 17


def test_a_single_text_loses_its_end() -> None:
    found = transform(spec_of("classification"), [list(range(20))], n_ctx=6)
    assert found.sequences == ((S, 0, 1, 2, 3, E),)
    assert found.n_truncated == 16


@pytest.mark.parametrize(
    ("kind", "n"),
    [("classification", 2), ("entailment", 1), ("similarity", 3), ("multiple-choice", 2)],
)
def test_a_wrong_number_of_texts_is_refused(kind: str, n: int) -> None:
    with pytest.raises(ValueError, match="wants"):
        transform(spec_of(kind), [[1]] * n, n_ctx=16)


@pytest.mark.parametrize(
    ("kind", "smallest"), [("classification", 3), ("entailment", 5), ("multiple-choice", 5)]
)
def test_a_context_without_room_is_refused(kind: str, smallest: int) -> None:
    texts = [[1]] * {"classification": 1, "entailment": 2}.get(kind, 3)
    assert len(transform(spec_of(kind), texts, smallest).sequences[0]) == smallest
    with pytest.raises(ValueError, match=f"at least {smallest}"):
        transform(spec_of(kind), texts, smallest - 1)


def test_texts_are_encoded_one_by_one() -> None:
    found = encode_texts(spec_of("entailment"), lambda text: [len(text)], ["abc", "de"], 16)
    assert found.sequences == ((S, 3, D, 2, E),)


@pytest.mark.parametrize(
    "spec",
    [
        new_task("classification", 7, ("a", "b", "c")),
        new_task("entailment", 7, ("yes", "no")),
        new_task("similarity", 7, score_range=(0, 5)),
        new_task("similarity", 7, ("same", "other")),
        new_task("multiple-choice", 7),
    ],
)
def test_a_spec_survives_its_dictionary(spec: TaskSpec) -> None:
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert spec.n_label == max(1, len(spec.labels))
    assert (spec.start, spec.delimiter, spec.extract) == (7, 8, 9)


GOOD = new_task("classification", 7, ("a", "b")).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "translation"}, "task kind must be one of"),
        ({"kind": ["classification"]}, "task kind must be one of"),
        ({"start": -1}, "three different ids"),
        ({"start": True}, "three different ids"),
        ({"extract": 8}, "three different ids"),
        ({"labels": ["a"]}, "from 2 to"),
        ({"labels": ["a", "a"]}, "differ from each other"),
        ({"labels": ["a", ""]}, "a label must be"),
        ({"labels": ["a", 3]}, "a label must be"),
        ({"labels": "ab"}, "labels must be a list"),
        ({"kind": "multiple-choice"}, "has no labels"),
        ({"score_range": [0, 1], "labels": []}, "for similarity alone"),
        ({"kind": "similarity", "score_range": [0, 1]}, "has no labels"),
        ({"kind": "similarity", "score_range": [1, 1], "labels": []}, "two finite numbers"),
        ({"kind": "similarity", "score_range": [0, math.inf], "labels": []}, "two finite numbers"),
        ({"kind": "similarity", "score_range": [0, "5"], "labels": []}, "two finite numbers"),
        ({"kind": "similarity", "score_range": 5, "labels": []}, "must be a list or null"),
        ({"more": 1}, "unknown task fields: more"),
        ({"problem": "regression"}, "has no problem 'regression'"),
        ({"kind": "entailment", "problem": "multi-label"}, "entailment has no problem"),
        ({"thresholds": [0.5, 0.5]}, "of a multi-label task"),
        ({"problem": "multi-label", "thresholds": [0.5]}, "got 1 for"),
        ({"problem": "multi-label", "thresholds": 0.5}, "must be a list"),
        ({"problem": "multi-label", "thresholds": [0.5, 1]}, "between 0 and 1, got 1"),
        ({"dimensions": 4}, "dimensions are of embedding alone"),
        ({"kind": "embedding", "labels": []}, "dimensions are of embedding alone, got None"),
        ({"kind": "embedding", "labels": [], "dimensions": 0}, "from 1 to 16384, got 0"),
        ({"kind": "embedding", "dimensions": 4}, "embedding has no labels"),
        ({"temperature": 0}, "from 0.01 to 100, got 0"),
        ({"temperature": math.nan}, "from 0.01 to 100, got nan"),
        ({"temperature": True}, "from 0.01 to 100, got True"),
        (
            {"kind": "similarity", "score_range": [0, 1], "labels": [], "temperature": 2},
            "similarity with scores has none",
        ),
    ],
)
def test_a_spec_that_no_task_can_have_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSpec.from_dict({**GOOD, **change})


def test_a_spec_with_a_field_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="missing task fields: extract"):
        TaskSpec.from_dict({name: value for name, value in GOOD.items() if name != "extract"})


def test_a_temperature_is_in_a_file_only_where_there_is_one() -> None:
    spec = spec_of("classification")
    assert "temperature" not in spec.to_dict()
    calibrated = dataclasses.replace(spec, temperature=1.5)
    assert TaskSpec.from_dict(calibrated.to_dict()) == calibrated
    assert calibrated.uncalibrated == spec
    tokens = TaskSpec("token-classification", labels=("a", "b"), problem="single-label")
    with pytest.raises(ValueError, match="temperature is for probabilities, token-classification"):
        dataclasses.replace(tokens, temperature=1.5)


def test_each_text_of_an_embedding_is_a_sequence_of_its_own() -> None:
    spec = new_task("embedding", 100, dimensions=8)
    assert (spec.n_label, spec.has_probabilities, spec.reads_every_token) == (8, False, True)
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    assert transform(spec, [[1, 2], [3]], 10).sequences == ((S, 1, 2, E), (S, 3, E))
    cut = transform(spec, [[1, 2, 3, 4]], 4)
    assert (cut.sequences, cut.n_truncated) == (((S, 1, 2, E),), 2)
    assert transform(spec, [[1, 2, 3, 4]], 4, keep_end=True).sequences == ((S, 3, 4, E),)
    with pytest.raises(ValueError, match="at least 1 text"):
        transform(spec, [], 10)


def test_a_task_of_several_labels_may_have_one_and_keeps_its_thresholds() -> None:
    spec = new_task("classification", 100, ("urgent",), problem="multi-label")
    assert (spec.is_multi_label, spec.n_label) == (True, 1)
    asked = dataclasses.replace(spec, thresholds=(0.3,))
    assert TaskSpec.from_dict(asked.to_dict()) == asked
    assert asked.uncalibrated == spec
    assert "problem" not in spec_of("classification").to_dict()


@given(st.floats(-1e6, 1e6))
def test_a_score_stays_in_its_range_and_rises_with_its_logit(logit: float) -> None:
    spec = new_task("similarity", 7, score_range=(-1, 5))
    assert -1 <= spec.score(logit) <= 5
    assert spec.score(0.0) == 2
    assert spec.score(logit) <= spec.score(logit + 1)


def test_classes_have_no_score() -> None:
    with pytest.raises(ValueError, match="no score"):
        spec_of("classification").score(0.0)


def text_spec(**changes: Any) -> TaskSpec:
    """Of a classifier of another toolkit, which has no tokens of its own."""
    return TaskSpec(TEXT, labels=("no", "yes"), problem="single-label", **changes)


@pytest.mark.parametrize(
    ("ids", "pad", "read"),
    [
        ([5, 6, 0, 0], 0, (5, 6)),
        ([5, 6, 0, 7], 0, (5, 6, 0, 7)),
        ([0, 0], 0, (0,)),
        ([0, 5, 0], 0, (0, 5)),
        ([5, 0], 0, (5,)),
        ([5, 0], None, (5, 0)),
        ([1, 2, 3, 4, 5, 0], 0, (1, 2, 3, 4)),
    ],
)
def test_a_text_of_another_toolkit_is_read_up_to_its_padding(
    ids: list[int], pad: int | None, read: tuple[int, ...]
) -> None:
    found = transform(text_spec(pad=pad), [ids], n_ctx=4)
    assert found.sequences == (read,)
    assert found.n_truncated == max(0, len(ids) - 4)


def test_an_answer_may_take_what_the_context_leaves() -> None:
    context, answers = [1, 2], [[3] * 9, [4] * 3]
    found = transform(spec_of("multiple-choice"), [context, *answers], n_ctx=13)
    assert found.sequences == ((S, 1, 2, D, *[3] * 8, E), (S, 1, 2, D, 4, 4, 4, E))
    longer = transform(spec_of("multiple-choice"), [[1] * 20, [3] * 9, [4]], n_ctx=13)
    assert longer.sequences == ((S, *[1] * 5, D, *[3] * 5, E), (S, *[1] * 5, D, 4, E))


def test_bounds_of_labels_dimensions_temperature_and_thresholds() -> None:
    assert new_task("embedding", 100, dimensions=1).n_label == 1
    with pytest.raises(ValueError, match="dimensions must be from 1"):
        new_task("embedding", 100, dimensions=0)
    TaskSpec(TOKEN_LABELS, labels=("one",), problem="single-label")
    with pytest.raises(ValueError, match="must have from 1 to"):
        TaskSpec(TOKEN_LABELS, labels=(), problem="single-label")
    with pytest.raises(ValueError, match="must have from 2 to"):
        TaskSpec(TEXT, labels=("one",), problem="single-label")
    TaskSpec(TEXT, labels=("one",), problem="multi-label")
    with pytest.raises(ValueError, match="must have from 1 to"):
        TaskSpec(TEXT, labels=(), problem="regression")
    with pytest.raises(ValueError, match="must have a problem of single-label, got 'multi-label'"):
        TaskSpec(TOKEN_LABELS, labels=("a", "b"), problem="multi-label")
    with pytest.raises(ValueError, match="pad must be an id of"):
        TaskSpec(TOKEN_LABELS, labels=("a", "b"), problem="single-label", pad=0)
    with pytest.raises(ValueError, match="pad must be an id of"):
        text_spec(pad=-1)
    for good in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        assert text_spec(temperature=good).temperature == good
    for bad in (MIN_TEMPERATURE * 0.99, MAX_TEMPERATURE * 1.01):
        with pytest.raises(ValueError, match="temperature"):
            text_spec(temperature=bad)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.1, True])
def test_a_threshold_lies_between_0_and_1(threshold: float) -> None:
    task = new_task("classification", 100, ("a", "b"), problem="multi-label")
    assert dataclasses.replace(task, thresholds=(0.5, 0.001)).thresholds == (0.5, 0.001)
    with pytest.raises(ValueError, match="threshold"):
        dataclasses.replace(task, thresholds=(0.5, threshold))
