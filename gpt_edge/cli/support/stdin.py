"""Text that a command reads from standard input, and the check of text that the shell gave."""

from __future__ import annotations

import sys

from gpt_edge.errors import TokenizerError

MAX_INPUT_BYTES = 64 << 20  # an endless input must not fill the memory


def is_terminal_input() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def read_stdin() -> str:
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


def check_unicode(text: str, what: str = "the text") -> None:
    """Raise TokenizerError for an argument whose bytes were not UTF-8: Python turned them into lone
    surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{what} is not UTF-8: character {error.start} cannot be read",
            hint="convert it first, for example with iconv -t UTF-8",
        ) from error
