"""Places of tokens in a text, and labels for them."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.classify.token_labels import NOWHERE, label_tokens, token_spans
from gpt_edge.errors import TokenizerError


class Pieces:
    """A tokenizer that gives the same tokens for every text."""

    kind = "pieces"

    def __init__(self, *pieces: bytes, prefix: int = 0) -> None:
        self.pieces = [b"<s>"] * prefix + list(pieces)
        self.prefix = tuple(range(prefix))

    def encode(self, text: str, *, special: bool) -> list[int]:
        return list(range(len(self.pieces)))

    def token_bytes(self, id: int) -> bytes:
        return self.pieces[id]


@pytest.mark.parametrize(
    ("text", "pieces", "spans"),
    [
        ("a bc", (b"a", b" bc"), [(0, 1), (1, 4)]),
        # both halves of a character cover it
        ("é!", (b"\xc3", b"\xa9!"), [(0, 1), (0, 2)]),
        ("a 🙂", (b"a", b" \xf0\x9f", b"\x99", b"\x82"), [(0, 1), (1, 3), (2, 3), (2, 3)]),
        # the space that a tokenizer sets before a text is no part of it
        ("ab", (b" a", b"b"), [(0, 1), (1, 2)]),
        # and by itself has the first character's place
        ("ab", (b" ", b"ab"), [(0, 1), (0, 2)]),
        ("x\ud800", (b"x", b"\xef\xbf\xbd"), [(0, 1), (1, 2)]),
    ],
)
def test_places_are_those_of_characters(
    text: str, pieces: tuple[bytes, ...], spans: list[tuple[int, int]]
) -> None:
    assert token_spans(Pieces(*pieces), text) == spans  # type: ignore[arg-type]


def test_tokens_that_are_no_parts_of_the_text_have_no_place() -> None:
    with pytest.raises(TokenizerError, match="a pieces tokenizer are no parts of the text"):
        token_spans(Pieces(b"ab"), "AB")  # type: ignore[arg-type]


def test_a_token_before_every_text_gets_no_label() -> None:
    spans = token_spans(Pieces(b"ab", prefix=1), "ab")  # type: ignore[arg-type]
    assert spans == [NOWHERE, (0, 2)]
    logits = np.array([[9, 0], [0, 1]], np.float32)
    (row,) = label_tokens(("x", "y"), "ab", spans, logits)
    assert (row.text, row.label) == ("ab", "y")
    assert row.probability == pytest.approx(np.e / (1 + np.e))
    with pytest.raises(ValueError, match="longer"):
        label_tokens(("x", "y"), "ab", spans[:1], logits)
