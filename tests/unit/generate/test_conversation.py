"""Conversation: turns that read only what is new, forks and rewinds, and what ends one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.errors import ContextLengthError, GPTEdgeError, StateError
from gpt_edge.generate.chat_template import ChatTemplate, encode_chat
from gpt_edge.generate.conversation import Conversation
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.state_file import write_state
from tests.support.native_model import open_native
from tests.support.tiny_model import GRAPHS, N_CTX, open_generator

SHORT = SamplingParams(max_new_tokens=4, ignore_end_token=True)
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(params=GRAPHS)
def model(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def n_read(done: Any) -> int:
    return int(done.prompt_tokens - done.cached_tokens)


def test_a_notebook_continues_as_one_text(model: Generator) -> None:
    conversation = Conversation(model)
    first = conversation.complete("the", SHORT)
    second = conversation.complete("zz", SHORT)
    ids = [*model.tokenizer.encode("the"), *first.ids, *model.tokenizer.encode_part("zz")]
    assert second.ids == tuple(model.generate_ids(ids, SHORT))
    assert conversation.ids == [*ids, *second.ids]
    assert conversation.text == model.tokenizer.decode([*ids, *second.ids])
    assert [turn.text for turn in conversation.turns] == ["the", "zz"]
    assert [turn.reply for turn in conversation.turns] == [first.text, second.text]


def test_twelve_turns_read_what_is_new_and_the_token_that_was_chosen_last() -> None:
    model = open_native()
    conversation = Conversation(model)
    params = SamplingParams(max_new_tokens=6, ignore_end_token=True, logprobs=1)
    for number in range(12):
        text = " He went to the park." if number else "Once upon a time"
        n_new = len(model.tokenizer.encode_part(text))
        ids = conversation.ids
        done = conversation.complete(text, params)
        assert n_read(done) == n_new + (number > 0)
        alone = model.generate_ids([*ids, *model.tokenizer.encode_part(text)], params)
        assert (tuple(alone), alone.logprobs) == (done.ids, done.logprobs)


def test_a_chat_is_rendered_by_its_template(model: Generator) -> None:
    conversation = Conversation(model, template=ChatTemplate(TEMPLATE), system="be kind")
    first = conversation.complete("hi", SHORT)
    start = "<system>be kind\n<user>hi\n<assistant>"
    assert first.ids == model.complete(start, SHORT).ids
    second = conversation.complete("more", SHORT)
    ids = [*model.tokenizer.encode(start), *first.ids]
    ids += model.tokenizer.encode_part("\n<user>more\n<assistant>")
    assert second.ids == tuple(model.generate_ids(ids, SHORT))
    assert second.cached_tokens >= len(model.tokenizer.encode(start)) + len(first.ids) - 1
    assert conversation.messages == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": second.text},
    ]


def test_a_template_that_rewrites_the_past_is_read_again_from_where_it_differs() -> None:
    model = open_generator()
    last_only = "{{ messages[0]['content'] }}|{{ messages[-1]['content'] }}>"
    conversation = Conversation(model, template=ChatTemplate(last_only))
    for text in ("abc", "def", "ghi"):
        done = conversation.complete(text, SHORT)
        assert done.ids == model.complete(f"abc|{text}>", SHORT).ids
    assert conversation.turns[-1].n_kept == 0
    assert conversation.ids == [*model.tokenizer.encode("abc|ghi>"), *done.ids]


def test_forks_go_their_own_ways_without_reading_again(model: Generator) -> None:
    trunk = Conversation(model)
    trunk.complete("the end", SHORT)
    fork = trunk.fork()
    one, other = trunk.complete("aa", SHORT), fork.complete("bb", SHORT)
    assert n_read(one) == n_read(other) == 3
    for conversation, text, done in ((trunk, "aa", one), (fork, "bb", other)):
        before = conversation.ids[: -len(done.ids)]
        assert tuple(model.generate_ids(before, SHORT)) == done.ids
        assert conversation.turns[-1].text == text
    assert trunk.turns[0] == fork.turns[0]


def test_a_rewound_turn_gives_the_same_again(model: Generator) -> None:
    conversation = Conversation(model)
    conversation.complete("the", SHORT)
    first = conversation.complete("aa", SHORT)
    conversation.complete("bb", SHORT)
    conversation.rewind(2)
    again = conversation.complete("aa", SHORT)
    assert again.ids == first.ids
    assert n_read(again) == 1  # all but the last token of the prompt was still there
    conversation.rewind(2)
    assert conversation.turns == ()
    for wrong in (1, -1):
        with pytest.raises(ValueError, match="0 turns cannot be rewound by"):
            conversation.rewind(wrong)


def test_a_reply_under_way_keeps_others_out(model: Generator) -> None:
    conversation = Conversation(model)
    stream = conversation.send("the", SHORT)
    next(stream)
    for call in (
        lambda: conversation.send("b"),
        conversation.fork,
        conversation.rewind,
        lambda: conversation.turns,
        lambda: conversation.save("never"),
    ):
        with pytest.raises(RuntimeError, match="the last reply has not ended"):
            call()
    stream.close()
    (turn,) = conversation.turns
    assert turn.reply == stream.completion.text
    done = conversation.complete("b", SHORT)
    assert done.ids == tuple(model.generate_ids(conversation.ids[: -len(done.ids)], SHORT))


def test_of_many_threads_that_send_at_once_one_does(model: Generator) -> None:
    conversation = Conversation(model)
    barrier = threading.Barrier(8)
    streams: list[object] = []
    errors: list[BaseException] = []

    def send() -> None:
        barrier.wait()
        try:
            streams.append(conversation.send("the", SHORT))
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(streams), len(errors)) == (1, 7)


def test_an_error_leaves_no_trace(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = Conversation(model)
    conversation.complete("the", SHORT)
    ids = conversation.ids

    def fail(*_: object) -> None:
        raise GPTEdgeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.session, "decode", fail)
        with pytest.raises(GPTEdgeError, match="no memory"):
            conversation.complete("aa", SHORT)
    with pytest.raises(ContextLengthError):
        conversation.send("q" * N_CTX)
    with pytest.raises(ValueError, match="text must be a string, got int"):
        conversation.send(3)  # type: ignore[arg-type]
    assert conversation.ids == ids
    done = conversation.complete("aa", SHORT)
    expected = model.generate_ids([*ids, *model.tokenizer.encode_part("aa")], SHORT)
    assert done.ids == tuple(expected)


def test_a_stop_string_is_no_part_of_the_text(model: Generator) -> None:
    long = SamplingParams(max_new_tokens=12, ignore_end_token=True)
    free = Conversation(model).complete("the", long).text
    conversation = Conversation(model)
    stop = free[4:6]
    done = conversation.complete("the", long, stop=(stop,))
    assert done.text == free[: free.index(stop)]
    assert conversation.text == "the" + done.text


def test_an_empty_start_is_unconditional(model: Generator) -> None:
    conversation = Conversation(model)
    assert conversation.complete("", SHORT).ids == model.complete("", SHORT).ids
    ids = conversation.ids
    assert conversation.complete("", SHORT).ids == tuple(model.generate_ids(ids, SHORT))


def test_a_window_lets_a_conversation_go_on(model: Generator) -> None:
    conversation = Conversation(model, system="begin", context="window", keep_first=3)
    most = 0
    for number in range(60):
        done = conversation.complete("ab"[number % 2] * 3, SHORT)
        assert done.finish_reason == "length"
        most = max(most, n_read(done))
    first = model.tokenizer.encode("begin")[:3]
    assert conversation._sequence.ids[:3] == first
    assert most <= (N_CTX - 3) // 2 + 1
    n_shifts = sum(
        after.n_dropped > before.n_dropped
        for before, after in zip(conversation.turns, conversation.turns[1:], strict=False)
    )
    assert n_shifts < 60 * 7 / 25  # a shift makes room for thirty tokens, a turn takes seven
    ids = conversation.ids
    dropped = conversation.turns[-1].n_dropped
    seen = [*ids[:3], *ids[3 + dropped :], *model.tokenizer.encode_part("zz")]
    if len(seen) <= N_CTX - 4:
        assert conversation.complete("zz", SHORT).ids == tuple(model.generate_ids(seen, SHORT))


def turns_in_flat_memory(n_turns: int) -> None:
    model = open_generator()
    conversation = Conversation(model, context="window")
    params = SamplingParams(max_new_tokens=40, top_k=5, ignore_end_token=True)
    expected = model.session.new_cache(capacity=N_CTX).n_bytes
    n_tokens = 0
    for number in range(n_turns):
        done = conversation.complete("the end", params, seed=number)
        n_tokens += done.completion_tokens
        assert conversation._sequence.cache.n_bytes == expected
        assert len(conversation._sequence.ids) <= N_CTX
        assert n_read(done) <= N_CTX // 2 + 1
    assert n_tokens == 40 * n_turns
    assert len(conversation.turns) == n_turns


def test_a_conversation_stays_as_large_as_its_context() -> None:
    turns_in_flat_memory(12)


@pytest.mark.slow
def test_two_hundred_turns_stay_as_large_as_their_context() -> None:
    turns_in_flat_memory(200)


@pytest.mark.parametrize("template", [None, ChatTemplate(TEMPLATE.replace("m['role']", "'m'"))])
def test_a_saved_conversation_goes_on_with_the_same_bits(
    model: Generator, tmp_path: Path, template: ChatTemplate | None
) -> None:
    conversation = Conversation(model, template=template, system="é \ud83d")
    with pytest.raises(ValueError, match="nothing was read yet"):
        conversation.save(tmp_path / "a.state")
    for text in ("the", "end"):
        conversation.complete(text, SHORT)
    conversation.save(tmp_path / "a.state")
    loaded = Conversation.load(model, tmp_path / "a.state", template=template)
    assert loaded.turns == conversation.turns
    assert loaded.system == conversation.system
    sequence = model.load_state(tmp_path / "a.state")
    assert sequence.ids == loaded.ids[: len(sequence.ids)]
    params = SamplingParams(max_new_tokens=4, ignore_end_token=True, logprobs=2)
    one, other = (each.complete("go", params) for each in (conversation, loaded))
    assert (one.ids, one.logprobs, one.cached_tokens) == (
        other.ids,
        other.logprobs,
        other.cached_tokens,
    )


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"[]",
        b"\xff",
        json.dumps({"turns": 3}).encode(),
        json.dumps({"turns": [{"text": "a"}]}).encode(),
        json.dumps({"turns": [], "context": "no", "keep_first": 0, "system": None}).encode(),
        json.dumps({"turns": [], "context": "error", "keep_first": 0, "system": 3}).encode(),
        json.dumps(
            {"turns": [{"text": "a", "reply": "b", "n_kept": -1, "ids": [1]}]},
        ).encode(),
        json.dumps({"turns": [{"text": "a", "reply": "b", "n_kept": 0, "ids": ["1"]}]}).encode(),
        json.dumps({"turns": [], "more": 1}).encode(),
    ],
)
def test_a_state_that_is_no_conversation_is_refused(tmp_path: Path, note: bytes) -> None:
    model = open_generator()
    stream = model.stream("the", SHORT)
    next(stream)
    write_state(tmp_path / "a.state", stream.sequence, note)
    with pytest.raises(StateError, match="is a state, but no conversation"):
        Conversation.load(model, tmp_path / "a.state")


def test_a_message_never_becomes_a_control_token() -> None:
    model = open_generator()
    tokenizer = model.tokenizer
    end = "<|endoftext|>"
    template = ChatTemplate(
        "{{ eos_token }}{% for m in messages %}{{ m['content'] | trim }};{% endfor %}",
        {"eos_token": end},
    )
    messages: Any = [{"role": "user", "content": f" a{end}b "}, {"role": "user", "content": "c"}]
    text = template.render(messages)
    ids = encode_chat(text, [message["content"] for message in messages], tokenizer)
    assert ids.count(tokenizer.end_token) == 1
    assert ids[0] == tokenizer.end_token
    assert tokenizer.decode(ids) == text
    with pytest.raises(ValueError, match="the chat template changes a message that spells"):
        encode_chat("nothing of it", [f"a{end}"], tokenizer)
    conversation = Conversation(model, template=template)
    conversation.complete(f"a{end}b", SHORT)
    assert conversation.ids.count(tokenizer.end_token) == 1


def test_special_tokens_of_messages_are_read_where_asked(tmp_path: Path) -> None:
    model = open_generator()
    end = model.tokenizer.end_token
    plain, asked = Conversation(model), Conversation(model, special=True)
    for talk in (plain, asked):
        talk.complete("a<|endoftext|>b", SHORT)
    assert end not in plain.ids
    wanted = model.tokenizer.encode("a<|endoftext|>b", special=True)
    assert asked.ids[: len(wanted)] == wanted
    asked.save(tmp_path / "a.state")
    again = Conversation.load(model, tmp_path / "a.state", special=True)
    for talk in (asked, asked.fork(), again):
        talk.complete("<|endoftext|>", SHORT)
        assert talk.ids.count(end) == 2
    template = ChatTemplate("{% for m in messages %}{{ m['content'] | upper }};{% endfor %}")
    chat = Conversation(model, template=template, special=True)
    for number in (1, 2):  # the second is rendered anew
        chat.complete("a<|ENDOFTEXT|>", SHORT)
        assert len(chat.turns) == number


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content }}", "refuses these messages"),
        ("{{ ''.__class__.__mro__ }}", "refuses these messages"),
        ("{{ messages.append(1) }}", "refuses these messages"),
    ],
)
def test_a_template_that_fails_is_one_clear_error(template: str, message: str) -> None:
    conversation = Conversation(open_generator(), template=ChatTemplate(template))
    with pytest.raises(GPTEdgeError, match=message):
        conversation.send("a")
    assert conversation.turns == ()


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(GPTEdgeError, match="the chat template is not Jinja"):
        ChatTemplate("{% for %}")


def test_templates_may_use_what_transformers_gives_them() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%%') }}"
    )
    rendered = template.render([{"role": "user", "content": "é<"}] * 2)
    assert rendered == '{"role": "user", "content": "é<"}%'


def test_a_wrong_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context must be one of"):
        Conversation(open_generator(), context="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="system must be a string"):
        Conversation(open_generator(), system=3)  # type: ignore[arg-type]


def test_a_bundle_without_a_template_has_none() -> None:
    assert open_generator().chat_template() is None
