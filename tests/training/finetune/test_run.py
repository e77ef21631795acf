"""`finetune` from files to a checkpoint: what it writes and says, resuming, best epochs,
forgetting, and what it refuses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpt_edge.config import GPTConfig
from gpt_edge.data.examples import Columns
from gpt_edge.errors import (
    CheckpointError,
    GPTEdgeError,
    MissingDependencyError,
    NumericError,
    OutputError,
    TokenizerError,
    TrainingError,
)
from gpt_edge.evaluate import classification_metrics
from gpt_edge.evaluate.temperature import fit_temperature
from gpt_edge.reference.checkpoint import (
    load_task_model,
    load_trained_adapter,
    read_checkpoint_config,
    save_checkpoint,
)
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.reference.trained_adapter import base_hash
from gpt_edge.tasks import KINDS, n_text_rows
from gpt_edge.tokenizer.discover import find_tokenizer
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.training.finetune import run as module
from gpt_edge.training.finetune.confusion_plot import draw_confusion
from gpt_edge.training.finetune.inputs import open_inputs
from gpt_edge.training.finetune.results import FinetuneResult
from gpt_edge.training.finetune.run import finetune
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings
from gpt_edge.training.finetune.trainer import Finetuner, predict
from gpt_edge.training.run_folder import hold_run_folder
from gpt_edge.training.run_state import load_state, save_state
from tests.support.finetune_factory import CONFIG, make_checkpoint, settings, write_examples
from tests.support.warm_process import PATIENCE, WarmProcess


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    """A quarter of a second for each set of figures, which are tests/unit/evaluate's subject."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification_metrics, "N_RESAMPLES", 50)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, two layers of width 32."""
    return make_checkpoint(tmp_path_factory.mktemp("source") / "tiny")


def files(folder: Path, kind: str = "classification", n: int = 48, **changes: Any) -> FinetuneData:
    """Train and dev examples of a kind."""
    suffix = "jsonl" if kind == "multiple-choice" else "tsv"
    train = write_examples(folder / f"train.{suffix}", kind, n)
    return FinetuneData(
        **{
            "train": train,
            "dev": write_examples(folder / f"dev.{suffix}", kind, 20, seed=7),
            **changes,
        }
    )


def run(
    checkpoint: Path, out: Path, data: FinetuneData, wanted: FinetuneSettings, **more: Any
) -> FinetuneResult:
    return finetune(checkpoint, out, data, wanted, progress=False, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_a_checkpoint_and_figures(
    checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    data = files(tmp_path, kind)
    wanted = settings(kind, score_range=(0, 4) if kind == "similarity" else None)
    result = run(checkpoint, tmp_path / "out", data, wanted)
    model = load_task_model(result.checkpoint)
    assert model.spec == result.spec
    assert (model.spec.start, model.config.vocab_size) == (257, 260)
    assert (tmp_path / "out" / "checkpoint" / "tokenizer.tiktoken").is_file()
    names = {
        "similarity": ["pearson", "spearman", "root_mean_squared_error"],
        "multiple-choice": ["accuracy"],
    }
    assert list(result.sets["dev"].metrics) == names.get(kind, ["accuracy", "macro_f1", "matthews"])
    records = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [6, 12]
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["dev"]["n_examples"] == 20
    assert written["data"]["train"]["n_examples"] == 48
    temperature = None if kind == "similarity" else written["dev"]["calibration"]["temperature"]
    assert model.spec.temperature == temperature
    assert ("confusion" in written["dev"]) == (kind in ("classification", "entailment"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint", "metrics.jsonl", "results.json", "state.safetensors",
    }  # fmt: skip


def test_a_run_learns_and_dev_figures_say_so(checkpoint: Path, tmp_path: Path) -> None:
    data = files(tmp_path, n=120)
    result = run(checkpoint, tmp_path / "out", data, settings(epochs=8, lm_weight=0.0))
    estimate = result.sets["dev"].metrics["accuracy"]
    assert estimate.value > 0.9
    assert estimate.low < estimate.value <= estimate.high
    assert result.sets["dev"].confusion is not None
    assert result.sets["dev"].confusion.sum() == 20


def test_the_kept_weights_are_those_of_the_best_epoch(checkpoint: Path, tmp_path: Path) -> None:
    data = files(tmp_path, n=60)
    result = run(checkpoint, tmp_path / "out", data, settings(epochs=5, learning_rate=2e-2))
    records = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    best = max(records, key=lambda record: (record["dev_accuracy"], -record["dev_loss"]))
    assert result.best_epoch == best["epoch"]
    assert [record["epoch"] for record in records if record["is_best"]][-1] == best["epoch"]
    assert result.sets["dev"].metrics["accuracy"].value == best["dev_accuracy"]
    assert result.sets["dev"].loss == pytest.approx(best["dev_loss"], rel=1e-5)


def test_the_temperature_is_that_of_the_best_epochs_logits_on_dev(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = files(tmp_path, n=60)
    result = run(checkpoint, tmp_path / "out", dataclasses.replace(data, test=data.dev), settings())
    source = open_inputs(result.checkpoint, data, settings())
    assert source.spec.temperature is None  # a fine-tuning from it starts without
    assert source.dev is not None
    logits = predict(load_task_model(result.checkpoint), source.dev, 4096).logits
    assert result.spec.temperature == fit_temperature(logits, source.dev.labels)
    assert result.sets["dev"].calibration == result.sets["test"].calibration
    described = read_checkpoint_config(result.checkpoint)
    assert result.sets["dev"].calibration is not None
    assert described["training"]["calibration"] == result.sets["dev"].calibration.to_dict()
    assert described["training"]["finetune"]["epoch"] == result.best_epoch


def write_sets(path: Path, n: int, seed: int) -> Path:
    """Texts with any of two labels, or none, as a table."""
    draw = random.Random(seed)
    rows = ["text\tlabel"]
    for _ in range(n):
        labels = [label for label in ("cat", "dog") if draw.random() < 0.5]
        rows.append(f"a {' '.join(labels) or 'sea'}\t{'; '.join(labels)}")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_several_labels_are_learned_with_a_threshold_each(checkpoint: Path, tmp_path: Path) -> None:
    data = FinetuneData(
        train=write_sets(tmp_path / "train.tsv", 80, 1),
        dev=write_sets(tmp_path / "dev.tsv", 30, 2),
        test=write_sets(tmp_path / "test.tsv", 30, 3),
        columns=Columns(("text",), separator=";"),
    )
    wanted = settings(epochs=8, lm_weight=0.0, multi_label=True, class_weights="balanced")
    result = run(checkpoint, tmp_path / "out", data, wanted)
    task = load_task_model(result.checkpoint).spec
    assert task == result.spec
    assert (task.labels, task.problem, len(task.thresholds)) == (("cat", "dog"), "multi-label", 2)
    assert list(result.sets["test"].metrics) == ["micro_f1", "macro_f1", "exact_match"]
    assert result.sets["test"].metrics["exact_match"].value > 0.8  # a quarter by chance
    assert result.data["balance"].keys() == {"cat", "dog"}
    record = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["dev_micro_f1"] <= 1
    held = dataclasses.replace(data, dev=None, hold_out=0.2)
    split = run(checkpoint, tmp_path / "held", held, settings(epochs=1, multi_label=True))
    assert split.data["dev"]["n_examples"] == 16
    with pytest.raises(ValueError, match="confusion of classes"):
        run(checkpoint, tmp_path / "plot", data, wanted, plot=True)
    with pytest.raises(ValueError, match="multi_label is for classification only"):
        settings("entailment", multi_label=True)
    with pytest.raises(ValueError, match="class_weights are for classes"):
        settings("multiple-choice", class_weights="balanced")


def test_an_embedding_learns_from_pairs(checkpoint: Path, tmp_path: Path) -> None:
    words = [a + b for a in ("cat", "dog", "sun", "tea", "car") for b in "abcdefgh"]
    for name, chosen in (("train", words[:32]), ("dev", words[32:])):
        rows = [f"a {word} here\tthe {word}" for word in chosen]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["left\tright", *rows]) + "\n")
    data = FinetuneData(
        train=tmp_path / "train.tsv",
        dev=tmp_path / "dev.tsv",
        columns=Columns(("left", "right"), has_label=False),
    )
    wanted = settings("embedding", epochs=4, dimensions=16, lm_weight=0.0)
    result = run(checkpoint, tmp_path / "out", data, wanted)
    assert load_task_model(result.checkpoint).spec == result.spec
    assert (result.spec.kind, result.spec.dimensions) == ("embedding", 16)
    assert result.sets["dev"].metrics["retrieval"].value > 0.5  # an eighth by chance
    assert result.data["balance"] == {}
    record = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["dev_retrieval"] <= 1
    with pytest.raises(ValueError, match="dimensions are for embedding only"):
        settings(dimensions=4)
    with pytest.raises(ValueError, match="give 2 or more"):
        settings("embedding", batch=1)
    with pytest.raises(TrainingError, match="there is no column 'sentence1'"):
        run(checkpoint, tmp_path / "x", dataclasses.replace(data, columns=None), wanted)


def test_patience_stops_a_run_that_gets_no_better(checkpoint: Path, tmp_path: Path) -> None:
    data = files(tmp_path)
    result = run(
        checkpoint, tmp_path / "out", data, settings(epochs=30, learning_rate=1e-9, patience=2)
    )
    assert result.epochs == result.best_epoch + 2 < 30


def test_without_dev_the_last_epoch_is_kept_and_a_share_can_be_held_out(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = files(tmp_path, dev=None)
    result = run(checkpoint, tmp_path / "out", data, settings())
    assert (result.best_epoch, dict(result.sets), result.spec.temperature) == (2, {}, None)
    held = run(checkpoint, tmp_path / "held", dataclasses.replace(data, hold_out=0.25), settings())
    assert (held.data["train"]["n_examples"], held.data["dev"]["n_examples"]) == (36, 12)
    with pytest.raises(ValueError, match="either dev or hold_out"):
        dataclasses.replace(data, dev=data.train, hold_out=0.25)


@pytest.mark.parametrize(
    "change", [{}, {"lora_rank": 2}, {"precision": "bfloat16"}, {"token_noise": 0.2}]
)
def test_a_run_cut_off_between_epochs_resumes_bit_for_bit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    data, wanted = files(tmp_path), settings(epochs=3, **change)
    whole = run(checkpoint, tmp_path / "whole", data, wanted)
    step, n_steps = Finetuner.step, 0

    def cut_off(self: Finetuner, *arguments: Any) -> float:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 9:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Finetuner, "step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, tmp_path / "cut", data, wanted)
    monkeypatch.setattr(Finetuner, "step", step)
    resumed = run(checkpoint, tmp_path / "cut", data, wanted, resume=True)
    assert (resumed.epochs, resumed.best_epoch, resumed.steps) == (
        whole.epochs,
        whole.best_epoch,
        whole.steps,
    )
    for name in ("checkpoint/model.safetensors", "checkpoint/config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [
        [
            json.loads(line)["train_loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_another_seed_gives_other_weights_and_the_same_the_same(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = files(tmp_path)
    content = [
        run(checkpoint, tmp_path / str(i), data, settings(seed=seed))
        .checkpoint.joinpath("model.safetensors")
        .read_bytes()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert content[0] == content[1] != content[2]


def test_a_run_is_resumed_with_its_own_settings_alone(checkpoint: Path, tmp_path: Path) -> None:
    data, out = files(tmp_path), tmp_path / "out"
    with pytest.raises(TrainingError, match="there is no run to resume"):
        run(checkpoint, out, data, settings(), resume=True)
    run(checkpoint, out, data, settings())
    with pytest.raises(TrainingError, match="is not empty"):
        run(checkpoint, out, data, settings())
    with pytest.raises(TrainingError, match=r"lm_weight is 0\.0, the run to resume in .* has 0\.5"):
        run(checkpoint, out, data, settings(lm_weight=0.0), resume=True)
    write_examples(data.train, "classification", 48, seed=3)
    with pytest.raises(TrainingError, match=r"train is '.*', the run to resume"):
        run(checkpoint, out, data, settings(), resume=True)


def test_a_run_is_resumed_with_its_own_weights_and_words_alone(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, out = files(tmp_path), tmp_path / "out"
    run(checkpoint, out, data, settings(epochs=1))
    other = tmp_path / "other.tiktoken"
    other.write_bytes(format_ranks([bytes([value]) for value in reversed(range(256))]))
    with pytest.raises(TrainingError, match=r"tokenizer is '[0-9a-f]{64}', the run to resume"):
        run(checkpoint, out, data, settings(epochs=1), resume=True, tokenizer=str(other))
    changed = make_checkpoint(
        tmp_path / "changed", GPTConfig(n_layer=1, n_head=2, n_embd=32, n_ctx=48, vocab_size=257)
    )
    with pytest.raises(TrainingError, match=r"weights is '[0-9a-f]{64}', the run to resume"):
        run(changed, out, data, settings(epochs=1), resume=True)
    # where the same weights lie does not matter
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    assert run(moved, out, data, settings(epochs=1), resume=True).epochs == 1


def test_a_run_of_an_earlier_version_goes_on_and_a_pretraining_does_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, out = files(tmp_path), tmp_path / "out"
    run(checkpoint, out, data, settings(epochs=1))
    state = load_state(out / "state.safetensors")
    for name in ("token_noise", "tokenizer", "weights", "format"):
        del state.recipe[name]
    save_state(out / "state.safetensors", state)
    assert run(checkpoint, out, data, settings(epochs=1), resume=True).epochs == 1
    save_state(out / "state.safetensors", dataclasses.replace(state, progress={"trainer": {}}))
    with pytest.raises(TrainingError, match="holds a pretraining"):
        run(checkpoint, out, data, settings(epochs=1), resume=True)


def test_what_a_run_left_that_was_killed_before_its_first_state_is_no_obstacle(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".state.safetensors.lock", ".state.safetensors.tmp-123-0123abcd"):
        (out / name).touch()
    run(checkpoint, out, files(tmp_path), settings(epochs=1))
    assert not list(out.glob(".state*"))


def test_one_folder_has_one_run_by_whichever_link(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    data = files(tmp_path)
    with (
        hold_run_folder(tmp_path / "out", False, "--out"),
        pytest.raises(OutputError, match="is busy"),
    ):
        run(checkpoint, tmp_path / "link", data, settings(epochs=1))


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from gpt_edge.training.finetune.run import finetune
from gpt_edge.training.finetune.settings import FinetuneData
from gpt_edge.training.finetune.trainer import Finetuner
from tests.support.finetune_factory import settings

step, n_before = Finetuner.step, int(sys.argv[4])

def step_with_a_bomb(*arguments):
    global n_before
    n_before -= 1
    if n_before < 0:
        Finetuner.step = step
        threading.Timer(float(sys.argv[5]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    return step(*arguments)

Finetuner.step = step_with_a_bomb
folder = Path(sys.argv[2])
data = FinetuneData(train=folder / "train.tsv", dev=folder / "dev.tsv")
finetune(Path(sys.argv[1]), Path(sys.argv[3]), data, settings(epochs=int(sys.argv[6])),
         resume=sys.argv[7] == "resume", progress=False)
"""


@pytest.mark.parametrize("n_kills", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_whole_files_and_resumes_to_the_same_bits(
    checkpoint: Path, tmp_path: Path, n_kills: int
) -> None:
    data, out, epochs = files(tmp_path), tmp_path / "killed", 4 + 3 * n_kills
    n_hit = 0
    for i in range(n_kills):
        # six steps an epoch; a step takes 5 ms, a save as much
        n_steps, delay = (9 + i * 7) % 17, 0.003 * (i * 5 % 7)
        start = "resume" if (out / "state.safetensors").exists() else "start"
        arguments = [checkpoint, tmp_path, out, n_steps, delay, epochs, start]
        process = WarmProcess(KILLED, *map(str, arguments))
        process.communicate(PATIENCE)
        n_hit += process.returncode == -signal.SIGKILL
        load_state(out / "state.safetensors")  # complete, whenever it was killed
        if (out / "checkpoint").exists():
            load_task_model(out / "checkpoint")
    assert n_hit == n_kills
    resumed = run(checkpoint, out, data, settings(epochs=epochs), resume=True)
    straight = run(checkpoint, tmp_path / "straight", data, settings(epochs=epochs))
    assert (resumed.epochs, resumed.best_epoch) == (straight.epochs, straight.best_epoch)
    names = ["checkpoint/model.safetensors", "state.safetensors"]
    tensors = [
        [load_file(folder / name) for name in names] for folder in (out, tmp_path / "straight")
    ]
    for one, other in zip(*tensors, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_forgetting_is_measured_on_the_vocabulary_of_before(
    checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat<|endoftext|>a dog ran")
    data = files(tmp_path, forgetting_text=text)
    result = run(checkpoint, tmp_path / "out", data, settings(learning_rate=1e-2, lm_weight=0.0))
    assert result.forgetting is not None
    before, after = result.forgetting
    assert math.exp(before.loss) == pytest.approx(257, rel=0.1)  # a random model's
    assert before.n_tokens == after.n_tokens == len("the cat sat") + len("a dog ran") + 2
    with torch.no_grad():
        gpt = open_checkpoint(checkpoint).load_model()
        losses = [
            torch.nn.functional.cross_entropy(
                gpt(torch.tensor([ids]))[0][0, :-1], torch.tensor(ids[1:]), reduction="sum"
            )
            for ids in ([256, *b"the cat sat", 256], [256, *b"a dog ran", 256])
        ]
    assert before.loss == pytest.approx(float(sum(losses)) / before.n_tokens, rel=1e-5)
    assert after.loss != before.loss
    values = result.to_dict()["forgetting"]
    assert values["perplexity_after"] == pytest.approx(math.exp(after.loss))


def test_from_scratch_forgets_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    data = files(tmp_path)
    slow = settings(learning_rate=1e-9, weight_decay=0.0)
    results = {}
    for name, scratch in (("kept", False), ("scratch", True)):
        wanted = dataclasses.replace(slow, from_scratch=scratch)
        results[name] = load_task_model(
            run(checkpoint, tmp_path / name, data, wanted).checkpoint
        ).gpt.wte.weight[:257]
    source = open_checkpoint(checkpoint).load_model().wte.weight
    torch.testing.assert_close(results["kept"], source, atol=1e-6, rtol=0)
    assert (results["scratch"] - source).abs().mean().item() > 0.01


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=48, vocab_size=257, norm="post"),
        GPTConfig(
            n_layer=2,
            n_head=2,
            n_embd=32,
            n_ctx=48,
            vocab_size=257,
            attention=("dense", "banded"),
            window=8,
        ),
        GPTConfig(n_layer=1, n_head=2, n_embd=32, n_ctx=48, vocab_size=272, tied_embeddings=False),
    ],
    ids=["gpt1", "gpt3", "padded and untied"],
)
def test_other_shapes_can_be_tuned(tmp_path: Path, config: GPTConfig) -> None:
    source = make_checkpoint(tmp_path / "source", config)
    result = run(source, tmp_path / "out", files(tmp_path), settings(epochs=1))
    model = load_task_model(result.checkpoint)
    assert model.spec.start == config.vocab_size
    assert model.gpt.config == dataclasses.replace(config, vocab_size=config.vocab_size + 3)


def test_a_tuned_model_can_be_tuned_again_and_keeps_its_tokens(
    checkpoint: Path, tmp_path: Path
) -> None:
    first = run(
        checkpoint,
        tmp_path / "first",
        files(tmp_path, "entailment"),
        settings("entailment", epochs=1),
    )
    again = run(first.checkpoint, tmp_path / "again", files(tmp_path), settings(epochs=1))
    assert (again.spec.start, again.spec.delimiter, again.spec.extract) == (257, 258, 259)
    assert again.spec.labels == ("no", "yes")
    assert load_task_model(again.checkpoint).config.vocab_size == 260


def test_a_tokenizer_longer_than_the_embedding_tunes_and_its_rest_is_no_text(
    tmp_path: Path,
) -> None:
    """The task's tokens take ids that the tokenizer has too: its end token has no row."""
    config = dataclasses.replace(CONFIG, vocab_size=256)
    source = make_checkpoint(tmp_path / "source", config)
    with pytest.warns(match=r"the last 1, such as '<\|endoftext\|>', can be neither read"):
        first = run(source, tmp_path / "first", files(tmp_path), settings(epochs=1))
    assert first.spec.tokens == (256, 257, 258)
    kept = find_tokenizer(first.checkpoint)
    assert kept is not None
    assert kept.spec.end_token is None
    again = run(first.checkpoint, tmp_path / "again", files(tmp_path), settings(epochs=1))
    assert again.spec.tokens == (256, 257, 258)
    assert n_text_rows(259, first.spec) == 256
    assert n_text_rows(300, first.spec) == 300
    assert n_text_rows(259, None) == 259


def test_a_loss_that_is_no_number_keeps_the_best_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Finetuner.step

    def poison(self: Finetuner, data: Any, rows: Any) -> float:
        if self.n_steps_done == 7:
            with torch.no_grad():
                self.model.task_head.weight.fill_(math.nan)
        return step(self, data, rows)

    monkeypatch.setattr(Finetuner, "step", poison)
    with pytest.raises(NumericError, match="step 8"):
        run(checkpoint, tmp_path / "out", files(tmp_path), settings())
    assert bool(
        torch.isfinite(load_task_model(tmp_path / "out" / "checkpoint").task_head.weight).all()
    )


def test_what_cannot_be_tuned_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, out = files(tmp_path), tmp_path / "out"
    one_class = tmp_path / "one.tsv"
    one_class.write_text("text\tlabel\na\tx\nb\tx\n")
    strange = tmp_path / "strange.tsv"
    strange.write_text("text\tlabel\na\tyes\nb\tmaybe\n")
    bare = tmp_path / "bare"
    save_checkpoint(
        bare, GPTConfig(1, 2, 8, 16, 257), GPT(GPTConfig(1, 2, 8, 16, 257)).state_dict(), None, {}
    )
    small = make_checkpoint(tmp_path / "small", GPTConfig(1, 2, 8, 2, 257))
    cases: list[tuple[Path, FinetuneData, type[GPTEdgeError], str]] = [
        (tmp_path / "none", data, CheckpointError, "no such file"),
        (bare, data, TokenizerError, "has no tokenizer beside it"),
        (
            checkpoint,
            dataclasses.replace(data, train=one_class),
            TrainingError,
            "every example has the label 'x'",
        ),
        (
            checkpoint,
            dataclasses.replace(data, dev=strange),
            TrainingError,
            "strange.tsv, line 3: label 'maybe'",
        ),
        (
            checkpoint,
            dataclasses.replace(data, forgetting_text=tmp_path / "no.txt"),
            TrainingError,
            "cannot read",
        ),
        (
            small,
            data,
            TrainingError,
            r"train.tsv, line 2: classification wants n_ctx of at least 3, got 2",
        ),
    ]
    for source, given, kind, message in cases:
        with pytest.raises(kind, match=message):
            run(source, out, given, settings())
        assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "chat"}, "task must be one of"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"token_noise": -0.1}, "token_noise must be from 0 to below 1"),
        ({"lm_weight": math.nan}, "lm_weight must be"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"lora_rank": -1}, "lora_rank must be at least 0"),
        ({"score_range": (0.0, 5.0)}, "is for similarity"),
        (
            {"kind": "similarity", "score_range": (5.0, 0.0)},
            "two finite numbers, the lower one first, got 5 0",
        ),
        ({"kind": "similarity", "score_range": (math.nan, 5.0)}, "got nan 5"),
        ({"threads": 100_000}, "threads must be a whole number from 1 to 256"),
        ({"lora_alpha": 4.0}, "lora_alpha needs a lora_rank"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_the_confusion_matrix_is_drawn(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = files(tmp_path)
    run(
        checkpoint,
        tmp_path / "out",
        dataclasses.replace(data, test=data.dev),
        settings(epochs=1),
        plot=True,
    )
    content = (tmp_path / "out" / "confusion.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert width == height >= 500


def test_a_plot_of_no_classes_is_refused_first(checkpoint: Path, tmp_path: Path) -> None:
    cases = [
        (files(tmp_path, "multiple-choice"), settings("multiple-choice"), "this task has none"),
        (
            files(tmp_path, "similarity"),
            settings("similarity", score_range=(0, 4)),
            "this task has none",
        ),
        (files(tmp_path, dev=None), settings(), "give dev, hold_out or test"),
    ]
    for data, wanted, message in cases:
        with pytest.raises(ValueError, match=message):
            run(checkpoint, tmp_path / "out", data, wanted, plot=True)
    with pytest.raises(
        ValueError, match="LoRA rank must be from 0 to the model's width 32, got 33"
    ):
        run(checkpoint, tmp_path / "out", files(tmp_path), settings(lora_rank=33))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", [0, 2])
def test_lora_leaves_an_adapter_beside_the_merged_weights(
    checkpoint: Path, tmp_path: Path, rank: int
) -> None:
    wanted = settings(lora_rank=rank, learning_rate=1e-2, epochs=1)
    out = run(checkpoint, tmp_path / "out", files(tmp_path), wanted).checkpoint
    found = load_trained_adapter(out)
    base, merged = open_checkpoint(checkpoint), open_checkpoint(out)
    assert found.rank == rank
    assert found.base_hash == base_hash(base.config, base.tensor, 257)
    for name in base.names():
        weight = base.tensor(name)
        if f"{name.removesuffix('.weight')}.lora_a" in found.arrays:
            module = name.removesuffix(".weight")
            delta = found.arrays[f"{module}.lora_a"] @ found.arrays[f"{module}.lora_b"]
            assert abs(delta).max() > 0
            weight = weight + delta.T
        elif name == "wte.weight":
            weight = np.concatenate([weight, found.arrays["wte.task_tokens"]])
        np.testing.assert_allclose(merged.tensor(name), weight, atol=1e-6)
    assert len(found.arrays) == 1 + (2 * 4 * 2 if rank else 0)
    run(checkpoint, tmp_path / "whole", files(tmp_path), settings(epochs=1))
    with pytest.raises(CheckpointError, match="holds no adapter: it was fine-tuned as a whole"):
        load_trained_adapter(tmp_path / "whole" / "checkpoint")


def test_labels_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_confusion(np.eye(3, dtype=np.int64), ["$x_{", "a$b", "$$"], "dev set", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_a_plot_without_matplotlib_is_refused_first(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str, extra: str | None = None) -> None:
        raise MissingDependencyError(
            f"this needs {package}", hint=f"pip install 'gpt-edge[{extra}]'"
        )

    monkeypatch.setattr(module, "require", missing)
    with pytest.raises(MissingDependencyError, match="matplotlib"):
        run(checkpoint, tmp_path / "out", files(tmp_path), settings(), plot=True)
    assert not (tmp_path / "out").exists()


def test_labels_as_classes_of_similarity(checkpoint: Path, tmp_path: Path) -> None:
    data = files(tmp_path, "similarity")
    columns = dataclasses.replace(data.columns_for(settings("similarity")), label="score")
    result = run(
        checkpoint,
        tmp_path / "out",
        dataclasses.replace(data, columns=columns),
        settings("similarity", epochs=1),
    )
    assert result.spec.labels == ("0", "2", "4")
    assert np.array(result.to_dict(with_confusion=True)["dev"]["confusion"]).shape == (3, 3)
