from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_edge.config import PRESETS
from gpt_edge.errors import TrainingError
from gpt_edge.training.optimizer import learning_rate_factor
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
        ({"steps": 0}, r"\[training\] steps is 0, expected at least 1"),
        ({"steps": "many"}, r"\[training\] steps is 'many', expected a whole number"),
        ({"steps": 1.5}, r"\[training\] steps is 1.5, expected a whole number"),
        ({"learning_rate": -0.1}, r"\[training\] learning_rate is -0.1, expected above 0"),
        (
            {"learning_rate": "fast"},
            r"\[training\] learning_rate is 'fast', expected a finite number",
        ),
        ({"dropout": 1.0}, r"\[training\] dropout is 1.0, expected from 0 to below 1"),
        (
            {"precision": "int3"},
            r"\[training\] precision is 'int3', expected one of float32, bfloat16",
        ),
        ({"compile": "yes"}, r"\[training\] compile is 'yes', expected true or false"),
        (
            {"batch_tokens": 250},
            r"\[training\] batch_tokens is 250, expected a multiple of row_tokens, 16",
        ),
        (
            {"batch_tokens": 48},
            r"\[training\] batch_tokens is 48, expected a multiple of n_ctx, 32",
        ),
        ({"row_tokens": 64}, r"\[training\] row_tokens is 64, expected at most n_ctx, 32"),
        ({"speed": 3}, r"\[training\] has unknown keys speed"),
        ({"vocab_size": 256}, r"\[tokenizer\] vocab_size is 256, expected from 257"),
        ({"n_head": 3}, r"\[model\] n_embd must be a multiple of n_head"),
        (
            {"micro_batch_tokens": 24},
            r"\[training\] micro_batch_tokens is 24, expected a multiple of row_tokens, 16",
        ),
        (
            {"micro_batch_tokens": 16},
            r"\[training\] micro_batch_tokens is 16, expected a multiple of n_ctx, 32",
        ),
        ({"ema": 1.0}, r"\[training\] ema is 1.0, expected from 0 to below 1"),
        ({"parallel": "pipe"}, r"\[training\] parallel is 'pipe', expected one of ddp, fsdp"),
        ({"device": "tpu"}, r"\[training\] device is 'tpu', expected one of auto, cpu, cuda"),
        ({"train": 3}, r"\[data\] train is 3, expected a string or a list of strings"),
        ({"train": ""}, r"\[data\] train is '', expected a string or a list of strings"),
        ({"every_steps": 0}, r"\[evaluation\] every_steps is 0, expected at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_key_value_and_expectation(
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
        (f"steps = {'9' * 5000}", "is not TOML: Exceeds the limit"),
        (f"[training]\nsteps = [0x{'f' * 5000}]", "is not TOML: a whole number of more than 64"),
        ("[dta]\n", "unknown sections dta"),
        ("data = 3\n", r"data is 3, expected a section \[data\]"),
        ("", r"\[data\] lacks train"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused(tmp_path: Path, content: str, wanted: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises(TrainingError, match=wanted):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the recipe .*none.toml: No such file"):
        read_recipe(tmp_path / "none.toml")


def test_threads_are_no_part_of_what_a_resumed_run_must_share(
    make_recipe: MakeRecipe, recipe: Recipe
) -> None:
    assert read_recipe(make_recipe(threads=2)).fingerprint() == recipe.fingerprint()
    assert read_recipe(make_recipe(seed=5)).fingerprint() != recipe.fingerprint()


def test_muon_needs_whole_matrices(make_recipe: MakeRecipe) -> None:
    with pytest.raises(TrainingError, match=r"\[training\] optimizer is 'muon', expected adamw"):
        read_recipe(make_recipe(parallel="fsdp", optimizer="muon"))


def test_the_recipe_of_gpt1_is_the_papers() -> None:
    recipe = read_recipe(REPO / "models" / "gpt1.toml")
    assert recipe.model == PRESETS["gpt1"]
    assert recipe.tokenizer.vocab_size == 40478
    training = recipe.training
    factors = [
        training.learning_rate * learning_rate_factor(step, training)
        for step in (0, 999, 1999, training.steps)
    ]
    assert factors == pytest.approx([2.5e-4 / 2000, 1.25e-4, 2.5e-4, 0.0], abs=1e-12)
    assert training.batch_tokens == 64 * 512
    assert {training.dropout, training.attention_dropout} == {0.1}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_gives_the_shape_and_keys_change_it(make_recipe: MakeRecipe, preset: str) -> None:
    changes = [f"model={{preset='{preset}'}}", "tokenizer.vocab_size=0"]
    path = make_recipe(row_tokens=16, long_rows_from=0)
    path.write_text(
        path.read_text().replace(
            "n_layer = 2\nn_head = 2\nn_embd = 32\nn_ctx = 32", f'preset = "{preset}"'
        )
    )
    assert read_recipe(path, changes[1:]).model == PRESETS[preset]
    small = read_recipe(path, ["model.n_layer=3", "tokenizer.vocab_size=300"]).model
    assert small == dataclasses.replace(PRESETS[preset], n_layer=3, vocab_size=300)


def test_an_unknown_preset_and_a_size_that_is_nowhere_are_named(make_recipe: MakeRecipe) -> None:
    path = make_recipe()
    with pytest.raises(
        TrainingError, match=r"\[model\] preset is 'gpt9', expected one of gpt1, gpt2"
    ):
        read_recipe(path, ["model.preset=gpt9"])
    path.write_text(path.read_text().replace("vocab_size = 300", ""))
    with pytest.raises(TrainingError, match=r"\[tokenizer\] lacks vocab_size"):
        read_recipe(path)


def test_flags_change_a_recipe(make_recipe: MakeRecipe) -> None:
    path = make_recipe()
    recipe = read_recipe(
        path,
        [
            "training.steps=100",
            "training.learning_rate = 1e-3",
            "data.train=['a.txt', 'b/*.gz']",
            "output.folder=runs/new one",
            "training.compile=true",
            "evaluation.patience=2",
        ],
    )
    assert (recipe.training.steps, recipe.training.learning_rate, recipe.training.compile) == (
        100,
        1e-3,
        True,
    )
    assert recipe.data.train == ("a.txt", "b/*.gz")
    assert recipe.output.folder == "runs/new one"
    assert recipe.evaluation.patience == 2
    assert recipe.training.batch_tokens == 256


@pytest.mark.parametrize(
    "change", ["steps=3", "training.steps", "speed.steps=3", "training.=3", "=3", ""]
)
def test_a_wrong_flag_is_named(make_recipe: MakeRecipe, change: str) -> None:
    with pytest.raises(
        TrainingError, match=r"expected SECTION\.KEY=VALUE with a section of data, tokenizer"
    ):
        read_recipe(make_recipe(), [change])
    with pytest.raises(
        TrainingError, match=r"\[training\] steps is 'many', expected a whole number"
    ):
        read_recipe(make_recipe(), ["training.steps=many"])


def test_flags_alone_are_a_recipe() -> None:
    flags = [
        "data.train=a.txt",
        "tokenizer.vocab_size=300",
        "model.preset=gpt2",
        "model.n_layer=2",
        "training.steps=3",
        "training.batch_tokens=2048",
        "training.row_tokens=1024",
        "training.learning_rate=1e-3",
        "output.folder=x",
    ]
    recipe = read_recipe(None, flags)
    assert recipe.model.n_layer == 2
    with pytest.raises(TrainingError, match=r"the command line: \[data\] lacks train"):
        read_recipe(None, flags[1:])


def test_where_it_runs_is_no_part_of_what_a_resumed_run_must_share(
    make_recipe: MakeRecipe, recipe: Recipe
) -> None:
    changes = ["training.device=cpu", "training.parallel=fsdp", "output.plot=false"]
    assert read_recipe(make_recipe(), changes).fingerprint() == recipe.fingerprint()
