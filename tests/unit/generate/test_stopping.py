"""StopMatcher against a slow version: nothing of a stop string leaks, nothing is held back for
longer than it must.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.generate.stop_strings import StopMatcher

TEXT = st.text("aab", max_size=40)
STOPS = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)
CUTS = st.lists(st.integers(0, 40), max_size=12)


def slow_cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """Look at every beginning of the text: the first that ends with a stop string is cut before the
    longest such.
    """
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(TEXT, STOPS, CUTS)
def test_any_cutting_into_pieces_gives_what_the_slow_version_gives(
    text: str, stops: list[str], places: list[int]
) -> None:
    matcher = StopMatcher(stops)
    pieces = [matcher.push(piece) for piece in cut(text, places)]
    assert ("".join(pieces) + matcher.flush(), matcher.is_found) == slow_cut(text, stops)


@given(TEXT, STOPS)
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(
    text: str, stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    given_out = ""
    for end in range(1, len(text) + 1):
        given_out += matcher.push(text[end - 1])
        if matcher.is_found:
            break
        beginnings = [
            stop[:n] for stop in stops for n in range(1, len(stop)) if text[:end].endswith(stop[:n])
        ]
        held = max(map(len, beginnings), default=0)
        assert given_out == text[: end - held]


@pytest.mark.parametrize(
    ("stops", "pieces", "wanted"),
    [
        (["\n\n"], ["One.\n", "\nTwo."], "One."),
        (["</s>"], ["a<", "/", "s", ">b"], "a"),
        (["</s>"], ["a<", "/", "x"], "a</x"),
        (["aab"], ["aaaa", "b"], "aa"),
        (["END", "THE END"], ["THE E", "ND"], ""),
        (["THE END", "END"], ["THE E", "ND"], ""),
        (["abcd", "bc"], ["abcd"], "a"),
        ([], ["any", "thing"], "anything"),
    ],
)
def test_stop_strings_across_pieces(stops: list[str], pieces: list[str], wanted: str) -> None:
    matcher = StopMatcher(stops)
    assert "".join(map(matcher.push, pieces)) + matcher.flush() == wanted


def test_nothing_follows_a_stop_string() -> None:
    matcher = StopMatcher(["x"])
    assert matcher.push("axb") == "a"
    assert matcher.push("more") == ""
    assert matcher.flush() == ""
