"""/v1/completions and /v1/chat/completions, driven by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.bundle.reader import RENAMED, renamed_note
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.runtime.session import Session
from gpt_edge.serve import served_models
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.event_stream import EventStream
from gpt_edge.serve.served_models import ServedModel, ServedModels, open_models
from tests.serve.conftest import Running, start
from tests.support.tiny_model import bundle_path

PROMPT = "the end of the"


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def generator(served: Running) -> Generator:
    return served.generator


def test_a_nul_in_a_prompt_is_a_character_as_any(
    client: openai.OpenAI, generator: Generator
) -> None:
    answer = client.completions.create(
        model="tiny-edge", prompt="a\0b", max_tokens=6, temperature=0
    )
    params = SamplingParams(max_new_tokens=6)
    assert answer.choices[0].text == generator.complete("a\0b", params).text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(generator.tokenizer.encode("a\0b"))


def test_a_completion_is_the_text_of_complete(client: openai.OpenAI, generator: Generator) -> None:
    for settings, ours in (
        ({"temperature": 0}, {}),
        ({"temperature": 0.8, "top_p": 0.9, "seed": 7}, {"temperature": 0.8, "top_p": 0.9}),
        (
            {"seed": 3, "frequency_penalty": 1.5},
            {"temperature": 1.0, "top_k": 277, "frequency_penalty": 1.5},
        ),
    ):
        seed = settings.get("seed")
        answer = client.completions.create(
            model="tiny-edge",
            prompt=PROMPT,
            max_tokens=12,
            **settings,  # type: ignore[arg-type]
        )
        expected = generator.complete(
            PROMPT,
            max_new_tokens=12,
            seed=seed,
            **ours,  # type: ignore[arg-type]
        )
        assert answer.choices[0].text == expected.text
        assert answer.choices[0].finish_reason == expected.finish_reason
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == expected.prompt_tokens
        assert answer.usage.completion_tokens == expected.completion_tokens


def test_a_stream_joins_to_the_whole_and_ends_with_usage(
    client: openai.OpenAI, generator: Generator
) -> None:
    chunks = list(
        client.completions.create(
            model="tiny-edge",
            prompt=PROMPT,
            max_tokens=15,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    expected = generator.complete(PROMPT, max_new_tokens=15)
    texts = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected.text
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == expected.finish_reason
    assert set(reasons[:-1]) <= {None}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == expected.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_n_texts_have_seeds_that_count_up(client: openai.OpenAI, generator: Generator) -> None:
    ask: dict[str, Any] = {"model": "tiny-edge", "max_tokens": 8, "seed": 40, "n": 3}
    answer = client.completions.create(prompt=[PROMPT, "a"], **ask)
    assert [choice.index for choice in answer.choices] == list(range(6))
    expected = [
        generator.complete(prompt, max_new_tokens=8, temperature=1.0, top_k=277, seed=seed).text
        for prompt in (PROMPT, "a")
        for seed in (40, 41, 42)
    ]
    assert [choice.text for choice in answer.choices] == expected
    pieces = [""] * 6
    for chunk in client.completions.create(prompt=[PROMPT, "a"], stream=True, **ask):
        pieces[chunk.choices[0].index] += chunk.choices[0].text
    assert pieces == expected


def test_the_best_are_those_of_samples(client: openai.OpenAI, generator: Generator) -> None:
    answer = client.completions.create(
        model="tiny-edge", prompt=PROMPT, max_tokens=8, seed=4, n=2, best_of=5
    )
    best = generator.samples(
        PROMPT, n=2, best_of=5, max_new_tokens=8, seed=4, temperature=1.0, top_k=277
    )
    assert [choice.text for choice in answer.choices] == [one.text for one in best]


def test_log_probabilities_and_the_echo(client: openai.OpenAI, generator: Generator) -> None:
    answer = client.completions.create(
        model="tiny-edge", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2, echo=True
    )
    done = generator.complete(PROMPT, max_new_tokens=4, logprobs=2, prompt_logprobs=2)
    choice = answer.choices[0]
    assert choice.text == PROMPT + done.text
    assert choice.logprobs is not None
    assert done.logprobs is not None
    assert done.prompt_logprobs is not None
    expected = [entry.logprob for entry in (*done.prompt_logprobs, *done.logprobs)]
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert choice.logprobs.tokens is not None
    n_prompt = len(done.prompt_logprobs) + 1
    assert "".join(choice.logprobs.tokens[:n_prompt]) == PROMPT
    only = client.completions.create(
        model="tiny-edge", prompt=PROMPT, max_tokens=0, logprobs=1, echo=True
    )
    assert only.choices[0].text == PROMPT
    assert only.choices[0].logprobs is not None
    assert len(only.choices[0].logprobs.tokens or []) == n_prompt


def test_token_ids_are_a_prompt(client: openai.OpenAI, generator: Generator) -> None:
    ids = generator.tokenizer.encode(PROMPT)
    answers = [
        client.completions.create(model="tiny-edge", prompt=prompt, max_tokens=6, temperature=0)
        for prompt in (PROMPT, ids, [ids])
    ]
    assert len({answer.choices[0].text for answer in answers}) == 1


def test_a_chat_needs_a_template_and_renders_it(
    client: openai.OpenAI, generator: Generator, served: Running
) -> None:
    messages: Any = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
    answer = client.chat.completions.create(
        model="tiny-edge", messages=messages, temperature=0, max_completion_tokens=9
    )
    text = generator.complete("system: be\nuser: hi\nassistant:", max_new_tokens=9).text
    assert answer.choices[0].message.content == text
    stream = client.chat.completions.create(
        model="tiny-edge",
        messages=messages,
        temperature=0,
        max_tokens=9,
        stream=True,
        logprobs=True,
        top_logprobs=1,
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    n_logprobs = sum(
        len(chunk.choices[0].logprobs.content or [])
        for chunk in chunks
        if chunk.choices[0].logprobs
    )
    assert n_logprobs == 9
    with pytest.raises(openai.BadRequestError, match="refuses these messages: who"):
        client.chat.completions.create(
            model="tiny-edge",
            messages=[{"role": "nobody", "content": ""}],  # type: ignore[list-item, misc]
        )
    model = served.models.named("tiny-edge")
    template, model.chat_template = model.chat_template, None
    try:
        with pytest.raises(openai.BadRequestError, match="no chat template: start the server with"):
            client.chat.completions.create(model="tiny-edge", messages=messages)
    finally:
        model.chat_template = template


def test_a_schema_is_kept_to(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    answer = client.completions.create(
        model="tiny-edge",
        prompt="x",
        max_tokens=40,
        seed=1,
        extra_body={"guided_json": schema},
    )
    assert json.loads(answer.choices[0].text)["a"] in (1, 2)
    chosen = client.completions.create(
        model="tiny-edge", prompt="x", extra_body={"guided_choice": ["yes", "no"]}
    )
    assert chosen.choices[0].text in ("yes", "no")


def test_models_embeddings_and_labels(client: openai.OpenAI, served: Running) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-edge", "sentiment-6m-int8"]
    assert client.models.retrieve("tiny-edge").owned_by == "gpt-edge"
    plain = client.embeddings.create(
        model="sentiment-6m-int8", input=["a b", "c"], encoding_format="float"
    )
    packed = client.embeddings.create(model="sentiment-6m-int8", input=["a b", "c"])
    assert plain.data[1].embedding == pytest.approx(packed.data[1].embedding, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="gives no hidden states"):
        client.embeddings.create(model="tiny-edge", input="a")
    assert sum(x * x for x in plain.data[0].embedding) == pytest.approx(1, abs=1e-4)
    body = {"model": "sentiment-6m-int8", "input": ["I loved it.", "Never again, a bad film."]}
    labels = [row["label"] for row in served.post("/v1/classify", body).json()["data"]]
    assert labels == ["positive", "negative"]
    unsure = served.post("/v1/classify", {**body, "threshold": 1.0}).json()["data"]
    assert [row["label"] for row in unsure] == [None, None]
    assert sum(unsure[0]["probs"]) == pytest.approx(1, abs=1e-5)
    assert served.post("/v1/classify", {**body, "threshold": 2}).status_code == 400
    refused = served.post("/v1/classify", {**body, "special": True})
    assert "special tokens are plain text to a model that" in refused.json()["error"]["message"]


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist; there are tiny-edge"):
        client.completions.create(model="gpt-9", prompt="a")
    with pytest.raises(openai.BadRequestError, match="the context of this model holds 64"):
        client.completions.create(model="tiny-edge", prompt="ab " * 60)
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: bo"):
        client.completions.create(model="tiny-edge", prompt="a", extra_body={"bo": 1})
    with pytest.raises(openai.BadRequestError, match="is a classifier"):
        client.completions.create(model="sentiment-6m-int8", prompt="a")


def test_each_of_many_clients_gets_its_own_text(served: Running, generator: Generator) -> None:
    """Rows join and leave while others run; lengths and seeds are mixed."""
    jobs = [
        {
            "prompt": "abc"[: 1 + job % 3] * (1 + job % 15),
            "seed": job,
            "max_tokens": 5 + 3 * (job % 7),
        }
        for job in range(24)
    ]
    with ThreadPoolExecutor(8) as pool:
        texts = list(
            pool.map(lambda job: served.complete(**job).json()["choices"][0]["text"], jobs)
        )
    for job, text in zip(jobs, texts, strict=True):
        expected = generator.complete(
            str(job["prompt"]),
            seed=int(job["seed"]),
            max_new_tokens=int(job["max_tokens"]),
            temperature=1.0,
            top_k=277,
        )
        assert text == expected.text


class SlowDecode:
    """Counts the steps of a session; the fourth waits for `go`."""

    def __init__(self, decode: Any) -> None:
        self._decode = decode
        self.n = 0
        self.is_waiting = threading.Event()
        self.go = threading.Event()

    def __call__(self, ids: Any, cache: Any) -> Any:
        self.n += 1
        if self.n == 4:
            self.is_waiting.set()
            assert self.go.wait(60)
        return self._decode(ids, cache)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row(
    stream: bool, served: Running, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = served.models.named("tiny-edge").engine
    assert engine is not None
    slow = SlowDecode(generator.session.decode)
    monkeypatch.setattr(generator.session, "decode", slow)
    body = {"model": "tiny-edge", "prompt": "a", "max_tokens": 50, "ignore_eos": True}
    content = json.dumps(body | {"stream": stream}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode() + content)
        assert slow.is_waiting.wait(60)
    # it has left: the server sees it while the step runs, and no step follows
    deadline = time.monotonic() + 60
    handles = engine._rows
    time.sleep(0.3)
    slow.go.set()
    while handles.n_running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.n_running == 0
    assert slow.n <= 6
    monkeypatch.undo()
    assert served.complete(temperature=0).json()["choices"][0]["text"] == (
        generator.complete("the end", max_new_tokens=5).text
    )


def test_a_client_that_leaves_before_the_first_event_ends_its_texts() -> None:
    ended: list[bool] = []
    started: list[bool] = []

    async def values() -> AsyncIterator[dict[str, Any]]:
        started.append(True)
        yield {}

    async def leave() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def stuck(message: Any) -> None:
        await asyncio.sleep(60)

    stream = EventStream(values(), lambda: ended.append(True))
    asyncio.run(stream({}, leave, stuck))  # type: ignore[arg-type]
    assert (started, ended) == ([], [True])


def test_a_full_line_is_429_and_says_when_to_come_again() -> None:
    for served in start(max_batch=1, max_waiting=1):
        generator = served.generator
        slow = SlowDecode(generator.session.decode)
        generator.session.decode = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(served.complete, max_tokens=9, ignore_eos=True)]
            assert slow.is_waiting.wait(60)
            jobs.append(pool.submit(served.complete, max_tokens=9, ignore_eos=True))
            engine = served.models.named("tiny-edge").engine
            assert engine is not None
            while not engine.n_waiting:
                time.sleep(0.01)
            refused = served.complete()
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["error"]["type"] == "rate_limit_error"
            slow.go.set()
            assert [job.result().status_code for job in jobs] == [200, 200]


@pytest.fixture(scope="module")
def keeping() -> Iterator[Running]:
    """A server that keeps what it has read."""
    yield from start(prefix_bytes=1 << 20)


def test_prompts_that_begin_alike_are_read_once(keeping: Running, generator: Generator) -> None:
    first = keeping.complete(prompt="the end of the rain", max_tokens=4).json()
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    other = keeping.complete(prompt="the end of the wind", max_tokens=8, temperature=0).json()
    expected = generator.complete("the end of the wind", max_new_tokens=8)
    assert other["choices"][0]["text"] == expected.text
    shared = generator.tokenizer.encode("the end of the ")
    n_cached = other["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert len(shared) - 2 <= n_cached < expected.prompt_tokens


@pytest.mark.parametrize(
    ("prefix_bytes", "is_exact", "keeps"),
    [
        (None, True, True),
        (None, False, False),
        (0, True, False),
        (1 << 20, False, True),
    ],
)
def test_what_was_read_is_kept_where_no_text_changes_by_it(
    prefix_bytes: int | None, is_exact: bool, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "is_row_exact", is_exact)
    models = open_models([str(bundle_path())], threads=1, prefix_bytes=prefix_bytes)
    try:
        model = models.named(None).generator
        assert model is not None
        assert (model.prefix_cache is not None) == keeps
    finally:
        models.close()


def test_a_client_may_name_the_built_in_model_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(served_models.log, "warning", logged.append)
    (old,) = RENAMED
    models = ServedModels([ServedModel(DEFAULT_BUNDLE, Bundle.open())])
    assert models.named(old).name == DEFAULT_BUNDLE
    assert logged == [renamed_note(old)]
    others = ServedModels([ServedModel("tiny-edge", Bundle.open(bundle_path()))])
    with pytest.raises(ApiError, match=f"{old}' does not exist; there are tiny-edge"):
        others.named(old)
