from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt_edge.errors import CheckpointError, NumericError, OutputError, TrainingError
from gpt_edge.reference.checkpoint import load_checkpoint, read_checkpoint_config, save_checkpoint
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.system.lock import hold_lock
from gpt_edge.tokenizer.load import load_tokenizer
from gpt_edge.tokenizer.spec import TokenizerSpec
from gpt_edge.training.pretrain import run as pretrain
from gpt_edge.training.pretrain.run import train
from gpt_edge.training.pretrain.trainer import Trainer
from gpt_edge.training.run_state import load_state
from tests.support.warm_process import PATIENCE, WarmProcess

MakeRecipe = Callable[..., Path]


def folder_of(recipe: Path) -> Path:
    return recipe.parent / "runs" / recipe.stem


def weights_of(recipe: Path) -> dict[str, torch.Tensor]:
    return load_state(folder_of(recipe) / "state.safetensors").model


def test_training_gives_a_checkpoint_that_learned(
    make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(steps=30, every_steps=10)
    result = train(recipe)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(r"step +30 .*bits/byte", captured.err)
    assert result.steps == 30
    assert result.tokens == 30 * 256
    assert not result.is_stopped_early
    assert result.score.loss < 4.5  # ln 300 = 5.7

    about = read_checkpoint_config(result.checkpoint)
    assert about["training"]["validation"]["bits_per_byte"] == result.score.bits_per_byte
    tokenizer = load_tokenizer(result.checkpoint, TokenizerSpec.from_dict(about["tokenizer"]))
    assert tokenizer.decode(tokenizer.encode("Lily had a ball.")) == "Lily had a ball."
    assert tokenizer.vocab_size == load_checkpoint(result.checkpoint).config.vocab_size == 300
    records = [
        json.loads(line) for line in (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["step"] for record in records] == [10, 20, 30]
    losses = [record["validation_loss"] for record in records]
    assert losses == sorted(losses, reverse=True)


def test_a_run_that_failed_midway_resumes_to_the_same_bits(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = make_recipe("straight"), make_recipe("broken")
    train(straight, progress=False)

    class PowerCut(Exception):
        pass

    step = Trainer.step

    def cut_at_8(trainer: Trainer) -> float:
        if trainer.n_steps_done == 8:
            raise PowerCut
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", cut_at_8)
    with pytest.raises(PowerCut):
        train(broken, progress=False)
    monkeypatch.setattr(Trainer, "step", step)
    train(broken, resume=True, progress=False)
    one, two = weights_of(straight), weights_of(broken)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)

    def records(recipe: Path) -> list[dict[str, object]]:
        lines = (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()
        return [
            {
                k: v
                for k, v in json.loads(line).items()
                if k not in ("seconds", "tokens_per_second", "train_loss")
            }
            for line in lines
        ]

    assert records(straight) == records(broken)


def test_resuming_a_finished_run_changes_nothing(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    first = train(recipe, progress=False)
    assert train(recipe, resume=True, progress=False) == first


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from gpt_edge.training.pretrain.run import train
from gpt_edge.training.pretrain.trainer import Trainer

step, n_before = Trainer.step, int(sys.argv[2])

def step_with_a_bomb(trainer):
    global n_before
    n_before -= 1
    if n_before < 0:
        Trainer.step = step
        threading.Timer(float(sys.argv[4]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    return step(trainer)

Trainer.step = step_with_a_bomb
train(Path(sys.argv[1]), sys.argv[3] == "resume", progress=False)
"""


def kill_and_resume(recipe: Path, n_kills: int) -> int:
    """Start or resume a training `n_kills` times, each killed at another moment; returns how many
    were alive then.
    """
    n_hit = 0
    state, checkpoint = folder_of(recipe) / "state.safetensors", folder_of(recipe) / "checkpoint"
    for i in range(n_kills):
        # seconds; a step takes 0.002 to 0.01, a save as much
        n_steps, delay = (5 + i * 7) % 11, 0.003 * (i * 5 % 7)
        arguments = [str(recipe), str(n_steps), "resume" if state.exists() else "start", str(delay)]
        process = WarmProcess(KILLED, *arguments)
        process.communicate(PATIENCE)
        n_hit += process.returncode == -signal.SIGKILL
        load_state(state)  # complete, whenever it was killed
        if checkpoint.exists():
            open_checkpoint(checkpoint).load_model()
    return n_hit


@pytest.mark.parametrize("n_kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_whole_files_and_resumes_to_the_same_bits(
    make_recipe: MakeRecipe, n_kills: int
) -> None:
    steps = {"steps": 40 + 30 * n_kills, "every_steps": 3, "patience": 1000, "long_rows_from": 20}
    killed, straight = make_recipe("killed", **steps), make_recipe("straight", **steps)
    assert kill_and_resume(killed, n_kills) == n_kills
    result = train(killed, resume=True, progress=False)
    wanted = train(straight, progress=False)
    assert result.score == wanted.score
    one, two = weights_of(straight), weights_of(killed)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_not_a_number_stops_and_the_last_good_checkpoint_stays(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    step = Trainer.step

    def poison(trainer: Trainer) -> float:
        if trainer.n_steps_done == 7:
            trainer.model.wte.weight.data[0, 0] = float("nan")
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", poison)
    with pytest.raises(NumericError, match="step 8: the loss is nan"):
        train(recipe, progress=False)
    folder = folder_of(recipe)
    assert read_checkpoint_config(folder / "checkpoint")["training"]["step"] == 6
    assert load_state(folder / "state.safetensors").progress["trainer"]["step"] == 6
    open_checkpoint(folder / "checkpoint").load_model()  # refuses what is not finite


def test_a_validation_loss_that_stays_up_stops_the_run(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([5.0, 4.0, 4.5, 4.2, 4.1, 3.0])

    def scored(*arguments: object) -> object:
        return pretrain.Score(next(scores), 1.0, 10, 10)

    monkeypatch.setattr(Trainer, "evaluate", scored)
    result = train(make_recipe(steps=60, every_steps=2, patience=2), progress=False)
    assert result.is_stopped_early
    assert result.steps == 8
    assert read_checkpoint_config(result.checkpoint)["training"]["step"] == 4


def test_a_folder_with_a_run_is_not_written_over(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=3)
    train(recipe, progress=False)
    with pytest.raises(TrainingError, match="is not empty") as caught:
        train(recipe, progress=False)
    assert "--resume" in (caught.value.hint or "")


def test_a_folder_with_other_things_is_left_alone(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    folder_of(recipe).mkdir(parents=True)
    (folder_of(recipe) / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty"):
        train(recipe, progress=False)
    assert [path.name for path in folder_of(recipe).iterdir()] == ["thesis.txt"]


def test_there_must_be_a_run_to_resume(make_recipe: MakeRecipe) -> None:
    with pytest.raises(TrainingError, match="no run to resume"):
        train(make_recipe(), resume=True, progress=False)


def test_an_output_folder_that_is_a_file_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        train(make_recipe(folder=(tmp_path / "file").as_posix()), progress=False)


def test_two_trainings_do_not_share_a_folder(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    folder_of(recipe).mkdir(parents=True)
    with hold_lock(folder_of(recipe)), pytest.raises(OutputError):
        train(recipe, progress=False)


def test_a_missing_text_is_named(make_recipe: MakeRecipe) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the text .*gone.txt: No such file"):
        train(make_recipe(train="gone.txt"), progress=False)


def test_a_checkpoint_is_replaced_but_a_stranger_is_not(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    result = train(make_recipe(steps=3), progress=False)
    model = load_checkpoint(result.checkpoint)
    save_checkpoint(result.checkpoint, model.config, model.state_dict(), None, {})
    assert sorted(path.name for path in result.checkpoint.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    again = load_checkpoint(result.checkpoint)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    stranger = tmp_path / "photos"
    stranger.mkdir()
    (stranger / "config.json").write_text("{}")
    with pytest.raises(OutputError):
        save_checkpoint(stranger, model.config, model.state_dict(), None, {})
    with pytest.raises(CheckpointError, match="not a gpt-edge checkpoint"):
        read_checkpoint_config(stranger)


def test_weights_that_are_no_numbers_are_never_written(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    model = load_checkpoint(train(make_recipe(steps=3), progress=False).checkpoint)
    model.wpe.weight.data[1, 1] = float("inf")
    with pytest.raises(NumericError, match="NaN or infinite weights in wpe"):
        save_checkpoint(tmp_path / "out", model.config, model.state_dict(), None, {})
    assert not (tmp_path / "out").exists()


def start_from(make_recipe: MakeRecipe, name: str, checkpoint: Path, **changes: object) -> Path:
    """A recipe that starts from a checkpoint, with its vocabulary."""
    recipe = make_recipe(name, start=str(checkpoint), **changes)
    text = recipe.read_text().replace(
        "vocab_size = 300", f'vocab_size = 300\nfile = "{checkpoint}"'
    )
    recipe.write_text(text)
    return recipe


def test_a_run_goes_on_from_a_checkpoint(make_recipe: MakeRecipe) -> None:
    first = train(make_recipe("first", steps=30, every_steps=10), progress=False)
    recipe = start_from(
        make_recipe, "second", first.checkpoint, steps=1, every_steps=1, learning_rate=1e-6
    )
    second = train(recipe, progress=False)
    # random weights are at ln 300
    assert second.score.loss == pytest.approx(first.score.loss, abs=1e-3)
    assert (second.checkpoint / "tokenizer.tiktoken").read_bytes() == (
        first.checkpoint / "tokenizer.tiktoken"
    ).read_bytes()


def test_a_run_is_resumed_without_the_checkpoint_that_it_started_from(
    make_recipe: MakeRecipe,
) -> None:
    first = train(make_recipe("first"), progress=False)
    train(start_from(make_recipe, "second", first.checkpoint, steps=6), progress=False)
    first.checkpoint.rename(first.checkpoint.with_name("gone"))
    recipe = make_recipe("second", start=str(first.checkpoint), steps=6)
    recipe.write_text(
        recipe.read_text().replace(
            "vocab_size = 300", f'vocab_size = 300\nfile = "{first.checkpoint}"'
        )
    )
    assert train(recipe, resume=True, progress=False).steps == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n_layer = 3", r"\[model\] n_layer is 3, in .*checkpoint it is 2"),
        (
            'n_layer = 2\nactivation = "relu"',
            r"\[model\] activation is 'relu', in .* it is 'gelu_tanh'",
        ),
    ],
    ids=["layers", "activation"],
)
def test_another_shape_is_refused(make_recipe: MakeRecipe, line: str, message: str) -> None:
    first = train(make_recipe("first"), progress=False)
    recipe = start_from(make_recipe, "second", first.checkpoint)
    recipe.write_text(recipe.read_text().replace("n_layer = 2", line))
    with pytest.raises(TrainingError, match=message):
        train(recipe, progress=False)


def test_another_vocabulary_is_refused(make_recipe: MakeRecipe) -> None:
    first = train(make_recipe("first"), progress=False)
    recipe = make_recipe("second", start=str(first.checkpoint))
    text = recipe.parent / "train.txt"
    text.write_text(text.read_text().upper())
    with pytest.raises(TrainingError, match=r"the vocabulary is not that of .*checkpoint"):
        train(recipe, progress=False)


def test_a_start_that_is_not_there_is_one_error(make_recipe: MakeRecipe) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        train(make_recipe(start="nowhere"), progress=False)
