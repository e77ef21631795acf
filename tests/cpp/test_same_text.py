"""The C++ library writes the ids and the text that Python writes."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.generate.params import SamplingParams
from gpt_edge.runtime.session import Session
from tests.conftest import REPO
from tests.support.cpp_library import CppLibrary, CppModel, Done
from tests.support.signed_manifest import changed_bundle

GOLDEN = REPO / "tests" / "golden"
EMBEDDED = REPO / "models" / DEFAULT_BUNDLE
PROMPTS = ("Once upon a time", "", "Tom and Lily", "É 日本 \U0001f600 it's\n\n  12,345")
# each is sampled with the seeds 0 to 2 on the embedded bundle
SETTINGS: tuple[dict[str, object], ...] = (
    {"top_k": 40},
    {"temperature": 0.7},
    {"top_k": 5, "temperature": 2.5},
    {"top_k": 100_000},
    {"top_k": 300, "temperature": 1.5},
    {"top_p": 0.9},
    {"top_p": 0.6, "top_k": 50, "temperature": 1.3},
    {"min_p": 0.05, "temperature": 1.5},
    {"min_p": 0.0},
    {"typical_p": 0.4},
    {"typical_p": 0.9, "top_p": 0.95, "min_p": 0.01},
    {"top_k": 40, "repetition_penalty": 1.3},
    {"top_k": 40, "presence_penalty": 0.7, "frequency_penalty": 0.35},
    {"top_k": 40, "no_repeat_ngram_size": 2},
    {"temperature": 1e-5},
    {"top_p": 0.999, "temperature": 50.0},
    {"typical_p": 0.999, "temperature": 50.0},
)


@pytest.fixture(scope="module")
def python() -> Iterator[gpt_edge.Generator]:
    with gpt_edge.load(EMBEDDED, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def model(cpp: CppLibrary) -> Iterator[CppModel]:
    with cpp.open(EMBEDDED, threads=1) as model:
        yield model


def check_equal(
    python: gpt_edge.Generator, model: CppModel, prompt: str, **settings: object
) -> Done:
    expected = python.complete(prompt, SamplingParams(**settings))  # type: ignore[arg-type]
    done = model.generate(prompt, **settings)
    assert done.ids == expected.ids
    assert done.text == expected.text
    assert "".join(done.pieces) == expected.text
    assert done.finish_reason == expected.finish_reason
    assert (done.prompt_tokens, done.seed) == (expected.prompt_tokens, expected.seed)
    return done


@pytest.mark.parametrize("name", ["tiny-edge", "tiny-portable"])
def test_a_tiny_bundle_generates_pythons_ids_until_the_context_is_full(
    name: str, cpp: CppLibrary
) -> None:
    with gpt_edge.load(GOLDEN / name) as python, cpp.open(GOLDEN / name) as model:
        for prompt in PROMPTS:
            check_equal(python, model, prompt, max_new_tokens=20)
            check_equal(python, model, prompt, max_new_tokens=20, top_k=40, seed=5)
        done = check_equal(python, model, "ab", ignore_end_token=False)
        assert done.finish_reason == "context_full"


NATIVE = ("int8", "int8-block", "int4", "gelu-int8", "gelu-int4", "relu-int8")


@pytest.mark.parametrize("name", NATIVE)
def test_a_bundle_without_a_tokenizer_gives_pythons_ids_in_every_scheme(
    name: str, cpp: CppLibrary
) -> None:
    bundle = Bundle.open(GOLDEN / f"native-{name}")
    session = Session(bundle, threads=1, native=False)
    with cpp.open(bundle.path, threads=1) as model:
        for start in range(3):
            prompt = [(5 * place + start) % bundle.config.vocab_size for place in range(4)]
            cache, expected = session.new_cache(), list[int]()
            logits = session.forward([prompt], cache)[0, -1]
            while len(expected) < 12:
                expected.append(int(logits.argmax()))
                logits = session.decode([expected[-1]], cache)[0]
            assert list(model.generate(prompt, max_new_tokens=12).ids) == expected


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_built_in_bundle_generates_pythons_greedy_text(
    prompt: str, python: gpt_edge.Generator, model: CppModel
) -> None:
    check_equal(python, model, prompt, max_new_tokens=30)


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_a_seed_gives_pythons_text(
    settings: dict[str, object], python: gpt_edge.Generator, model: CppModel
) -> None:
    for seed in (0, 1, (1 << 64) - 1):
        check_equal(python, model, "Once upon a time", max_new_tokens=15, seed=seed, **settings)


def test_penalties_count_without_sampling_too(python: gpt_edge.Generator, model: CppModel) -> None:
    prompt = "The dog and the dog and the"
    for settings in ({"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}):
        check_equal(python, model, prompt, max_new_tokens=15, **settings)


def test_a_prompt_of_several_chunks_gives_pythons_text(
    python: gpt_edge.Generator, model: CppModel
) -> None:
    prompt = "The little dog ran to the big red house and saw a cat. " * 25
    done = check_equal(python, model, prompt, max_new_tokens=10)
    assert done.prompt_tokens > 256


def test_stop_strings_end_the_text_where_they_end_it_in_python(
    python: gpt_edge.Generator, model: CppModel
) -> None:
    whole = python.complete("Once upon a time", max_new_tokens=40).text
    for stop in ([whole[20:24]], [whole[9], "zzz"], [whole[-3:] + "zz", "é"], [whole[5:40]]):
        settings = {"stop": tuple(stop), "max_new_tokens": 40}
        check_equal(python, model, "Once upon a time", **settings)


def test_every_end_token_ends_the_text_unless_it_may_not_yet(
    python: gpt_edge.Generator, model: CppModel
) -> None:
    ids = python.complete("Once upon a time", max_new_tokens=12).ids
    done = check_equal(python, model, "Once upon a time", stop_token_ids=(ids[8], ids[5]))
    assert (done.finish_reason, len(done.ids)) == ("stop", 5)
    check_equal(
        python,
        model,
        "Once upon a time",
        stop_token_ids=(ids[8], ids[5]),
        min_new_tokens=7,
        max_new_tokens=12,
    )
    end = "Once upon a time, the end.<|endoftext|>"
    for ignores in (False, True):
        settings = {"max_new_tokens": 60, "top_k": 3, "seed": 4, "ignore_end_token": ignores}
        check_equal(python, model, end, **settings)


def test_a_bundles_defaults_and_its_end_tokens_are_used(cpp: CppLibrary, tmp_path: Path) -> None:
    folder = changed_bundle(
        GOLDEN / "tiny-edge",
        tmp_path / "bundle",
        lambda values: values.update(
            generation_defaults={
                "do_sample": True,
                "temperature": 0.5,
                "top_k": 0,
                "top_p": 0.8,
                "repetition_penalty": 1.2,
                "eos_token_id": list(range(0, 276, 9)),
            }
        ),
    )
    with gpt_edge.load(folder) as python, cpp.open(folder) as model:
        params, own = model.defaults(), python.generation_defaults
        assert (params.temperature, params.top_k, params.top_p) == (0.5, 277, 0.8)
        for name in ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty"):
            assert getattr(params, name) == getattr(own, name)
        assert params.min_p < 0
        assert own.min_p is None
        for seed in range(8):
            done = check_equal(python, model, "ab", **_changes(own), seed=seed)
        assert done.finish_reason == "stop"


def _changes(params: SamplingParams) -> dict[str, object]:
    default = SamplingParams()
    return {
        item.name: getattr(params, item.name)
        for item in dataclasses.fields(params)
        if getattr(params, item.name) != getattr(default, item.name)
    }


def test_a_prompt_that_does_not_fit_loses_its_start_as_in_python(
    python: gpt_edge.Generator, model: CppModel
) -> None:
    prompt = "The dog ran. " * 400
    expected = python.complete(prompt, truncate="left", max_new_tokens=5)
    done = model.generate(prompt, truncate_left=1, max_new_tokens=5)
    assert (done.ids, done.dropped_tokens) == (expected.ids, expected.dropped_tokens)
    assert done.dropped_tokens > 0


def test_token_ids_give_the_ids_that_text_gives(model: CppModel) -> None:
    ids = model.encode("Once upon a time")
    assert (
        model.generate(ids, max_new_tokens=9).ids
        == model.generate("Once upon a time", max_new_tokens=9).ids
    )


def test_threads_that_share_a_model_get_the_text_of_one(model: CppModel) -> None:
    alone = [model.generate(prompt, max_new_tokens=25).text for prompt in PROMPTS]
    together: dict[int, str] = {}

    def run(index: int) -> None:
        together[index] = model.generate(PROMPTS[index], max_new_tokens=25).text

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(PROMPTS))] == alone


def test_a_text_without_a_seed_differs_and_names_the_seed_that_gives_it_again(
    model: CppModel,
) -> None:
    runs = [model.generate("Once", temperature=1.5, max_new_tokens=20) for _ in range(2)]
    assert runs[0].text != runs[1].text
    again = model.generate("Once", temperature=1.5, max_new_tokens=20, seed=runs[0].seed)
    assert again.text == runs[0].text
