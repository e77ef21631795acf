"""Text from standard input, and the checks of text that a command takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gpt_edge.cli.support import console
from gpt_edge.errors import TokenizerError

if TYPE_CHECKING:
    from gpt_edge.tokenizer.spec import Tokenizer

MAX_INPUT_BYTES = 64 << 20  # an endless input must not fill the memory


def is_terminal_input() -> bool:
    """Return whether standard input is a terminal, where reading would wait for the user."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def read_stdin() -> str:
    """Return standard input. Raises TokenizerError if it is closed, too long or not UTF-8."""
    if sys.stdin is None or sys.stdin.closed:
        raise TokenizerError("standard input is closed", hint="give the text as an argument")
    stream = getattr(sys.stdin, "buffer", None)
    data = sys.stdin.read().encode() if stream is None else stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise TokenizerError(f"standard input has more than {MAX_INPUT_BYTES >> 20} MiB of text")
    try:
        return str(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            hint="convert it first, for example with iconv -t UTF-8",
        ) from error


def check_unicode(text: str, name: str = "the text") -> None:
    """Raise TokenizerError for an argument that was not UTF-8: Python has decoded such bytes to
    lone surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{name} is not UTF-8: character {error.start} cannot be read",
            hint="convert it first, for example with iconv -t UTF-8",
        ) from error


def note_special_token(text: str, tokenizer: Tokenizer, what: str = "the prompt") -> bool:
    """Write one line to standard error where `text` spells a special token, which is read as plain
    text. Returns whether it does.
    """
    from gpt_edge.tokenizer.special_tokens import spelled_note

    token = tokenizer.first_spelled(text)
    if token is not None:
        console.note(spelled_note(what, token))
    return token is not None
