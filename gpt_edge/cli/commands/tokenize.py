"""`tokenize`: text to token ids, and ids to text."""

from __future__ import annotations

from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BundleOption, JsonOption, RawOption, SpecialOption
from gpt_edge.cli.support.stdin import (
    check_unicode,
    is_terminal_input,
    note_special_token,
    read_stdin,
)


def tokenize(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT|-",
            help="Text, or token ids with --decode; - reads standard input, as does piped input "
            "without TEXT.",
        ),
    ] = None,
    model: BundleOption = None,
    decode: Annotated[bool, typer.Option("--decode", help="Convert token ids to text.")] = False,
    special: SpecialOption = False,
    raw: RawOption = False,
    as_json: JsonOption = False,
) -> None:
    """Convert text to token ids, or token ids to text.

    Special tokens in TEXT are treated as plain text without --special. Standard input is used
    unchanged, including the last line ending.
    """
    if special and decode:
        raise ValueError("--special is for text; --decode takes token ids")
    if text in (None, "-"):
        if text is None and is_terminal_input():
            raise ValueError("give TEXT, or - to read standard input")
        text = read_stdin()
    assert text is not None
    check_unicode(text)

    from gpt_edge.bundle.bundle import Bundle

    tokenizer = Bundle.open(model).load_tokenizer()
    if decode:
        ids = _parse_ids(text)
        decoded = tokenizer.decode(ids)
        if as_json:
            console.say_json({"text": decoded, "n_tokens": len(ids)})
        else:
            console.say(decoded, raw=raw)
        return
    if not special:
        note_special_token(text, tokenizer, "the text")
    ids = tokenizer.encode(text, special=special)
    if as_json:
        pieces = [tokenizer.token_bytes(id).decode("utf-8", "backslashreplace") for id in ids]
        console.say_json(
            {"ids": ids, "tokens": pieces, "n_tokens": len(ids), "n_bytes": len(text.encode())}
        )
    else:
        console.say(" ".join(map(str, ids)))


def _parse_ids(text: str) -> list[int]:
    numbers = text.replace(",", " ").split()
    for number in numbers:
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ValueError(f"--decode needs token ids separated by spaces, got {number!r:.40}")
    return [int(number) for number in numbers]
