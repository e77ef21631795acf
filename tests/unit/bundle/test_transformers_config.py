"""What a config of transformers says of layers and labels, in every way that it may."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from gpt_edge.bundle.transformers_config import classifier_task, neo_attention
from gpt_edge.tasks import TEXT, TOKENS


@pytest.mark.parametrize(
    ("values", "n_layer", "kinds"),
    [
        ({"attention_types": [[["global", "local"], 2]]}, 4, ("dense", "banded")),
        ({"attention_types": [[["global"], 3]]}, 3, ("dense",)),
        ({"attention_types": [[["global"], 1], [["local"], 2]]}, 3, ("dense", "banded", "banded")),
        ({"attention_types": [[["global", "local"], 1], [["local"], 1]]}, 3,
         ("dense", "banded", "banded")),
        ({"attention_layers": ["local"] * 9}, 9, ("banded",)),
        ({"attention_layers": ["local"], "attention_types": [[["global"], 7]]}, 1, ("banded",)),
    ],
)  # fmt: skip
def test_layers_are_listed_or_repeated(
    values: dict[str, Any], n_layer: int, kinds: tuple[str, ...]
) -> None:
    assert neo_attention(values, n_layer) == kinds


@pytest.mark.parametrize(
    "types",
    [
        None,
        "global",
        [],
        [[[], 4]],
        [[["global"], "4"]],
        [[["global"], 4, 4]],
        [["global", 4]],
        [[["global"], 3]],
        [[["global"], 5]],
        [[["global"], 4], [["global"], 1]],
        [[["global", "sparse"], 2]],
        [[["global"], 0]],
        [[["global"], -4]],
        [[["global"], 10**18]],
        [[["global"], 10**18]] * 9,
    ],
)
def test_layers_that_the_model_does_not_have_are_refused(types: object) -> None:
    with pytest.raises(ValueError, match="must say global or local for 4 layers"):
        neo_attention({"attention_types": types}, 4)


def test_a_long_list_of_kinds_is_not_repeated_beyond_the_layers() -> None:
    """A config of 30 kB would take 16 GB."""
    values = {"attention_types": [[["global"] * 2000, 1 << 20]]}
    tracemalloc.start()
    with pytest.raises(ValueError, match="for 1000000 layers"):
        neo_attention(values, 1_000_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6


@pytest.mark.parametrize(
    ("values", "n_label", "labels"),
    [
        ({}, None, ("LABEL_0", "LABEL_1")),
        ({}, 3, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {"1": "b", "0": "a", "2": "c"}}, None, ("a", "b", "c")),
        ({"id2label": {"0": "a", "1": "b"}}, 2, ("a", "b")),
    ],
)
def test_labels_are_in_the_order_of_their_numbers(
    values: dict[str, Any], n_label: int | None, labels: tuple[str, ...]
) -> None:
    assert classifier_task(values, TOKENS, n_label).labels == labels


@pytest.mark.parametrize(
    ("names", "n_label"),
    [({"0": "a", "2": "b"}, None), ({"0": "a", "1": "b"}, 3), ({"0": "a", "1": "b"}, 1),
     (["a", "b"], None), (["a", "b"], 2), ({"x": "a", "y": "b"}, 2)],
)  # fmt: skip
def test_labels_that_are_not_one_for_each_output_are_refused(
    names: object, n_label: int | None
) -> None:
    with pytest.raises(ValueError, match="id2label must name 0 to"):
        classifier_task({"id2label": names}, TEXT, n_label)


@pytest.mark.parametrize(
    ("problem", "n_label", "found"),
    [
        (None, 2, "single-label"),
        (None, 1, "multi-label"),
        ("single_label_classification", 1, "multi-label"),
        ("single_label_classification", 3, "single-label"),
        ("multi_label_classification", 3, "multi-label"),
        ("regression", 1, "regression"),
    ],
)
def test_one_output_is_a_probability_by_itself(
    problem: str | None, n_label: int, found: str
) -> None:
    assert classifier_task({"problem_type": problem}, TEXT, n_label).problem == found
    for bad in ("other", 1, ["regression"]):
        with pytest.raises(ValueError, match="problem_type is"):
            classifier_task({"problem_type": bad}, TEXT, n_label)
