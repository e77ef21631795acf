"""Masks against a slow rule, on every kind of tokenizer; ends, batches, beams, and dead ends."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt_edge
from gpt_edge.errors import ConstraintError, TokenizerError
from gpt_edge.generate.beam_search import BeamParams
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.processor import ConstraintProcessor, admits
from gpt_edge.generate.constraints.vocabulary import vocabulary_of
from gpt_edge.generate.generator import Generator
from gpt_edge.tokenizer import Tokenizer, TokenizerSpec, build_tokenizer, find_tokenizer
from gpt_edge.tokenizer.formats.character_file import source_of_characters
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from gpt_edge.tokenizer.spec import TokenizerSource
from tests.support.scripted import scripted
from tests.support.tiny_model import END_TOKEN, open_generator

pytest.importorskip("llguidance")

PROMPT = "the end of"
LINES = ["first citizen: hear me speak.", "all: speak, speak.", "you are all resolved"] * 20
WORDS = Constraint.regex(r"(hear|speak|you are)( all|\.|, é?){0,2}")


def characters() -> Tokenizer:
    return build_tokenizer(
        source_of_characters(sorted(set("hear me speak you are all.,é")), "here")
    )


def sentence_piece(**settings: Any) -> Tokenizer:
    library = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=content,
        vocab_size=320,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
        **settings,
    )
    size = library.SentencePieceProcessor(model_proto=content.getvalue()).get_piece_size()
    special = (("<s>", 1), ("</s>", 2))
    spec = TokenizerSpec("sentencepiece", "spiece.model", size, 2, special)
    return build_tokenizer(TokenizerSource(spec, content.getvalue()))


def library_file(folder: Path, decoder: str) -> Tokenizer:
    tokenizers = pytest.importorskip("tokenizers")
    if decoder == "WordPiece":
        model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        model.decoder = tokenizers.decoders.WordPiece()
        trainer: Any = tokenizers.trainers.WordPieceTrainer(special_tokens=["[UNK]", "[SEP]"])
    elif decoder == "Metaspace":
        model = tokenizers.Tokenizer(tokenizers.models.Unigram())
        model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        model.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(
            special_tokens=["<unk>", "</s>"], unk_token="<unk>", vocab_size=80
        )
    else:
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.normalizer = tokenizers.normalizers.NFC()
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            special_tokens=["</s>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            vocab_size=300,
        )
    model.train_from_iterator([*LINES, "é"], trainer)
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    source = find_tokenizer(folder)
    assert source is not None
    assert source.spec.kind == "hf"
    return build_tokenizer(source)


def gpt1() -> Tokenizer:
    """Characters within and at the end of words, and a few pairs of them."""
    pytest.importorskip("tokenizers")
    merges = [("h", "e"), ("a", "r</w>"), ("he", "ar</w>"), ("l", "l</w>")]
    letters = sorted(set("hearmespeakyouareall.,é"))
    tokens = ["<unk>", *letters, *(f"{one}</w>" for one in letters), *map("".join, merges)]
    vocab = {token: id for id, token in enumerate(tokens)}
    spec = TokenizerSpec("gpt1", "tokenizer.json", len(vocab), None, (("<unk>", 0),))
    content = format_gpt1_file(vocab, merges, {"<unk>": 0})
    return build_tokenizer(TokenizerSource(spec, content))


@pytest.fixture(
    params=["gpt2", "characters", "sentencepiece", "suffix", "Metaspace", "ByteLevel", "gpt1"]
)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    match request.param:
        case "gpt2":
            return open_generator().tokenizer
        case "characters":
            return characters()
        case "sentencepiece":
            return sentence_piece()
        case "suffix":
            return sentence_piece(add_dummy_prefix=False, remove_extra_whitespaces=False)
        case "gpt1":
            return gpt1()
    return library_file(tmp_path / "hf", request.param)


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    """What ids say, with the space at the end that GPT-1's decoder takes off."""
    if tokenizer.kind != "gpt1":
        return tokenizer.decode(ids)
    return b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8").lstrip()


def walk(tokenizer: Tokenizer, constraint: Constraint, rng: random.Random) -> Iterator[list[int]]:
    """Ids chosen at random among those that a mask leaves, one more each time."""
    processor = ConstraintProcessor(constraint, tokenizer, 0, [])
    logits = np.random.default_rng(0).normal(size=tokenizer.vocab_size).astype(np.float32)
    ids: list[int] = []
    while not processor.is_over(ids) and len(ids) < 40:
        row = processor(ids, logits)
        allowed = np.flatnonzero(row > -np.inf)
        if not allowed.size:
            break
        np.testing.assert_array_equal(row[allowed], logits[allowed])
        yield ids
        going_on = [id for id in allowed.tolist() if processor.can_continue(ids, id)]
        assert going_on, (ids, allowed)
        ids = [*ids, rng.choice(going_on)]
    yield ids


def test_every_text_that_masks_allow_is_one_that_re_matches(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    pattern = str(WORDS.value)
    for _ in range(8):
        *_, ids = walk(tokenizer, WORDS, rng)
        text = tokenizer.decode(ids)
        assert re.fullmatch(pattern, text), (tokenizer.kind, ids, text)
        processor = ConstraintProcessor(WORDS, tokenizer, 0, [])
        assert processor.is_met(ids) == admits(WORDS, text)


def test_a_mask_allows_exactly_the_tokens_that_begin_an_admitted_text(
    tokenizer: Tokenizer,
) -> None:
    """The slow rule: a token may follow where the text with it begins one of the choices."""
    choices = ["hear me", "hear", "you are", "all, é", "speak."]
    constraint = Constraint.choice(choices)
    special = {
        id
        for id in range(tokenizer.vocab_size)
        if id == tokenizer.end_token or not tokenizer.token_bytes(id)
    }
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    processor = ConstraintProcessor(constraint, tokenizer, 0, [])
    for ids in walk(tokenizer, constraint, random.Random(3)):
        text = text_of(tokenizer, ids)
        if not text.isascii():  # a character in halves
            continue
        allowed = set(np.flatnonzero(processor(ids, logits) > -np.inf).tolist())
        for id in range(tokenizer.vocab_size):
            longer = text_of(tokenizer, [*ids, id])
            if id in special or "\ufffd" in longer or len(longer) <= len(text):
                continue
            fits = longer.startswith(text) and any(one.startswith(longer) for one in choices)
            assert (id in allowed) == fits, (ids, id, longer)


def test_a_history_that_changes_is_followed_back(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    processor = ConstraintProcessor(WORDS, tokenizer, 2, [])
    histories = [[7, 8, *ids] for _ in range(3) for ids in walk(tokenizer, WORDS, rng)]
    rng.shuffle(histories)
    for history in histories:
        alone = ConstraintProcessor(WORDS, tokenizer, 2, [])
        np.testing.assert_array_equal(processor(history, logits), alone(history, logits))
        assert processor.is_over(history) == alone.is_over(history)


def test_a_tokenizer_whose_tokens_depend_on_their_neighbours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer \(kind hf\)"):
        vocabulary_of(library_file(tmp_path / "hf", "WordPiece"))


def test_a_token_that_ends_the_text_is_free_only_where_the_text_may_end() -> None:
    generator = open_generator()
    logits = np.zeros(generator.tokenizer.vocab_size, np.float32)
    space = ord(" ")
    processor = ConstraintProcessor(
        Constraint.regex("a b?"), generator.tokenizer, 0, [END_TOKEN, space]
    )
    assert np.flatnonzero(processor([], logits) > -np.inf).tolist() == [ord("a")]
    # " " would be text here, but it ends the text, which is not complete
    longer = ConstraintProcessor(Constraint.regex("a b?"), generator.tokenizer, 0, [END_TOKEN])
    assert space in np.flatnonzero(longer([ord("a")], logits) > -np.inf)
    assert space not in np.flatnonzero(processor([ord("a")], logits) > -np.inf)
    ends = np.flatnonzero(longer([ord("a"), space], logits) > -np.inf)
    assert ends.tolist() == [ord("b"), END_TOKEN]


def test_greedy_sampling_and_batches_follow_the_constraint() -> None:
    generator = open_generator()
    constraint = Constraint.regex("[a-z]{3,6}[.!]")
    each = [
        gpt_edge.SamplingParams(constraint=constraint, max_new_tokens=12),
        gpt_edge.SamplingParams(constraint=constraint, max_new_tokens=12, temperature=2, seed=1),
        gpt_edge.SamplingParams(constraint=Constraint.choice(["ab", "abc"]), max_new_tokens=12),
        gpt_edge.SamplingParams(max_new_tokens=5),
        gpt_edge.SamplingParams(constraint=constraint, max_new_tokens=2),
    ]
    rows = generator.generate_batch([PROMPT] * len(each), each, batch_size=3)
    for params, row in zip(each, rows, strict=True):
        alone = generator.complete(PROMPT, params)
        assert (alone.text, alone.finish_reason, alone.is_constraint_met) == (
            row.text,
            row.finish_reason,
            row.is_constraint_met,
        )
    for row in rows[:2]:
        assert re.fullmatch("[a-z]{3,6}[.!]", row.text)
    assert [row.is_constraint_met for row in rows] == [True, True, True, None, False]
    assert rows[2].text in ("ab", "abc")
    assert rows[4].finish_reason == "length"


def test_a_complete_text_ends_by_stop_without_another_token() -> None:
    generator = scripted(b"yesyes")
    done = generator.complete(PROMPT, constraint={"choice": ["yes", "no"]}, max_new_tokens=3)
    assert (done.text, done.finish_reason, len(done.ids)) == ("yes", "stop", 3)
    cut = scripted(b"yes").complete(PROMPT, constraint={"choice": ["yes"]}, max_new_tokens=2)
    assert (cut.text, cut.finish_reason, cut.is_constraint_met) == ("ye", "length", False)
    long = scripted(b"a" * 9).complete(PROMPT, constraint={"regex": "a+"}, max_new_tokens=4)
    assert (long.text, long.finish_reason, long.is_constraint_met) == ("aaaa", "length", True)


def test_beam_search_follows_the_constraint() -> None:
    generator = open_generator()
    constraint = Constraint.regex("(ab|cd|[x-z]{2}){2}")
    found = generator.beam_search(
        PROMPT,
        beams=BeamParams(num_beams=3, num_return_sequences=3),
        constraint=constraint,
        max_new_tokens=8,
    )
    assert len({one.text for one in found}) == 3
    for one in found:
        assert re.fullmatch(str(constraint.value), one.text)
        assert (one.finish_reason, one.is_constraint_met) == ("stop", True)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Constraint.regex(r"[^\s\S]"), "admits no text of this model's tokens"),
        (Constraint.regex("a{0}"), "admits no text but the empty one"),
        (Constraint.grammar('start: ""'), "admits no text but the empty one"),
        (Constraint.grammar('start: start "a"'), "admits no text of this model's tokens"),
        (Constraint.regex("("), "is refused by llguidance: unclosed group"),
    ],
)
def test_a_constraint_that_admits_nothing_is_refused_before_any_work(
    constraint: Constraint, message: str
) -> None:
    def no_work(*_: object) -> None:
        raise AssertionError

    generator = scripted(b"a")
    generator.session.forward = no_work  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match=re.escape(message)):
        generator.complete(PROMPT, constraint=constraint)


def test_a_token_after_which_nothing_fits_is_not_chosen() -> None:
    """GPT-1's "u" would need a space after it, which only the end of a word brings."""
    tokenizer = gpt1()
    processor = ConstraintProcessor(Constraint.choice(["you are"]), tokenizer, 0, [])
    you = {tokenizer.token_bytes(id): id for id in range(tokenizer.vocab_size)}
    history = [you[b"y"], you[b"o"]]
    row = processor(history, np.zeros(tokenizer.vocab_size, np.float32))
    assert np.flatnonzero(row > -np.inf).tolist() == sorted([you[b"u"], you[b"u "]])
    assert not processor.can_continue(history, you[b"u"])
    assert processor.can_continue(history, you[b"u "])


def test_a_dead_end_says_after_what() -> None:
    generator = open_generator()
    constraint = Constraint.grammar('start: "ab" /[^\\s\\S]/')
    with pytest.raises(ConstraintError, match="cannot be followed after 'ab'"):
        generator.complete(PROMPT, constraint=constraint, max_new_tokens=5)


def test_processors_of_a_caller_cannot_bring_tokens_back() -> None:
    generator: Generator = open_generator()

    def favour(history: object, logits: np.ndarray) -> np.ndarray:
        changed = logits.copy()
        changed[ord("q")] = 1e4
        return changed

    done = generator.complete(
        PROMPT, constraint={"regex": "[ab]{4}"}, processors=[favour], max_new_tokens=9
    )
    assert re.fullmatch("[ab]{4}", done.text)


def test_a_text_that_no_token_can_continue_ends() -> None:
    """The pattern could go on with "z", which the vocabulary does not have."""
    tokenizer = characters()
    processor = ConstraintProcessor(Constraint.regex("you( are|z)?"), tokenizer, 0, [])
    ids = tokenizer.encode("you")
    assert not processor.is_over(ids)
    narrow = ConstraintProcessor(Constraint.regex("you(zz)?"), tokenizer, 0, [])
    assert not narrow.is_over(ids[:2])
    assert narrow.is_over(ids)
    assert narrow.is_met(ids)


def test_choices_may_hold_any_character_and_be_many() -> None:
    generator = open_generator()
    odd = [
        'a"b',
        "é\n\t\x00",
        "a",
        "ab",
        "\\",
        "/",
        "//",
        "a|b",
        "[x]",
        "(?:y)",
        "{2}",
        "^$",
        "#",
        " ",
    ]
    for option in odd:
        found = generator.complete(PROMPT, constraint={"choice": [option]}, max_new_tokens=20)
        assert (found.text, found.is_constraint_met) == (option, True)
        assert admits(Constraint.choice(odd), option)
    assert not admits(Constraint.choice(odd), "b")
    many = [f"word {number}" for number in range(10_000)]
    assert generator.complete(PROMPT, constraint={"choice": many}, max_new_tokens=20).text in many
