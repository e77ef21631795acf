"""More tokens than the embedding has rows: which are accepted, and what they can do."""

from __future__ import annotations

import warnings

import pytest

from gpt_edge.errors import GPTEdgeWarning, TokenizerError
from gpt_edge.tokenizer import (
    TokenizerSource,
    TokenizerSpec,
    build_tokenizer,
    check_fits,
    fit_source,
    fit_to_rows,
)
from gpt_edge.tokenizer.formats.rank_file import format_ranks

BYTES = [bytes([value]) for value in range(256)]
WORDS = [b"th", b"the", b"er"]
SPECIAL = {"<s>": 259, "</s>": 260}


def source(**changes: object) -> TokenizerSource:
    values = {"end_token": 260, "special_tokens": tuple(SPECIAL.items()), **changes}
    spec = TokenizerSpec("gpt2", "tokenizer.tiktoken", 261, pattern="gpt2", **values)  # type: ignore[arg-type]
    return TokenizerSource(spec, format_ranks([*BYTES, *WORDS]))


def test_special_tokens_and_a_few_others_may_lack_a_row() -> None:
    for rows in (261, 300, 260, 259, 258, 248):
        check_fits(source().spec, rows)
    for rows in (247, 100, 1):
        with pytest.raises(TokenizerError, match=f"261 tokens, the model's embedding has {rows}"):
            check_fits(source().spec, rows)
    with pytest.raises(TokenizerError, match="puts token 260 before every text"):
        check_fits(source(prefix=(260,)).spec, 260)


def test_one_token_in_twenty_may_lack_a_row_whatever_it_is() -> None:
    """Of 261 tokens two are special: 13 missing are just 5 in a hundred, 14 are more."""
    check_fits(source().spec, 261 - 13)
    with pytest.raises(TokenizerError, match="247 rows"):
        fit_source(source(), 247)
    many = {f"<{id}>": id for id in range(231, 261)}
    check_fits(source(special_tokens=tuple(many.items())).spec, 231)
    with pytest.raises(TokenizerError, match="230 rows"):
        check_fits(source(special_tokens=tuple(many.items())).spec, 230)
    check_fits(source(prefix=(259,)).spec, 260)
    # the end token is the first without a row
    assert fit_to_rows(build_tokenizer(source(end_token=97)), 98).end_token == 97
    assert fit_to_rows(build_tokenizer(source(end_token=97)), 97).end_token is None


def test_just_one_in_twenty_may_lack_a_row() -> None:
    spec = TokenizerSpec("characters", "tokens", 260)
    check_fits(spec, 247)
    with pytest.raises(TokenizerError, match="246 rows"):
        check_fits(spec, 246)


def test_the_warning_points_at_the_caller() -> None:
    with pytest.warns(GPTEdgeWarning) as caught:
        fit_source(source(), 260)
    assert [warning.filename for warning in caught] == [__file__]


def test_pieces_of_a_library_are_cut_at_the_rows() -> None:
    class Pieces:
        kind, vocab_size, end_token, max_token_bytes, prefix = "hf", 3, None, None, ()

        def __init__(self, pieces: list[bytes] | None) -> None:
            self.piece_bytes = lambda: pieces

    fitted = fit_to_rows(Pieces([b"a", b"b", b"c"]), 2)  # type: ignore[arg-type]
    assert fitted.piece_bytes() == [b"a", b"b"]  # type: ignore[attr-defined]
    fitted = fit_to_rows(Pieces(None), 2)  # type: ignore[arg-type]
    assert fitted.piece_bytes() is None  # type: ignore[attr-defined]


def test_the_end_token_is_one_with_a_row_or_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_source(source(), 261) == source()
    with pytest.warns(GPTEdgeWarning, match=r"embedding 260 rows: the last 1, such as '</s>', can"):
        fitted = fit_source(source(), 260)
    assert fitted.spec.end_token is None
    assert fitted.content == source().content
    with pytest.warns(GPTEdgeWarning, match="the last 2"):
        assert fit_source(source(end_token=97), 259).spec.end_token == 97


def test_a_text_that_needs_a_token_without_a_row_is_an_error_that_names_it() -> None:
    whole = build_tokenizer(source())
    assert fit_to_rows(whole, 261) is whole
    fitted = fit_to_rows(whole, 258)
    assert (fitted.vocab_size, fitted.end_token, fitted.prefix) == (258, None, ())
    assert fitted.encode("the") == whole.encode("the") == [257]
    assert fitted.encode_part("th") == [256]
    assert fitted.first_spelled("a<s>") == "<s>"
    with pytest.raises(TokenizerError, match=r"needs the token 'er' \(id 258\)"):
        fitted.encode("her")
    with pytest.raises(TokenizerError, match=r"needs the token '<s>' \(id 259\)"):
        fitted.encode_part("<s>", special=True)
    assert fitted.decode([257, 97]) == "thea"
    assert fitted.token_bytes(257) == b"the"
    assert fitted.detokenizer().push(257) == "the"
