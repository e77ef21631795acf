"""Where special tokens stand in a text, by their rules; and the ids of tokens that are added."""

from __future__ import annotations

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.added_tokens import (
    AddedToken,
    added_ids,
    rules_of,
    unused_between,
)
from gpt_edge.tokenizer.special_tokens import (
    ALWAYS,
    LEFT,
    NEVER,
    RIGHT,
    WORD,
    SpecialTokenFinder,
    spelled_note,
)

IDS = {"<a>": 1, "<a>b": 2, "w": 3, "<l>": 4, "<r>": 5, "<n>": 6}
RULES = (
    ("<a>", (ALWAYS,)),
    ("w", (ALWAYS, WORD)),
    ("<l>", (LEFT,)),
    ("<r>", (RIGHT,)),
    ("<n>", (NEVER,)),
)


def parts(text: str, special: bool = True) -> list[str | int]:
    return list(SpecialTokenFinder(IDS, RULES).split(text, special))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("x", ["x"]),
        ("<a>", [1]),
        ("<a><a>x", [1, 1, "x"]),
        ("x<a>", ["x", 1]),
        ("<a>b<a>c", [2, 1, "c"]),
        ("w ww w", [3, " ww ", 3]),
        ("wx w.", ["wx ", 3, "."]),
        ("x \n<l> y", ["x", 4, " y"]),
        ("x <r> \n y", ["x ", 5, "y"]),
        (" <l>", [4]),
        ("<r> ", [5]),
        ("<n>x", ["<n>x"]),
    ],
)
def test_tokens_are_found_from_the_left_the_longest_first(
    text: str, found: list[str | int]
) -> None:
    assert parts(text) == found


def test_without_a_request_only_some_count() -> None:
    assert parts("<a>b<l>w", special=False) == [1, "b<l>", 3]
    assert parts("<l> w", special=False) == ["<l> ", 3]
    assert list(SpecialTokenFinder({}, ()).split("<a>", True)) == ["<a>"]
    finder = SpecialTokenFinder(IDS, RULES)
    assert finder.first_spelled("<n><a>x <r> <l>") == "<r>"
    assert finder.first_spelled("x  <l>") == "<l>"
    assert finder.first_spelled("<n><a>w") is None
    assert SpecialTokenFinder({"<a>": 1}, RULES).first_spelled("<a>") is None


def test_a_token_that_takes_spaces_on_both_sides_or_holds_some_is_found() -> None:
    both = SpecialTokenFinder({"<b>": 7}, (("<b>", (LEFT, RIGHT)),))
    assert list(both.split("x \n<b>\t y", True)) == ["x", 7, "y"]
    assert both.first_spelled("x \n<b>\t y") == "<b>"
    held = SpecialTokenFinder({" <b> ": 7}, ((" <b> ", (LEFT, RIGHT)),))
    assert list(held.split("x <b> y", True)) == ["x", 7, "y"]


def test_a_text_that_spells_a_token_is_told() -> None:
    note = spelled_note("the prompt", "<a>")
    assert note.startswith("the prompt spells the special token '<a>', which is read as plain text")


def token(text: str, id: int | None, rules: tuple[str, ...] = ()) -> AddedToken:
    return AddedToken(text, id, True, rules)


def test_added_tokens_without_an_id_get_the_next_free_ones() -> None:
    added = {"<x>": token("<x>", None), "b": token("b", None), "<y>": token("<y>", None)}
    assert added_ids({"a": 0, "b": 1}, added, "file") == {"<x>": 2, "b": 1, "<y>": 3}
    placed = {"<p>": token("<p>", 7), **added}
    assert added_ids({"a": 0, "b": 1}, placed, "file") == {"<p>": 7, "<x>": 8, "b": 1, "<y>": 9}
    assert added_ids({}, {"<x>": token("<x>", None)}, "file") == {"<x>": 0}
    with pytest.raises(TokenizerError, match="'b' has id 1 in the vocabulary and 5 as"):
        added_ids({"b": 1}, {"b": token("b", 5)}, "file")


def test_ids_that_are_left_out_get_names() -> None:
    assert unused_between({"a": 0, "b": 1}, {}) == {}
    assert unused_between({"a": 0, "b": 1}, {"<x>": 2}) == {}
    expected = {"<|unused_2|>": 2, "<|unused_4|>": 4}
    assert unused_between({"a": 0, "b": 1}, {"<x>": 3, "<y>": 5}) == expected
    assert unused_between({"a": 3}, {"<x>": 1}) == {}
    assert unused_between({"a": 0}, {"<x>": 1 << 40}) == {}


def test_rules_are_those_of_added_tokens_and_never_for_others() -> None:
    added = {"<x>": token("<x>", 1, (LEFT,)), "<y>": token("<y>", 2)}
    special = {"<x>": 1, "<y>": 2, "<z>": 3, "<unk>": 4, "<|endoftext|>": 5}
    assert rules_of(special, added, is_explicit=False) == (("<x>", (LEFT,)),)
    assert rules_of(special, added, is_explicit=True) == (("<x>", (LEFT,)), ("<z>", (NEVER,)))
