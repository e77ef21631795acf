"""`tokenize`: text to token ids, and ids to text."""

from __future__ import annotations

from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BundleOption, JsonOption
from gpt_edge.cli.support.stdin import check_unicode, is_terminal_input, read_stdin


def tokenize(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT|-",
            help="Text, or ids with --decode; - or nothing reads standard input.",
        ),
    ] = None,
    model: BundleOption = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Read ids and print their text.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the token ids of a text, or the text of ids.

    Special tokens in TEXT are plain text. Standard input is taken as it is, the last line end
    included.
    """
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
            console.say(decoded)
        return
    ids = tokenizer.encode(text)
    if as_json:
        pieces = [tokenizer.token_bytes(id).decode("utf-8", "backslashreplace") for id in ids]
        console.say_json(
            {"ids": ids, "tokens": pieces, "n_tokens": len(ids), "n_bytes": len(text.encode())}
        )
    else:
        console.say(" ".join(map(str, ids)))


def _parse_ids(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise ValueError(f"--decode wants token ids separated by spaces, got {word!r:.40}")
    return [int(word) for word in words]
