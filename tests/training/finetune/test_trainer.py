"""Heads and fine-tuner against slow, obvious versions of the paper's equations."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt_edge.config import GPTConfig
from gpt_edge.data.examples import default_columns, read_examples
from gpt_edge.data.labels import class_numbers
from gpt_edge.errors import CheckpointError, NumericError
from gpt_edge.reference.checkpoint import load_checkpoint, load_task_model, save_checkpoint
from gpt_edge.reference.heads import (
    TaskModel,
    by_example,
    pad,
    with_task_tokens,
    without_task_tokens,
)
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.tasks import KINDS, TaskSpec, new_task
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.training.finetune.batches import EncodedExamples, encode
from gpt_edge.training.finetune.lora import LoRALinear, add_lora, merged_tensors
from gpt_edge.training.finetune.trainer import Finetuner, balanced_weights, predict, rate_factor
from tests.support.finetune_factory import CONFIG, byte_tokenizer, settings, write_examples

LABELS = {"classification": ("no", "yes"), "entailment": ("other", "same")}
NO_DROPOUT = {"dropout": 0.0, "clf_dropout": 0.0}


def task_of(kind: str) -> TaskSpec:
    return new_task(
        kind, CONFIG.vocab_size, LABELS.get(kind, ()), (0, 4) if kind == "similarity" else None
    )


def make(
    tmp_path: Path, kind: str, n: int = 24, config: GPTConfig = CONFIG
) -> tuple[TaskModel, EncodedExamples]:
    path = write_examples(
        tmp_path / f"{kind}.{'jsonl' if kind == 'multiple-choice' else 'tsv'}", kind, n
    )
    examples = read_examples(path, default_columns(kind, kind == "similarity"))
    spec = task_of(kind)
    labels = (
        class_numbers(path, examples, spec.labels)
        if spec.labels
        else [float(e.label) for e in examples]
    )
    torch.manual_seed(5)
    return TaskModel(with_task_tokens(GPT(config)), spec), encode(
        spec, build_tokenizer(byte_tokenizer()), examples, labels, config.n_ctx
    )


def obvious_loss(
    model: TaskModel,
    data: EncodedExamples,
    row: int,
    lm_weight: float,
    n_examples: int,
    n_sequences: int,
) -> torch.Tensor:
    """Equations 4 and 5 for one example, one unpadded sequence at a time."""
    states, lm = [], torch.zeros(())
    for sequence in data.sequences[row]:
        ids = torch.tensor([sequence])
        hidden, _ = model.gpt.hidden(ids)
        states.append(hidden[0, -1])
        lm = lm + F.cross_entropy(model.gpt(ids)[0][0, :-1], ids[0, 1:])
    head = model.task_head
    label = float(data.labels[row])
    match model.spec.kind:
        case "similarity":
            share = torch.sigmoid(head(states[0] + states[1]))[0]
            task = -(label / 4 * torch.log(share) + (1 - label / 4) * torch.log(1 - share))
        case "multiple-choice":
            task = -torch.log_softmax(torch.cat([head(state) for state in states]), 0)[int(label)]
        case _:
            task = -torch.log_softmax(head(states[0]), 0)[int(label)]
    return task / n_examples + lm_weight * lm / n_sequences


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradient_are_the_papers(tmp_path: Path, kind: str, norm: str) -> None:
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=48, vocab_size=257, norm=norm)
    model, data = make(tmp_path, kind, 6, config)
    slow = copy.deepcopy(model)
    rows = np.arange(6)
    n_sequences = sum(map(len, data.sequences))
    wanted = sum(obvious_loss(slow, data, row, 0.5, 6, n_sequences) for row in rows)
    assert isinstance(wanted, torch.Tensor)
    wanted.backward()
    trainer = Finetuner(
        model, settings(kind, clip_norm=1e9, batch_tokens=100, **NO_DROPOUT), n_steps=10
    )
    seen: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: seen.__setitem__(name, p.grad.clone())
        )
    assert trainer.step(data, rows) == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in slow.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(seen[name], parameter.grad, atol=2e-6, rtol=1e-4, msg=name)


def test_three_steps_are_those_of_adamw_with_rate_clipping_and_decay(tmp_path: Path) -> None:
    model, data = make(tmp_path, "classification", 12)
    slow = copy.deepcopy(model)
    changes = {"clip_norm": 0.05, "weight_decay": 0.5, "warmup": 0.5, "learning_rate": 1e-2}
    trainer = Finetuner(model, settings(**changes, **NO_DROPOUT), n_steps=4)
    moments = {
        name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in slow.named_parameters()
    }
    lengths = []
    for step, factor in enumerate((0.25, 0.75, 0.75)):
        rows = np.arange(12)[4 * step : 4 * step + 4]
        trainer.step(data, rows)
        slow.zero_grad()
        loss = sum(obvious_loss(slow, data, row, 0.5, 4, 4) for row in rows)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        lengths.append(
            torch.nn.utils.get_total_norm(
                [p.grad for p in slow.parameters() if p.grad is not None]
            ).item()
        )
        rate = 1e-2 * factor
        with torch.no_grad():
            for name, parameter in slow.named_parameters():
                assert parameter.grad is not None
                gradient = parameter.grad * (0.05 / lengths[-1])
                first, second = moments[name]
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient**2, 0.001)
                if parameter.dim() > 1:  # matrices and embeddings
                    parameter.mul_(1 - rate * 0.5)
                shares = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
                parameter.sub_(rate * shares[0] / (shares[1].sqrt() + 1e-8))
    assert min(lengths) > 0.5  # clipping acts
    for (name, one), other in zip(model.named_parameters(), slow.parameters(), strict=True):
        # Adam divides by the gradient's size: where that is next to nothing, so is what two ways of
        # adding agree on.
        off = ((one - other).abs() > 2e-4).float().mean().item()
        assert off < 0.01, name


def test_dropout_acts_where_it_is_set(tmp_path: Path) -> None:
    ids, states = torch.arange(40)[None], torch.ones(1000, 32)
    for name, changes in (
        ("gpt", {"dropout": 0.3, "clf_dropout": 0.0}),
        ("head", {"dropout": 0.0, "clf_dropout": 0.3}),
    ):
        model, _ = make(tmp_path, "classification")
        Finetuner(model, settings(**changes), n_steps=4)
        hidden = [model.gpt.hidden(ids)[0] for _ in range(2)]
        assert torch.equal(*hidden) == (name == "head")
        kept = model.clf_dropout(states)
        assert (kept == 0).float().mean().item() == pytest.approx(0.3 * (name == "head"), abs=0.02)


def test_noise_is_read_and_never_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = make(tmp_path, "classification", 40)
    slow, rows, read = copy.deepcopy(model), np.arange(40), []
    trainer = Finetuner(
        model, settings(token_noise=0.25, batch=40, batch_tokens=100_000, **NO_DROPOUT), n_steps=10
    )
    hidden = model.gpt.hidden

    def recorded(ids: torch.Tensor) -> object:
        read.append(ids.clone())
        return hidden(ids)

    monkeypatch.setattr(model.gpt, "hidden", recorded)
    loss = trainer.step(data, rows)
    part = next(data.parts(rows, 100_000))
    is_other, is_text = read[0] != part.ids, part.ids < CONFIG.vocab_size
    assert not is_other[~is_text].any()
    assert read[0][is_text].max() < CONFIG.vocab_size
    assert 0.2 < is_other[is_text].float().mean() < 0.3  # of some 500
    states, _ = slow.gpt.hidden(read[0])
    task = F.cross_entropy(slow.task_head(states[torch.arange(40), part.extract_at]), part.labels)
    lm = torch.zeros(())
    for row, end in enumerate(part.extract_at.tolist()):
        lm = lm + F.cross_entropy(slow.gpt.lm_head(states[row, :end]), part.ids[row, 1 : end + 1])
    assert loss == pytest.approx((task + 0.5 * lm / 40).item(), rel=1e-5)
    trainer.predict(data)
    assert len(read) > 1
    assert all(np.isin(ids, part.ids).all() for ids in read[1:])  # a tenth of the 257 tokens


def test_the_two_orders_of_a_similarity_give_one_answer(tmp_path: Path) -> None:
    model, _ = make(tmp_path, "similarity")
    one, other = (
        ((257, 1, 2, 258, 3, 259), (257, 3, 258, 1, 2, 259)),
        ((257, 3, 258, 1, 2, 259), (257, 1, 2, 258, 3, 259)),
    )
    model.eval()
    torch.testing.assert_close(model(*pad(one))[0], model(*pad(other))[0], atol=1e-6, rtol=0)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model, _ = make(tmp_path, "classification")
    model.eval()
    short, long = (257, 1, 2, 259), (257, *range(30), 259)
    together, lm = model(*pad([short, long]), with_lm=True)
    alone, lm_alone = model(*pad([short]), with_lm=True)
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(lm[:1, :4], lm_alone, atol=1e-5, rtol=0)


def test_scores_of_answers_are_grouped_by_example() -> None:
    found = by_example(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), [2, 3])
    assert found.tolist() == [[1.0, 2.0, -torch.inf], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("tied", [True, False])
def test_task_tokens_leave_the_language_model_as_it_was(tied: bool) -> None:
    config = GPTConfig(
        n_layer=1, n_head=2, n_embd=16, n_ctx=16, vocab_size=50, tied_embeddings=tied
    )
    gpt = GPT(config).eval()
    larger = with_task_tokens(gpt)
    ids = torch.arange(10)[None]
    assert larger.config.vocab_size == 53
    torch.testing.assert_close(larger(ids)[0][..., :50], gpt(ids)[0], atol=1e-6, rtol=0)
    back = without_task_tokens(larger, 50)
    assert back.config == config
    torch.testing.assert_close(back(ids)[0], gpt(ids)[0], atol=0, rtol=0)
    with pytest.raises(ValueError, match="with_task_tokens"):
        TaskModel(gpt, new_task("classification", 50, ("a", "b")))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    factors = [rate_factor(step, 1000, 0.002) for step in range(1000)]
    assert factors[:3] == pytest.approx([0.25, 0.75, (1 - 0.0025) / 0.998])
    assert factors[-1] == pytest.approx(0.0005 / 0.998)
    assert all(a > b > 0 for a, b in itertools.pairwise(factors[2:]))
    assert [rate_factor(step, 2, 0.0) for step in range(2)] == [0.75, 0.25]


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_epochs_learn_each_task(tmp_path: Path, kind: str) -> None:
    model, data = make(tmp_path, kind, 96)
    trainer = Finetuner(
        model, settings(kind, learning_rate=5e-3, lm_weight=0.0, **NO_DROPOUT), n_steps=160
    )
    before = trainer.predict(data)
    for step in range(160):
        trainer.step(data, np.arange(96).reshape(-1, 12)[step % 8])
    after = trainer.predict(data)
    if model.spec.is_score:  # the least loss of a share between 0 and 1 is its entropy
        assert np.corrcoef(after.outputs, data.labels)[0, 1] > 0.8
    else:
        assert after.loss < 0.5 * before.loss
        assert (after.outputs == data.labels).mean() > 0.9


def test_batch_parts_and_precision_do_not_change_what_is_predicted(tmp_path: Path) -> None:
    model, data = make(tmp_path, "multiple-choice")
    whole, parts = predict(model, data, 10_000), predict(model, data, 64)
    assert whole.outputs.tolist() == parts.outputs.tolist()
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)
    trainer = Finetuner(model, settings("multiple-choice", precision="bfloat16"), 10)
    assert trainer.predict(data).loss == pytest.approx(whole.loss, rel=0.05)
    assert np.isfinite(trainer.step(data, np.arange(8)))


def test_a_loss_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    model, data = make(tmp_path, "classification")
    with torch.no_grad():
        model.task_head.bias[0] = torch.inf
    before = model.gpt.wte.weight.detach().clone()
    with pytest.raises(NumericError, match="step 1: the loss is"):
        Finetuner(model, settings(), 10).step(data, np.arange(4))
    torch.testing.assert_close(model.gpt.wte.weight.detach(), before, atol=0, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_little_and_merges_to_the_same_function(tmp_path: Path, tied: bool) -> None:
    config = GPTConfig(
        n_layer=2, n_head=2, n_embd=32, n_ctx=48, vocab_size=257, tied_embeddings=tied
    )
    model, data = make(tmp_path, "classification", 24, config)
    frozen = {name: tensor.clone() for name, tensor in model.tensors().items()}
    trainer = Finetuner(model, settings(lora_rank=4, learning_rate=1e-2, weight_decay=0.1), 20)
    for _ in range(5):
        trainer.step(data, np.arange(24))
    tensors = merged_tensors(model)
    assert tensors.keys() == frozen.keys()
    table = tensors["wte.weight"]
    torch.testing.assert_close(table[:257], frozen["wte.weight"][:257], atol=0, rtol=0)
    # start and extract
    assert bool((table[[257, 259]] != frozen["wte.weight"][[257, 259]]).any(1).all())
    corrected = {name for name in tensors if not torch.equal(tensors[name], frozen[name])}
    linears = {
        f"h.{i}.{name}.weight"
        for i in (0, 1)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    heads = {"task_head.weight", "task_head.bias", "wte.weight", "lm_head.weight"}
    assert corrected == linears | heads
    for name in linears:
        assert torch.linalg.matrix_rank(tensors[name] - frozen[name], rtol=1e-3) <= 4
    save_checkpoint(tmp_path / "merged", model.config, tensors, byte_tokenizer(), {}, model.spec)
    merged, batch = load_task_model(tmp_path / "merged"), next(data.parts(range(24), 10_000))
    assert not any(isinstance(module, LoRALinear) for module in merged.modules())
    model.eval()
    torch.testing.assert_close(
        merged(batch.ids, batch.extract_at)[0],
        model(batch.ids, batch.extract_at)[0],
        atol=1e-5,
        rtol=0,
    )


def test_lora_starts_from_the_same_function_and_checks_its_rank(tmp_path: Path) -> None:
    model, data = make(tmp_path, "classification")
    before = predict(model, data, 10_000).loss
    with pytest.raises(ValueError, match="from 0 to the model's width 32, got 33"):
        add_lora(copy.deepcopy(model), 33, 1.0)
    before_layer = copy.deepcopy(model.gpt.blocks()[0].mlp.c_fc)
    add_lora(model, 4, 8.0)
    assert predict(model, data, 10_000).loss == pytest.approx(before, rel=1e-6)
    layer, x = model.gpt.blocks()[0].mlp.c_fc, torch.randn(3, 32)
    assert isinstance(layer, LoRALinear)
    torch.nn.init.normal_(layer.lora_b)
    wanted = before_layer(x) + 8.0 / 4 * (x @ layer.lora_a.T @ layer.lora_b.T)
    torch.testing.assert_close(layer(x), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_checkpoint_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    model, data = make(tmp_path, kind)
    save_checkpoint(
        tmp_path / "saved", model.config, model.tensors(), byte_tokenizer(), {}, model.spec
    )
    opened = open_checkpoint(tmp_path / "saved")
    assert opened.task == model.spec
    assert opened.config.n_label == model.spec.n_label
    assert opened.names()[-2:] == ["task_head.weight", "task_head.bias"]
    back = load_task_model(tmp_path / "saved")
    part = next(data.parts(range(8), 10_000))
    torch.testing.assert_close(
        back(part.ids, part.extract_at)[0],
        model.eval()(part.ids, part.extract_at)[0],
        atol=0,
        rtol=0,
    )
    gpt = load_checkpoint(tmp_path / "saved")
    assert gpt.config.n_label is None
    torch.testing.assert_close(gpt(part.ids)[0], model.gpt(part.ids)[0], atol=0, rtol=0)


def test_a_language_model_has_no_task(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "saved", CONFIG, GPT(CONFIG).state_dict(), byte_tokenizer(), {})
    assert open_checkpoint(tmp_path / "saved").task is None
    with pytest.raises(CheckpointError, match="language model without a task"):
        load_task_model(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("task"), "config has n_label 2, but there is no task"),
        (lambda d: d["config"].pop("n_label"), "the task has 2 outputs, config n_label None"),
        (
            lambda d: d["task"].update(labels=["a", "b", "c"]),
            "the task has 3 outputs, config n_label 2",
        ),
        (lambda d: d["task"].update(extract=260), "tokens lie beyond the vocabulary of 260"),
        (lambda d: d["task"].update(kind="chat"), "task kind must be one of"),
        (lambda d: d.update(task=[]), "a task must be an object"),
        (
            lambda d: (d["task"].update(labels=["a", "b", "c"]), d["config"].update(n_label=3)),
            "task_head.weight has shape",
        ),
    ],
)
def test_a_corrupt_task_is_refused(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    model, _ = make(tmp_path, "classification")
    save_checkpoint(
        tmp_path / "saved", model.config, model.tensors(), byte_tokenizer(), {}, model.spec
    )
    path = tmp_path / "saved" / "config.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "saved")


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_loss_of_several_labels_is_the_sum_of_their_cross_entropies(is_weighted: bool) -> None:
    spec = new_task("classification", CONFIG.vocab_size, ("a", "b", "c"), problem="multi-label")
    torch.manual_seed(5)
    model = TaskModel(with_task_tokens(GPT(CONFIG)), spec)
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]])
    data = EncodedExamples([((257, 5 + i, 259),) for i in range(4)], labels, 0, 0)
    trainer = Finetuner(model, settings(lm_weight=0.0, **NO_DROPOUT), n_steps=4)
    weights = [1.0, 1.0, 1.0]
    if is_weighted:
        trainer.weigh_classes(labels)
        weights = [1 / 3, 1.0, 1.0]  # negatives over positives; the last is never true
    wanted = 0.0
    for (sequence,), row in zip(data.sequences, labels, strict=True):
        shares = torch.sigmoid(model(torch.tensor([sequence]), torch.tensor([2]))[0])[0].tolist()
        for share, label, weight in zip(shares, row, weights, strict=True):
            wanted -= weight * np.log(share) if label else np.log(1 - share)
    assert trainer.step(data, np.arange(4)) == pytest.approx(wanted / 4, rel=1e-5)


def test_balanced_classes_count_alike(tmp_path: Path) -> None:
    model, data = make(tmp_path, "classification", 12)
    labels = np.array([0] * 9 + [1] * 3)
    data = EncodedExamples(data.sequences, labels, 0, 0)
    weights = balanced_weights(model.spec, labels)
    assert weights.tolist() == pytest.approx([12 / 18, 12 / 6])
    trainer = Finetuner(model, settings(lm_weight=0.0, **NO_DROPOUT), n_steps=4)
    trainer.weigh_classes(labels)
    logits = predict(model, data, 4096).logits
    losses = -torch.log_softmax(torch.from_numpy(logits), 1)[torch.arange(12), labels]
    wanted = (losses * weights[labels]).mean().item()
    assert trainer.step(data, np.arange(12)) == pytest.approx(wanted, rel=1e-5)
    assert balanced_weights(model.spec, np.zeros(3, np.int64)).tolist() == [0.5, 1.0]


def test_the_contrastive_loss_is_that_of_each_text_among_those_of_the_batch() -> None:
    spec = new_task("embedding", CONFIG.vocab_size, dimensions=6)
    torch.manual_seed(5)
    model = TaskModel(with_task_tokens(GPT(CONFIG)), spec)
    texts = [(5,), (6, 7), (8,), (9, 9, 9), (5,), (10, 11)]  # the third pair begins as the first
    pairs = [((257, *texts[i], 259), (257, *texts[i + 1], 259)) for i in (0, 2, 4)]
    data = EncodedExamples(pairs, np.zeros(3, np.int64), 0, 0)
    vectors = []
    for ids in (ids for pair in pairs for ids in pair):
        hidden, _ = model.gpt.hidden(torch.tensor([ids]))
        vectors.append(F.normalize(model.task_head(hidden[0]).mean(0), dim=0))
    wanted = 0.0
    for i in range(3):
        for own, others in ((0, 1), (1, 0)):
            shares = [
                torch.exp(vectors[2 * i + own] @ vectors[2 * j + others] / 0.1)
                for j in range(3)
                if j == i or {i, j} != {0, 2}  # the same text is no wrong answer
            ]
            right = torch.exp(vectors[2 * i + own] @ vectors[2 * i + others] / 0.1)
            wanted -= torch.log(right / torch.stack(shares).sum()).item() / 2
    # the batch is computed together, however few positions are allowed
    trainer = Finetuner(
        model,
        settings("embedding", lm_weight=0.0, temperature=0.1, batch_tokens=1, **NO_DROPOUT),
        n_steps=4,
    )
    together = predict(model, data, 4096).outputs
    np.testing.assert_allclose(
        together.reshape(6, 6), predict(model, data, 1).outputs.reshape(6, 6), atol=1e-5
    )
    assert trainer.step(data, np.arange(3)) == pytest.approx(wanted / 3, rel=1e-5)
