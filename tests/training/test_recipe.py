from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_edge.errors import TrainingError
from gpt_edge.training.recipe import Recipe, read_recipe

REPO = Path(__file__).resolve().parents[2]
MakeRecipe = Callable[..., Path]


def test_the_recipe_of_the_default_model_is_valid() -> None:
    recipe = read_recipe(REPO / "models" / "tinystories.toml")
    assert recipe.model.n_parameters < 7_000_000  # int8: 8 MB in all
    assert recipe.model.vocab_size == recipe.tokenizer.vocab_size


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"steps": 0}, r"\[training\] steps is 0, wanted at least 1"),
        ({"steps": "many"}, r"\[training\] steps is 'many', wanted a whole number"),
        ({"steps": 1.5}, r"\[training\] steps is 1.5, wanted a whole number"),
        ({"learning_rate": -0.1}, r"\[training\] learning_rate is -0.1, wanted above 0"),
        ({"learning_rate": "fast"}, r"\[training\] learning_rate is 'fast', wanted a finite number"),
        ({"dropout": 1.0}, r"\[training\] dropout is 1.0, wanted from 0 to below 1"),
        ({"precision": "int3"}, r"\[training\] precision is 'int3', wanted one of float32, bfloat16"),
        ({"compile": "yes"}, r"\[training\] compile is 'yes', wanted true or false"),
        ({"batch_tokens": 250}, r"\[training\] batch_tokens is 250, wanted a multiple of row_tokens, 16"),
        ({"batch_tokens": 48}, r"\[training\] batch_tokens is 48, wanted a multiple of n_ctx, 32"),
        ({"row_tokens": 64}, r"\[training\] row_tokens is 64, wanted at most n_ctx, 32"),
        ({"speed": 3}, r"\[training\] has unknown keys speed"),
        ({"vocab_size": 256}, r"\[tokenizer\] vocab_size is 256, wanted from 257"),
        ({"n_head": 3}, r"\[model\] n_embd must be a multiple of n_head"),
        ({"every_steps": 0}, r"\[evaluation\] every_steps is 0, wanted at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_key_found_and_wanted(
    make_recipe: MakeRecipe, changes: dict[str, object], wanted: str
) -> None:
    path = make_recipe(**changes)
    with pytest.raises(TrainingError, match=wanted) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("steps = ", "is not TOML"),
        ("[dta]\n", "unknown sections dta"),
        ("data = 3\n", r"data is 3, wanted a section \[data\]"),
        ("", r"\[data\] lacks train, valid"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, wanted: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises(TrainingError, match=wanted):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the recipe .*none.toml: No such file"):
        read_recipe(tmp_path / "none.toml")


def test_threads_are_no_part_of_what_a_resumed_run_must_share(make_recipe: MakeRecipe, recipe: Recipe) -> None:
    assert read_recipe(make_recipe(threads=2)).fingerprint() == recipe.fingerprint()
    assert read_recipe(make_recipe(seed=5)).fingerprint() != recipe.fingerprint()
