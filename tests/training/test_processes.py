"""One process and two: the same losses, the same run. The processes are real ones, started as
torchrun starts them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_edge.errors import TrainingError
from gpt_edge.reference.checkpoint import load_checkpoint, read_checkpoint_config
from gpt_edge.training.pretrain.run import train
from gpt_edge.training.pretrain.trainer import Trainer
from gpt_edge.training.processes import Processes, gather_to_cpu, join_processes, sharded_like
from gpt_edge.training.recipe import read_recipe
from gpt_edge.training.run_state import load_state
from tests.support.warm_process import PATIENCE, WarmProcess

MakeRecipe = Callable[..., Path]
FAST = {"steps": 8, "every_steps": 4, "long_rows_from": 5, "dropout": 0.0}

KILLED_AFTER = """
import os, signal, sys
from gpt_edge.cli import main
from gpt_edge.training.pretrain.trainer import Trainer

step = Trainer.step

def step_or_die(trainer):
    if trainer.n_steps_done == int(os.environ.get("DIE_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer)

Trainer.step = step_or_die
sys.exit(main(sys.argv[1:]))
"""


def start(n: int, *arguments: str, **extra: str) -> list[subprocess.CompletedProcess[str]]:
    """Run `gpt-edge train` in `n` processes with what torchrun sets, and wait for all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(n):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
        place = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        processes.append(
            WarmProcess(
                KILLED_AFTER, "train", *arguments, env={**os.environ, **ranks, **place, **extra}
            )
        )
    found = []
    for process in processes:
        out, err = process.communicate(PATIENCE)
        assert process.returncode is not None
        found.append(subprocess.CompletedProcess(arguments, process.returncode, out, err))
        if process.returncode:  # as torchrun: one that fails ends all
            for other in processes:
                other.kill()
    return found


def folder_of(recipe: Path) -> Path:
    return recipe.parent / "runs" / recipe.stem


def losses(recipe: Path) -> list[tuple[float, float]]:
    lines = (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()
    return [(json.loads(line)["train_loss"], json.loads(line)["validation_loss"]) for line in lines]


def assert_same_run(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    assert len(losses(one)) == 2
    for mine, theirs in zip(losses(one), losses(other), strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance)
    first, second = (
        read_checkpoint_config(folder_of(recipe) / "checkpoint")["training"]
        for recipe in (one, other)
    )
    assert first["validation"]["validation_loss"] == pytest.approx(
        second["validation"]["validation_loss"], abs=tolerance
    )
    assert first["steps_done"] == second["steps_done"]


@pytest.mark.every_core
def test_two_processes_learn_what_one_does(make_recipe: MakeRecipe) -> None:
    alone, together = (
        make_recipe("alone", **FAST),
        make_recipe("together", **FAST, micro_batch_tokens=64),
    )
    train(alone, progress=False)
    found = start(2, str(together), "--json")
    assert [process.returncode for process in found] == [0, 0], found[0].stderr + found[1].stderr
    assert_same_run(alone, together)
    result = json.loads(found[0].stdout)
    assert result["steps"] == 8
    assert found[1].stdout == ""
    assert found[1].stderr == ""


@pytest.mark.every_core
@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_killed_run_of_two_processes_resumes_to_the_same_losses(
    make_recipe: MakeRecipe, parallel: str
) -> None:
    common: dict[str, Any] = {**FAST, "parallel": parallel, "ema": 0.9}
    alone, together = make_recipe("alone", **common), make_recipe("together", **common)
    train(alone, progress=False)
    broken = start(2, str(together), DIE_AT="6")
    assert -signal.SIGKILL in [process.returncode for process in broken]
    assert load_state(folder_of(together) / "state.safetensors").progress["trainer"]["step"] == 4
    found = start(2, str(together), "--resume")
    assert [process.returncode for process in found] == [0, 0], found[0].stderr + found[1].stderr
    assert_same_run(alone, together)
    one, two = (load_state(folder_of(recipe) / "state.safetensors") for recipe in (alone, together))
    for part in ("model", "optimizer", "ema"):
        mine, theirs = getattr(one, part), getattr(two, part)
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_run_may_go_on_with_another_number_of_processes(make_recipe: MakeRecipe) -> None:
    alone, changing = make_recipe("alone", **FAST), make_recipe("changing", **FAST)
    train(alone, progress=False)
    start(2, str(changing), DIE_AT="6")
    train(changing, resume=True, progress=False)
    assert_same_run(alone, changing)


@pytest.mark.slow
def test_two_processes_drop_different_things_and_resume_alike(make_recipe: MakeRecipe) -> None:
    straight, broken = (
        make_recipe("straight", **{**FAST, "dropout": 0.2}),
        make_recipe("broken", **{**FAST, "dropout": 0.2}),
    )
    start(2, str(straight))
    start(2, str(broken), DIE_AT="6")
    start(2, str(broken), "--resume")
    assert losses(straight)[1][1] == pytest.approx(losses(broken)[1][1], abs=1e-5)
    random = load_state(folder_of(straight) / "state.safetensors").random
    assert random.shape[0] == 2
    assert not torch.equal(random[0], random[1])
    assert load_checkpoint(folder_of(broken) / "checkpoint").config.n_layer == 2


def test_rows_that_cannot_be_shared_are_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(TrainingError, match="expected a number of rows that 3 processes can share"):
        Trainer(read_recipe(make_recipe()), [], Processes(0, 3))


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with (
        pytest.raises(TrainingError, match='device is "cuda", but torch finds no GPU'),
        join_processes("cuda"),
    ):
        pass
    with join_processes("auto") as processes:
        assert processes == Processes()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(TrainingError, match="process 2 of this machine has no GPU: there are 2"),
        join_processes("auto"),
    ):
        pass
    with join_processes("cpu") as processes:
        assert processes.device.type == "cpu"


def test_one_process_sums_and_gathers_its_own() -> None:
    alone = Processes()
    assert alone.sum([1.5, 2]) == [1.5, 2]
    tensor = torch.arange(3.0)
    assert alone.gather(tensor) is tensor
    assert alone.first_then_others(lambda: 3) == 3
    assert torch.equal(gather_to_cpu(tensor), tensor)
    assert torch.equal(sharded_like(tensor, torch.zeros(3)), tensor)
