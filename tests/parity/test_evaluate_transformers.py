"""Every measure that transformers can compute, computed by transformers from its own models on the
same text.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedModel,
)

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.evaluate import (
    EvaluationSettings,
    Models,
    Scorer,
    SessionScorer,
    evaluate_lambada,
    evaluate_text,
)
from gpt_edge.evaluate.lambada import STOP_WORDS
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.scoring import TorchScorer
from gpt_edge.runtime.session import Session
from tests.conftest import REPO

RELATIVE = 1e-4
CONTEXT, VOCAB_SIZE, END = 64, 277, 276  # of the golden tokenizer
SIZE = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 32,
    "n_positions": CONTEXT,
    "vocab_size": VOCAB_SIZE,
    "initializer_range": 0.2,
}
NEO = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 32,
    "max_position_embeddings": CONTEXT,
    "vocab_size": VOCAB_SIZE,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 9,
    "initializer_range": 0.1,
}
WORDS = Bundle.open(REPO / "tests" / "golden" / "tiny-edge").load_tokenizer()
STORY = (
    "The lighthouse keeper had counted ships for thirty years, and he wrote every one of them "
    "down. In winter there were days "
    "without a sail. Then he would polish the lamp, read the old entries aloud, and wonder where "
    "the ships had gone. “Is this "
    "the house that remembers?” she asked. He looked at his shelves, and he nodded."
)
TEXTS = [STORY, "Once upon a time.", " ".join(STORY.split()[::-1])]


Twin = tuple[PreTrainedModel, Scorer]  # one model in transformers, and as a scorer of ours
CLASSES = {
    "gpt1": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZE)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZE)),
    "gpt-neo": lambda: GPTNeoForCausalLM(GPTNeoConfig(**NEO)),
}
STARTS = [" w", " t", " s", " a", " he", " to"]  # all but the first spell stop words
ENGINES = ["gpt1 torch", "gpt2 torch", "gpt2 runtime", "gpt-neo torch"]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Twin]:
    """twin("gpt2 runtime", seed), made at the first call: tracing costs seconds."""
    root = tmp_path_factory.mktemp("twins")

    @functools.cache
    def make(engine: str, seed: int) -> Twin:
        kind, _, where = engine.partition(" ")
        torch.manual_seed(seed)
        theirs, folder = CLASSES[kind]().eval(), root / f"{engine} {seed}"
        # these six beginnings of words are often the most likely tokens, whatever the text
        with torch.no_grad():
            for word in STARTS:
                theirs.get_input_embeddings().weight[WORDS.encode(word)] *= 4
        theirs.save_pretrained(folder)
        if where == "torch":
            return theirs, TorchScorer(open_checkpoint(folder).load_model(), engine, threads=1)
        bundle, _ = export_bundle(folder, root / f"bundle {seed}", scheme="fp32", tokenizer="none")
        return theirs, SessionScorer(Session(bundle, threads=1), engine)

    return make


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    path.write_text("\n<|endoftext|>\n".join(TEXTS))
    return path


@torch.no_grad()
def windows_of_transformers(model: PreTrainedModel, max_length: int, stride: int):
    """The loop of transformers' "Perplexity of fixed-length models", over each text between two end
    tokens.

    Yields loss (nats per target), and the logits [T - 1, V] and labels [T - 1] of a window,
    -100 where nothing counts.
    """
    for text in TEXTS:
        ids = torch.tensor([[END, *WORDS.encode(text), END]])
        previous_end = 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + max_length, ids.shape[1])
            part = ids[:, begin:end]
            labels = part.clone()
            labels[:, : -(end - previous_end)] = -100
            output = model(part, labels=labels)
            yield output.loss.item(), output.logits[0, :-1], labels[0, 1:]
            previous_end = end
            if end == ids.shape[1]:
                break


@pytest.mark.parametrize(("window", "stride"), [(63, 31), (40, 40), (20, 7)])
@pytest.mark.parametrize("engine", ENGINES)
def test_perplexity_and_accuracy_are_those_of_transformers(
    engine: str, window: int, stride: int, twin: Callable[[str, int], Twin], corpus: Path
) -> None:
    theirs, ours = twin(engine, 0)
    total, n_targets, n_correct = 0.0, 0, 0
    for loss, logits, labels in windows_of_transformers(theirs, window + 1, stride):
        counted = labels != -100
        n = int(counted.sum())
        total, n_targets = total + loss * n, n_targets + n
        n_correct += int((logits.argmax(-1) == labels)[counted].sum())
    settings = EvaluationSettings(window=window, stride=stride)
    report = evaluate_text(Models(ours), WORDS, [corpus], settings)
    n_words, n_bytes = (
        sum(map(len, parts)) for parts in (map(str.split, TEXTS), map(str.encode, TEXTS))
    )
    assert (report.n_tokens, report.n_words, report.n_bytes) == (n_targets, n_words, n_bytes)
    assert report.model.loss.value == pytest.approx(total / n_targets, rel=RELATIVE)
    assert report.model.perplexity is not None
    assert report.model.perplexity.value == pytest.approx(math.exp(total / n_targets), rel=RELATIVE)
    assert report.model.word_perplexity == pytest.approx(
        math.exp(total / n_words), rel=RELATIVE * total / n_words
    )
    assert report.model.bits_per_byte == pytest.approx(total / math.log(2) / n_bytes, rel=RELATIVE)
    assert report.model.accuracy.value == pytest.approx(n_correct / n_targets, rel=RELATIVE)


@pytest.mark.parametrize("engine", ENGINES[1:3])
def test_divergence_and_agreement_are_those_of_torch_on_transformers_logits(
    engine: str, twin: Callable[[str, int], Twin], corpus: Path
) -> None:
    pair = twin(engine, 0), twin(engine, 1)
    both = [list(windows_of_transformers(theirs, CONTEXT, 32)) for theirs, _ in pair]
    kl, same, delta = [], [], []
    for (_, model, labels), (_, base, _) in zip(*both, strict=True):
        counted = labels != -100
        q, p = (F.log_softmax(logits[counted].double(), -1) for logits in (model, base))
        kl.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
        same.append(q.argmax(-1) == p.argmax(-1))
        delta.append((q.exp() - p.exp()).gather(-1, labels[counted][:, None])[:, 0])
    rows = torch.cat(kl)
    models = Models(pair[0][1], base=pair[1][1])
    found = evaluate_text(
        models, WORDS, [corpus], EvaluationSettings(window=CONTEXT - 1, stride=32)
    ).comparison
    assert found is not None
    assert found.n_rows == rows.numel()
    assert found.mean_kl.value == pytest.approx(rows.mean().item(), rel=RELATIVE)
    assert found.mean_kl.error == pytest.approx(
        (rows.std() / math.sqrt(rows.numel())).item(), rel=RELATIVE
    )
    for share, value in found.kl_quantiles.items():
        assert value == pytest.approx(rows.quantile(share).item(), rel=2 * RELATIVE)
    assert found.top1.value == torch.cat(same).double().mean().item()
    assert found.rms_delta_p.value == pytest.approx(
        torch.cat(delta).square().mean().sqrt().item(), rel=RELATIVE
    )


def test_the_runtime_in_fp32_is_torch_to_summation_order(
    twin: Callable[[str, int], Twin], corpus: Path
) -> None:
    models = Models(twin("gpt2 runtime", 0)[1], base=twin("gpt2 torch", 0)[1])
    found = evaluate_text(models, WORDS, [corpus]).comparison
    assert found is not None
    assert 0 <= found.mean_kl.value < 1e-9
    assert found.perplexity_ratio is not None
    assert found.perplexity_ratio.value == pytest.approx(1, rel=1e-6)


@torch.no_grad()
def lambada_of_transformers(
    model: PreTrainedModel, texts: list[str]
) -> tuple[float, float, float, float]:
    """Accuracy by generating, with the filter by trying candidates in order, log-likelihood by the
    loss; last-token accuracy.
    """
    right = filtered = last = 0
    total = 0.0
    for text in texts:
        before, _, word = text.replace("“", '"').replace("”", '"').rpartition(" ")
        context, target = WORDS.encode("\n" + before), WORDS.encode(" " + word)
        context = context[-(CONTEXT + 1 - len(target)) :]
        ids = torch.tensor([context + target[:-1]])
        logits = model(ids).logits[0, len(context) - 1 :]
        total += F.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
        last += int(logits[-1].argmax()) == target[-1]
        written = list(context)
        for _ in target:
            written.append(int(model(torch.tensor([written])).logits[0, -1].argmax()))
        right += written[len(context) :] == target
        for candidate in (
            model(torch.tensor([context]))
            .logits[0, -1]
            .argsort(descending=True, stable=True)
            .tolist()
        ):
            following = int(
                model(torch.tensor([[*context, candidate][-CONTEXT:]])).logits[0, -1].argmax()
            )
            goes_on = WORDS.decode([following])[:1]
            is_stop = WORDS.decode([candidate]).strip().lower() in STOP_WORDS
            if not is_stop or goes_on.isalnum() or goes_on == "\ufffd":
                break
        written = [*context, candidate]
        for _ in target[1:]:
            written.append(int(model(torch.tensor([written])).logits[0, -1].argmax()))
        filtered += written[len(context) :] == target and word.lower() not in STOP_WORDS
    n = len(texts)
    return right / n, filtered / n, math.exp(total / n), last / n


@pytest.mark.parametrize("engine", ENGINES[1:3])
def test_lambada_is_that_of_a_loop_over_transformers(
    engine: str, twin: Callable[[str, int], Twin], tmp_path: Path
) -> None:
    """Texts that end in a word that begins as the model, or the filter, may want it to, and in
    anything.
    """
    (model, ours), words = twin(engine, 0), STORY.split()
    texts = [
        " ".join(words[start : start + 5]) + begin for start in range(40) for begin in STARTS[:3]
    ]
    texts += [" ".join(words[start : start + 9]).strip(".,“”") for start in range(10)]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (found,) = evaluate_lambada(Models(ours), WORDS, path)
    accuracy, filtered, perplexity, last = lambada_of_transformers(model, texts)
    assert found.n_passages == len(texts) == 130
    assert found.accuracy.value == accuracy
    assert found.accuracy_filtered.value == filtered
    assert found.last_token_accuracy.value == last
    assert found.perplexity is not None
    assert found.perplexity.value == pytest.approx(perplexity, rel=RELATIVE)
    # there was something to get right, with the filter too, and it made a difference
    assert accuracy > 0
    assert filtered > 0
    assert filtered != accuracy
    assert accuracy <= last < 1
