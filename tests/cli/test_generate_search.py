"""`generate` with several texts of a prompt, beams, contrastive search and log-probabilities: what
Python says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.generate.generator import Generator
from tests.support.runner import Result, done, run

PROMPT = "the rain"


@pytest.fixture(scope="module")
def model() -> Generator:
    return gpt_edge.load()


def generated(*options: str) -> Result:
    return done("generate", PROMPT, "-n", "12", *options)


def test_samples_count_their_seeds_up(model: Generator) -> None:
    expected = model.samples(PROMPT, n=2, best_of=4, top_k=9, seed=7, max_new_tokens=12)
    options = ("--samples", "2", "--best-of", "4", "--top-k", "9", "--seed", "7")
    texts = generated(*options, "--json").json["texts"]
    assert [(one["seed"], one["text"]) for one in texts] == [
        (one.seed, one.text) for one in expected
    ]
    shown = generated(*options, "--echo").out
    headings = [f"--- {i} of 2, seed {one.seed}\n" for i, one in enumerate(expected, 1)]
    assert shown == "".join(
        f"{heading}{PROMPT}{one.text}\n" for heading, one in zip(headings, expected, strict=True)
    )


def test_beams_print_the_best_or_the_best_few(model: Generator) -> None:
    beams = gpt_edge.BeamParams(num_beams=3, num_return_sequences=2, length_penalty=0.5)
    expected = model.beam_search(PROMPT, beams=beams, max_new_tokens=12)
    options = ("--beams", "3", "--length-penalty", "0.5")
    assert generated(*options).out == expected[0].text + "\n"
    texts = generated(*options, "--samples", "2", "--json").json["texts"]
    assert [(one["text"], one["score"]) for one in texts] == [
        (one.text, one.score) for one in expected
    ]
    one = generated(*options, "--json").json
    assert (one["text"], one["score"]) == (expected[0].text, expected[0].score)


def test_contrastive_search_streams(model: Generator) -> None:
    contrastive = gpt_edge.ContrastiveParams(penalty_alpha=0.7, top_k=3)
    expected = model.contrastive_search(PROMPT, contrastive=contrastive, max_new_tokens=12)
    options = ("--penalty-alpha", "0.7", "--top-k", "3")
    assert generated(*options).out == expected.text + "\n"
    told = generated(*options, "--json").json
    assert (told["text"], told["top_k"]) == (expected.text, 3)


def test_log_probabilities_of_the_prompt(model: Generator) -> None:
    expected = model.complete(PROMPT, max_new_tokens=12, prompt_logprobs=1).prompt_logprobs
    assert expected is not None
    told = generated("--prompt-logprobs", "1", "--json").json["prompt_logprobs"]
    assert [(one["id"], one["logprob"]) for one in told] == [
        (one.id, one.logprob) for one in expected
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--beams", "3", "--top-k", "4"), "--beams goes with no option that samples"),
        (("--beams", "3", "--samples", "4"), "num_return_sequences must be"),
        (("--beams", "3", "--best-of", "4"), "--best-of samples, --beams searches"),
        (("--beams", "99"), "num_beams must be a whole number from 1 to 64, got 99"),
        (("--length-penalty", "2"), "--length-penalty goes with --beams"),
        (("--samples", "3", "--length-penalty", "2"), "--length-penalty goes with --beams"),
        (("--samples", "3", "--best-of", "2"), "--best-of must be at least --samples"),
        (("--samples", "3", "--speculate", "lookup"), "--speculate goes with one text"),
        (("--beams", "3", "--context", "window"), "--context goes with one text, not with --beams"),
        (("--prompt-logprobs", "2"), "--prompt-logprobs needs --json"),
        (("--samples", "2", "--greedy"), "n samples need sampling"),
        (("--penalty-alpha", "1.5"), "penalty_alpha must be a number from 0 to 1, got 1.5"),
        (("--penalty-alpha", "0.5", "--beams", "2"), "--penalty-alpha finds one text"),
        (("--penalty-alpha", "0.5", "--top-p", "0.5"), "takes no sampling settings"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_contradicts_is_wrong_usage(options: tuple[str, ...], expected: str) -> None:
    result = run("generate", PROMPT, *options)
    assert (result.code, len(result.errors), result.out) == (2, 1, "")
    assert expected in result.errors[0]


def test_many_prompts_go_with_none_of_them(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    result = run("generate", "--batch", prompts, "--out", tmp_path / "out.jsonl", "--samples", "2")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "--batch goes with one text, not with --samples" in result.errors[0]
