"""Generator: how a generation begins and ends, the three rings, and wrong prompts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from tests.support.scripted import scripted
from tests.support.tiny_model import END_TOKEN, GRAPHS, N_CTX, open_generator

SAMPLED = SamplingParams(max_new_tokens=30, temperature=1.2, top_k=40, seed=11)
PROMPT = "the end"


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def test_the_three_rings_give_the_same(generator: Generator) -> None:
    whole = generator.complete(PROMPT, SAMPLED)
    stream = generator.stream(PROMPT, SAMPLED)
    pieces = list(stream)
    ids = generator.generate_ids(generator.tokenizer.encode(PROMPT), SAMPLED)
    assert "".join(pieces) == whole.text == generator.tokenizer.decode(whole.ids)
    assert "" not in pieces
    assert stream.completion.ids == whole.ids == tuple(ids) == ids.ids
    assert stream.finish_reason == whole.finish_reason == ids.finish_reason


def test_greedy_is_the_argmax_of_a_full_forward_at_every_step(generator: Generator) -> None:
    session, ids = generator.session, generator.tokenizer.encode(PROMPT)
    wanted = list(ids)
    for _ in range(20):
        wanted.append(int(session.forward([wanted], session.new_cache())[0, 0].argmax()))
    params = SamplingParams(max_new_tokens=20, ignore_end_token=True)
    assert generator.complete(PROMPT, params).ids == tuple(wanted[len(ids) :])


def test_a_completion_tells_what_happened(generator: Generator) -> None:
    done = generator.complete(PROMPT, SAMPLED)
    assert done.prompt_tokens == len(generator.tokenizer.encode(PROMPT))
    assert done.completion_tokens == len(done.ids)
    assert (done.seed, done.dropped_tokens) == (11, 0)
    assert done.prefill_seconds > 0
    assert done.tokens_per_second == pytest.approx((len(done.ids) - 1) / done.decode_seconds)
    assert generator.complete(PROMPT, SamplingParams(max_new_tokens=1)).seed is None


def test_max_new_tokens_ends_with_length(generator: Generator) -> None:
    for n in (1, 2, 9):
        done = generator.complete(PROMPT, SamplingParams(max_new_tokens=n, ignore_end_token=True))
        assert (done.finish_reason, done.completion_tokens) == ("length", n)


def test_the_end_token_ends_with_stop_and_is_not_given() -> None:
    done = scripted(b"abc", END_TOKEN, 100).complete(PROMPT)
    assert (done.text, done.finish_reason, done.ids) == ("abc", "stop", tuple(b"abc"))
    assert list(scripted(b"", END_TOKEN).stream(PROMPT)) == []
    on = scripted(b"abc", END_TOKEN, 100).complete(
        PROMPT, SamplingParams(max_new_tokens=5, ignore_end_token=True)
    )
    assert on.ids == (*b"abc", END_TOKEN, 100)


def test_a_full_context_ends_with_context_full(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=1000, ignore_end_token=True)
    done = generator.complete(PROMPT, params)
    assert done.finish_reason == "context_full"
    # The last token is never read, so one more than the context holds is written.
    assert done.prompt_tokens + done.completion_tokens == N_CTX + 1


@pytest.mark.parametrize("length", [1, 2, N_CTX - 1, N_CTX])
def test_a_prompt_that_fits_is_continued(generator: Generator, length: int) -> None:
    done = generator.complete("q" * length, SamplingParams(max_new_tokens=5, ignore_end_token=True))
    room = N_CTX + 1 - length
    assert done.completion_tokens == min(5, room)
    assert done.finish_reason == ("length" if room >= 5 else "context_full")


@pytest.mark.parametrize("length", [N_CTX + 1, 10 * N_CTX])
def test_a_prompt_longer_than_the_context_is_refused_before_any_work(
    generator: Generator, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator.session, "forward", None)
    prompt = "q" * length
    message = f"the prompt has {length} .*the context of .*{N_CTX}"
    for call in (
        generator.stream,
        generator.complete,
        lambda prompt: generator.generate_batch(["q", prompt]),
    ):
        with pytest.raises(ContextLengthError, match=message) as caught:
            call(prompt)
        assert "truncate='left'" in str(caught.value.hint)
        assert "--truncate left" in str(caught.value.cli_hint)
    with pytest.raises(ContextLengthError, match=f"the prompt has {length} tokens"):
        generator.generate_ids([5] * length)


def test_ten_megabytes_are_refused_without_cutting_them_into_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = open_generator()
    monkeypatch.setattr(generator.tokenizer, "encode", None)
    started = time.thread_time()  # of this thread: the machine may be busy
    with pytest.raises(ContextLengthError, match="the prompt has 10000000 bytes"):
        generator.stream("x" * 10_000_000)
    assert time.thread_time() - started < 1.0


def test_an_empty_prompt_starts_after_an_end_token(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = generator.complete("", SAMPLED)
    assert done.prompt_tokens == 1
    assert done.ids == tuple(generator.generate_ids([END_TOKEN], SAMPLED))
    monkeypatch.setattr(generator.tokenizer, "end_token", None)
    with pytest.raises(ValueError, match="the prompt is empty, and this model has no end token"):
        generator.complete("")


@pytest.mark.parametrize(
    ("max_new_tokens", "kept"), [(10, 54), (32, 32), (40, 32), (1000, 32), (1, 63)]
)
def test_truncate_left_keeps_the_end_and_leaves_room(
    generator: Generator, max_new_tokens: int, kept: int
) -> None:
    prompt = "".join(chr(97 + place % 26) for place in range(150))
    ids = generator.tokenizer.encode(prompt)
    params = SamplingParams(max_new_tokens=max_new_tokens, ignore_end_token=True)
    done = generator.complete(prompt, params, truncate="left")
    assert (done.prompt_tokens, done.dropped_tokens) == (kept, len(ids) - kept)
    assert done.ids == tuple(generator.generate_ids(ids[-kept:], params))
    assert generator.encode_prompt("q", max_new_tokens, "left").dropped_tokens == 0


@pytest.mark.parametrize("prompt", [b"bytes", None, 3, ["a"]])
def test_a_prompt_that_is_no_string_is_refused(prompt: Any) -> None:
    with pytest.raises(ValueError, match=f"prompt must be a string, got {type(prompt).__name__}"):
        open_generator().stream(prompt)


def test_a_wrong_truncate_is_refused() -> None:
    with pytest.raises(ValueError, match="truncate must be 'left' or None, got 'right'"):
        open_generator().stream("a", truncate="right")  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[], [-1], [277], [3, 277]])
def test_wrong_ids_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="ids must be one or more token ids from 0 to 276"):
        open_generator().generate_ids(ids)


def test_ids_take_no_stop_strings() -> None:
    with pytest.raises(ValueError, match="stop strings need text"):
        open_generator().generate_ids([1], SamplingParams(stop=("a",)))


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        (b"Once. The end. And", ("The end",), "Once. "),
        (b"Once. The en", ("The end",), "Once. The en"),
        ("été – fin".encode(), ("–",), "été "),
        (b"abc\xe2\x80", ("�",), "abc"),  # a character that stays incomplete is text like any other
    ],
)
def test_a_stop_string_is_found_across_tokens_and_never_given(
    text: bytes, stop: tuple[str, ...], wanted: str
) -> None:
    stream = scripted(text, END_TOKEN).stream(PROMPT, SamplingParams(stop=stop))
    assert "".join(stream) == stream.completion.text == wanted
    assert stream.finish_reason == "stop"


def test_text_that_could_begin_a_stop_string_waits_no_longer_than_it_must() -> None:
    assert list(scripted(b"a<b<s>c", END_TOKEN).stream(PROMPT, SamplingParams(stop=("<s>",)))) == [
        "a",
        "<b",
    ]


@given(
    stops=st.lists(
        st.sampled_from(["e", "he", "th", " ", "ing", "a b", "\n", "an", "r"]), max_size=4
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_a_stop_string_only_cuts_the_text_short(stops: list[str], seed: int) -> None:
    generator = open_generator()
    free = SamplingParams(max_new_tokens=40, top_k=40, seed=seed)
    bound = SamplingParams(max_new_tokens=40, top_k=40, seed=seed, stop=tuple(stops))
    whole, cut = generator.complete(PROMPT, free), generator.complete(PROMPT, bound)
    assert whole.text.startswith(cut.text)
    assert whole.ids[: len(cut.ids)] == cut.ids
    assert not any(stop in cut.text for stop in stops)
    if not any(stop in whole.text for stop in stops):
        assert cut.text == whole.text


def test_generation_ends_at_any_of_the_end_tokens() -> None:
    real = open_generator()
    ids = real.complete("the end", SamplingParams(max_new_tokens=20)).ids
    defaults = GenerationDefaults(eos_token_id=(ids[6], ids[3]))
    generator = Generator(real.session, real.tokenizer, defaults)
    assert generator.end_tokens == {END_TOKEN, ids[3], ids[6]}
    first = min(ids.index(ids[3]), ids.index(ids[6]))
    done = generator.complete("the end", SamplingParams(max_new_tokens=20))
    assert (done.ids, done.finish_reason) == (ids[:first], "stop")
    assert generator.generate_batch(["the end"])[0].ids == ids[:first]
    prompt = generator.tokenizer.encode("the end")
    assert tuple(generator.generate_ids(prompt, SamplingParams(max_new_tokens=20))) == ids[:first]
    params = SamplingParams(max_new_tokens=20, ignore_end_token=True)
    assert generator.complete("the end", params).ids == ids


def test_generation_defaults_become_params_and_are_applied_by_the_caller_alone() -> None:
    real = open_generator()
    assert real.generation_defaults == SamplingParams()
    for defaults, expected in (
        (GenerationDefaults(temperature=0.5, top_k=3), SamplingParams()),
        (GenerationDefaults(do_sample=False, top_k=3), SamplingParams()),
        (GenerationDefaults(do_sample=True, top_k=3), SamplingParams(top_k=3, temperature=1.0)),
        (GenerationDefaults(do_sample=True, temperature=0.5), SamplingParams(temperature=0.5)),
        (
            GenerationDefaults(do_sample=True, temperature=0.5, top_k=0),
            SamplingParams(temperature=0.5, top_k=real.session.config.vocab_size),
        ),
    ):
        generator = Generator(real.session, real.tokenizer, defaults)
        assert generator.generation_defaults == expected
        greedy = SamplingParams(max_new_tokens=5)
        assert generator.complete("the", greedy).ids == real.complete("the", greedy).ids
        assert generator.complete("the").seed is None


def test_seconds_of_every_step_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    stream = open_generator().stream("Once", SamplingParams(max_new_tokens=6))
    list(stream)
    done = stream.completion
    assert len(done.ids) == 6
    # one second between the two readings of each step
    assert done.decode_seconds == 5.0
    assert done.prefill_seconds >= 1.0
