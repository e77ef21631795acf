"""The slices of a pattern: found where a class repeats often, and of no effect on any mask."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.python_regex import to_rust_syntax
from gpt_edge.generate.constraints.slices import slices_of
from gpt_edge.generate.constraints.vocabulary import Vocabulary

pytest.importorskip("llguidance")

LETTERS = "abc ,'AB.é9"
PATTERNS = [
    r"[A-C][a-c ,']{20,200}\.",
    r"[^\d.]{3,40}9{2}",
    r"[\w ]{,64}",
    r".{33}",
    r"[a\]b]{40}c|[^abc]{2,50}",
    r"\d{1,100}",
    r"\w+( \w+){2,39}",
    r"([a-c]{1,40} ?){3,9}",
]


def vocabulary() -> Vocabulary:
    rng = random.Random(5)
    words = {"".join(rng.choices(LETTERS, k=rng.randint(1, 34))).encode() for _ in range(3000)}
    return Vocabulary([*(bytes([value]) for value in range(256)), *sorted(words)])


def test_a_class_that_repeats_often_has_slices_and_no_other() -> None:
    assert slices_of(r"[a-z ,']{20,200}\.") == ("[a-z ,']{1,10}", "[a-z ,']{1,30}")
    assert slices_of(to_rust_syntax(r"[\w,]{40}")) == (
        r"[[[\p{L}\p{N}_],]&&[\x00-\x7f]]{1,10}",
        r"[[[\p{L}\p{N}_],]&&[\x00-\x7f]]{1,30}",
    )
    words = (" [a-z]+", "[a-z]+", " [a-z]{1,10}", "[a-z]{1,10}")
    assert slices_of(r"[a-z]+(,[a-z]+){2,8}") == words
    assert slices_of(r"[a-z]+(,[a-z]+){2,7}") == slices_of(r"[a-z]+\)\{2,8\}") == ()
    assert slices_of(r"([a-z]{1,40} ){9}") == (*words, "[a-z]{1,30}")
    assert slices_of(r"[a-z]{1,31}[0-9]+x{2}") == ()
    assert slices_of(r"a\.{50}") == ()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_mask_changes(pattern: str) -> None:
    sliced, plain = vocabulary(), vocabulary()
    plain._with_slices = lambda slices: plain._tokenizer  # type: ignore[method-assign]
    plain._sliced = plain._with_slices  # type: ignore[assignment]
    constraint = Constraint.regex(pattern)
    assert slices_of(to_rust_syntax(pattern))
    rng = random.Random(pattern)
    for _ in range(4):
        with_slices, without = sliced.matcher(constraint), plain.matcher(constraint)
        while not without.is_stopped():
            mask = np.frombuffer(without.compute_bitmask(), np.uint8)
            found = np.frombuffer(with_slices.compute_bitmask(), np.uint8)
            assert np.array_equal(mask, found)
            ids = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
            id = int(rng.choice(ids))
            assert without.consume_token(id) == with_slices.consume_token(id)


def test_a_slice_that_the_library_refuses_is_left_out() -> None:
    it = vocabulary()
    assert it._sliced(("[z-a]{1,10}",)) is it._tokenizer
    assert it._sliced(("[a-z]{1,10}",)) is not it._tokenizer


@pytest.mark.parametrize("pattern", [r"[\w ]{20,200}", r"\w+( \w+){2,39}", r"[^\s,]{3,40}"])
def test_the_slices_of_unicode_classes_are_taken(pattern: str) -> None:
    it = vocabulary()
    assert it._sliced(slices_of(to_rust_syntax(pattern))) is not it._tokenizer
