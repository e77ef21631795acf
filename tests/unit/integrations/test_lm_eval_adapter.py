"""The adapter in the real `lm_eval`: tasks over local files, against our own figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import gpt_edge
from gpt_edge.evaluate.lambada import (
    QUOTES,
    LambadaTally,
    add_passage,
    lambada_file,
    passages,
    stop_tokens,
)
from gpt_edge.evaluate.scorer import SessionScorer
from gpt_edge.generate.generator import Generator

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402

from gpt_edge.integrations.lm_eval_adapter import EdgeLM  # noqa: E402

pytestmark = pytest.mark.slow  # the harness imports torch, transformers and datasets

N_PASSAGES = 30
N_QUESTIONS = 30


@pytest.fixture(scope="module")
def generator() -> Generator:
    return gpt_edge.load(threads=1)


@pytest.fixture(scope="module")
def model(generator: Generator) -> EdgeLM:
    return EdgeLM(generator=generator)


def first_lines(source: Path, n: int, folder: Path) -> Path:
    path = folder / source.name
    path.write_text("".join(source.read_text("utf-8").splitlines(keepends=True)[:n]), "utf-8")
    return path


def figures(model: EdgeLM, path: Path, folder: Path, **config: Any) -> dict[str, float]:
    """What the harness says of a task over the lines of `path`."""
    data = {"data_files": {"test": str(path)}, "cache_dir": str(folder / "cache")}
    task = ConfigurableTask(
        config={
            "task": "local",
            "dataset_path": "json",
            "dataset_kwargs": data,
            "test_split": "test",
            **config,
        }
    )
    done = lm_eval.simple_evaluate(
        model=model, tasks=[task], bootstrap_iters=0, random_seed=None, numpy_random_seed=None
    )
    found = done["results"]["local"]
    return {name.partition(",")[0]: value for name, value in found.items()}


def last_word(document: dict[str, str]) -> tuple[str, str]:
    """A passage as `eval --lambada` reads it."""
    text = document["text"].translate(QUOTES).strip()
    word = text.split()[-1]
    return "\n" + text[: -len(word)].removesuffix(" "), word


def test_lambada_has_the_figures_of_eval(
    model: EdgeLM, generator: Generator, shared_data: Path, tmp_path: Path
) -> None:
    path = first_lines(shared_data / "lambada" / "lambada_test.jsonl", N_PASSAGES, tmp_path)
    found = figures(
        model,
        path,
        tmp_path,
        output_type="loglikelihood",
        doc_to_text=lambda document: last_word(document)[0],
        doc_to_target=lambda document: " " + last_word(document)[1],
        target_delimiter="",
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    )
    tally = LambadaTally()
    scorer = SessionScorer(generator.session, "ours")
    tokenizer = generator.tokenizer
    stops = stop_tokens(tokenizer)
    n_ctx = generator.session.config.n_ctx
    for passage in passages(lambada_file(path), tokenizer, n_ctx, None):
        add_passage(scorer, passage, tally, tokenizer, stops)
    ours = tally.score()
    assert ours.n_passages == N_PASSAGES
    assert ours.perplexity is not None
    assert found["acc"] == pytest.approx(ours.accuracy.value)
    # sums of float32 logits in another order
    assert found["perplexity"] == pytest.approx(ours.perplexity.value, rel=1e-4)


def test_arc_easy_has_the_answers_of_choose(
    model: EdgeLM, generator: Generator, shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "tasks" / "multiple-choice" / "arc-easy" / "test.part.jsonl"
    path = first_lines(source, N_QUESTIONS, tmp_path)
    found = figures(
        model,
        path,
        tmp_path,
        output_type="multiple_choice",
        doc_to_text="Question: {{question}}\nAnswer:",
        doc_to_target="{{gold}}",
        doc_to_choice="{{choices}}",
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )
    n_right = n_right_by_length = 0
    for line in path.read_text("utf-8").splitlines():
        document = json.loads(line)
        options = document["choices"]
        scores = [
            one.logprob
            for one in generator.choose(
                f"Question: {document['question']}\nAnswer:", [f" {option}" for option in options]
            )
        ]
        by_length = [score / len(option) for score, option in zip(scores, options, strict=True)]
        n_right += scores.index(max(scores)) == document["gold"]
        n_right_by_length += by_length.index(max(by_length)) == document["gold"]
    assert found["acc"] == pytest.approx(n_right / N_QUESTIONS)
    assert found["acc_norm"] == pytest.approx(n_right_by_length / N_QUESTIONS)


def asked(kind: str, *arguments: tuple[Any, ...]) -> Sequence[Any]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=index)
        for index, one in enumerate(arguments)
    ]


def test_a_whole_text_is_scored_in_windows(model: EdgeLM, generator: Generator) -> None:
    text = "Once upon a time there was a cat. " * 120
    short = "Once upon a time there was a cat."
    whole, alone = model.loglikelihood_rolling(asked("loglikelihood_rolling", (text,), (short,)))
    assert len(generator.tokenizer.encode(text)) > 2 * generator.session.config.n_ctx
    assert alone == pytest.approx(generator.score("", short).logprob, rel=1e-5)
    assert -math.inf < whole < alone


def test_a_context_that_does_not_fit_loses_its_start(model: EdgeLM, generator: Generator) -> None:
    long = "a cat sat on a mat. " * 400
    ((logprob, _),) = model.loglikelihood(asked("loglikelihood", (long, " The end")))
    assert -100 < logprob < 0


def test_text_ends_before_the_strings_of_a_task(model: EdgeLM, generator: Generator) -> None:
    until = [".", "!", "?", "\n", ";", ":"]
    plain = generator.complete("Once upon a time", max_new_tokens=40).text
    settings = {"until": until, "max_gen_toks": 40, "do_sample": False, "temperature": 0.0}
    found = model.generate_until(
        asked(
            "generate_until",
            ("Once upon a time", settings),
            ("Once upon a time", {"until": "nowhere", "max_gen_toks": 7}),
        )
    )
    first = min(plain.index(one) for one in until if one in plain)
    assert found[0] == plain[:first]
    assert found[1] == generator.complete("Once upon a time", max_new_tokens=7).text
