"""Lists of characters: nanoGPT's meta.pkl, what of it is refused, and the tokenizer it becomes."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSpec, build_tokenizer, find_tokenizer, tokenizer_from

CHARACTERS = [*"\n !abcé猫", "🙂"]
META = {
    "vocab_size": len(CHARACTERS),
    "itos": dict(enumerate(CHARACTERS)),
    "stoi": {character: id for id, character in enumerate(CHARACTERS)},
}
PICKLED = pickle.dumps(META)


def write(folder: Path, meta: object, protocol: int | None = None) -> Path:
    path = folder / "meta.pkl"
    path.write_bytes(meta if isinstance(meta, bytes) else pickle.dumps(meta, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_meta_pkl_of_any_protocol_is_a_list_of_characters(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path, META, protocol)
    source = find_tokenizer(tmp_path)
    assert source is not None
    assert (source.spec.kind, source.spec.vocab_size, source.spec.end_token) == (
        "characters",
        len(CHARACTERS),
        None,
    )
    assert TokenizerSpec.from_dict(source.spec.to_dict()) == source.spec
    assert tokenizer_from(str(path)) == source
    assert tokenizer_from(str(tmp_path)) == source


def test_characters_become_their_places_and_come_back(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tokenizer_from(str(write(tmp_path, META))))
    text = "".join(CHARACTERS) + "a猫a"
    ids = [CHARACTERS.index(character) for character in text]
    assert tokenizer.encode(text) == tokenizer.encode_part(text, special=True) == ids
    assert tokenizer.decode(ids) == text
    assert [tokenizer.token_bytes(id).decode() for id in ids] == list(text)
    detokenizer = tokenizer.detokenizer()
    assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == text
    assert tokenizer.encode("") == []
    for outside in (-1, len(CHARACTERS)):
        with pytest.raises(ValueError, match="a token id must be from 0 to 8"):
            tokenizer.decode([outside])


def test_unknown_characters_are_an_error_that_names_them(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tokenizer_from(str(write(tmp_path, META))))
    with pytest.raises(TokenizerError) as caught:
        tokenizer.encode("abz\x1bz\ud800")
    assert caught.value.message == (
        r"the text holds 'z' (U+007A), '\x1b' (U+001B), '\ud800' (U+D800): not in the model's "
        "vocabulary of 9 characters"
    )
    with pytest.raises(TokenizerError, match=r"\(U\+006D\) and 1 more: not in"):
        tokenizer.encode("fghijklmn")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_nothing_in_a_meta_pkl_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = write(tmp_path, {**META, "more": Canary(canary)}, protocol)
        with pytest.raises(TokenizerError, match="would run code or holds other than plain values"):
            tokenizer_from(str(path))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"vocab_size": 50304}, "holds 'vocab_size', expected stoi and itos"),
        ({}, "holds nothing, expected stoi and itos"),
        ([1], "holds list, not a dictionary"),
        ({**META, "itos": {0: "a", 2: "b"}}, "the ids of itos are not 0 to 1"),
        ({**META, "itos": {}}, "the ids of itos are not 0 to -1"),
        ({**META, "itos": {"0": "a"}}, "the ids of itos are not"),
        ({**META, "itos": {0: "ab"}}, "token 0 is 'ab', expected one character"),
        ({**META, "itos": {0: {}}}, "token 0 is dict, expected one character"),
        ({**META, "stoi": {"a": 0}}, "not each other's inverse"),
        ({"stoi": {"a": 0}, "itos": ["a", "a"]}, "not each other's inverse"),
        ({"stoi": {"\ud800": 0}, "itos": ["\ud800"]}, "expected one character"),
        ({**META, "when": (1, 2)}, "opcode TUPLE2"),
        (b"\x80\x04", "corrupt pickle"),
        (PICKLED[:-9], "corrupt pickle"),
        (b"\x80\x02}r\xff\xff\xff\xff.", "corrupt pickle: it puts a value at 4294967295"),
        (b"\x80\x02}q\x00(X\x01\x00\x00\x00ah\x07s.", "corrupt pickle"),
    ],
)
def test_a_meta_pkl_that_is_no_list_of_characters_is_refused(
    tmp_path: Path, meta: object, message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from(str(write(tmp_path, meta)))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(piece=st.binary(max_size=6), start=st.integers(1, len(PICKLED)), length=st.integers(0, 30))
def test_a_mutated_meta_pkl_is_read_or_refused(
    tmp_path: Path, piece: bytes, start: int, length: int
) -> None:
    path = write(tmp_path, PICKLED[:start] + piece + PICKLED[start + length :])
    try:
        source = tokenizer_from(str(path))
    except TokenizerError:
        return
    assert source.spec.kind == "characters"


def test_the_gate_lets_through_what_nanogpt_writes() -> None:
    names = {opcode.name for opcode, _, _ in pickletools.genops(PICKLED)}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "must hold a list of characters"),
        (b"[]", "must hold a list of characters"),
        (b'["a", "ab"]', "token 1 is 'ab', expected one character"),
        (b'["a", "a"]', "the character 'a' comes twice"),
        (b'["a"', "is not readable JSON"),
        (b'["a", "b"]', "has 2 characters, expected 3"),
    ],
)
def test_a_corrupt_file_of_a_bundle_is_refused(content: bytes, message: str) -> None:
    from gpt_edge.tokenizer import TokenizerSource

    spec = TokenizerSpec("characters", "tokenizer.characters.json", 3)
    with pytest.raises(TokenizerError, match=message):
        build_tokenizer(TokenizerSource(spec, content))
