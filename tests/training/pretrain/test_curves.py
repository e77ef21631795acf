from __future__ import annotations

import builtins
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.errors import MissingDependencyError
from gpt_edge.training.pretrain.curves import Curves, read_records
from gpt_edge.training.pretrain.run import train

MakeRecipe = Callable[..., Path]


def record(step: int) -> dict[str, Any]:
    return {
        "step": step, "train_loss": 3.0 / step, "validation_loss": 4.0 / step, "bits_per_byte": 1.0,
        "learning_rate": 0.1, "tokens_per_second": 5.0, "is_best": True,
    }  # fmt: skip


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    found = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return found(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    import_module = importlib.import_module
    monkeypatch.setattr(
        importlib,
        "import_module",
        lambda name: refuse(name) if name.split(".")[0] == package else import_module(name),
    )


def test_a_resumed_run_forgets_what_it_does_again_and_half_a_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(record(n)) + "\n" for n in (1, 2, 3)) + '{"step": 4, "tr'
    )
    curves = Curves(tmp_path, 2, False)
    curves.add(record(3))
    curves.close()
    assert [found["step"] for found in read_records(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_the_losses_become_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = Curves(tmp_path, 0, False)
    for step in (1, 2, 3):
        curves.add(record(step))
    said: list[str] = []
    path = curves.draw(said.append)
    assert path == tmp_path / "loss.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not said


def test_without_matplotlib_one_line_says_so_and_training_goes_on(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "matplotlib")
    result = train(make_recipe(steps=3))
    assert (
        capsys.readouterr().err.count("matplotlib is not installed (pip install 'gpt-edge[plot]')")
        == 1
    )
    assert result.checkpoint.is_dir()
    assert not (result.checkpoint.parent / "loss.png").exists()


def test_a_run_draws_its_losses_unless_it_should_not(make_recipe: MakeRecipe) -> None:
    pytest.importorskip("matplotlib")
    result = train(make_recipe(steps=3), progress=False)
    assert (result.checkpoint.parent / "loss.png").exists()
    result = train(make_recipe("plain", steps=3), progress=False, changes=["output.plot=false"])
    assert not (result.checkpoint.parent / "loss.png").exists()


def test_tensorboard_gets_the_figures(make_recipe: MakeRecipe) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_recipe(steps=6)
    result = train(recipe, progress=False, changes=["output.tensorboard=true"])
    train(
        recipe, resume=True, progress=False, changes=["output.tensorboard=true", "training.steps=6"]
    )
    found = EventAccumulator(str(result.checkpoint.parent / "tensorboard"))
    found.Reload()
    wanted = [
        record["validation_loss"]
        for record in read_records(result.checkpoint.parent / "metrics.jsonl")
    ]
    assert [event.value for event in found.Scalars("validation_loss")] == pytest.approx(wanted)
    assert {"train_loss", "bits_per_byte", "learning_rate", "tokens_per_second"} <= set(
        found.Tags()["scalars"]
    )


def test_without_tensorboard_a_recipe_that_wants_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "tensorboard")
    with pytest.raises(
        MissingDependencyError, match="'tensorboard', which is not installed"
    ) as caught:
        Curves(tmp_path, 0, True)
    assert caught.value.hint == "pip install 'gpt-edge[tensorboard]'"
