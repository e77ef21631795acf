"""The output of commands: results to standard output, errors and progress to standard error, each
safe for a terminal.

Every message is one line. Control characters in it, also those of a file name, are written as
escapes such as `\\x1b`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from gpt_edge.errors import MAX_MESSAGE, OutputError

# C0, DEL, C1, the two separators of lines, and what makes a terminal show text in another order
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e]")
SURROGATE = re.compile("[\ud800-\udfff]")


class ClosedPipe(Exception):
    """The reader of standard output went away."""


def visible(text: str, keep: str = "") -> str:
    """Return `text` with control characters, except those in `keep`, and lone surrogates written as
    escapes, so that a terminal executes nothing.

    Each character is looked at alone, so a sequence that comes in pieces is disarmed as well.
    """

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"

    return SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", CONTROL.sub(escape, text))


def write(text: str, *, raw: bool = False) -> None:
    """Write `text` to standard output immediately. On a terminal, control characters other than \\n
    and \\t are escaped, unless the user asked for them with --raw.

    Raises ClosedPipe, OSError, and OutputError if there is no standard output.
    """
    stream = _stdout()
    if stream.isatty() and not raw:
        text = visible(text, keep="\n\t")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError as error:
        raise ClosedPipe from error
    except UnicodeEncodeError:  # a terminal of another encoding
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()


def say(text: str = "", *, raw: bool = False) -> None:
    """Write one or more whole lines to standard output; raw as for `write`."""
    write(text + "\n", raw=raw)


def say_json(values: Mapping[str, Any]) -> None:
    """Write one JSON object on one line to standard output, in ASCII: every terminal and every
    reader accepts it.
    """
    say(json.dumps(values, allow_nan=False))


def flush() -> None:
    """Flush standard output. Raises ClosedPipe and OSError."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error


def error(message: str, hint: str | None = None) -> None:
    """Write a line `error: ...`, and a line `hint: ...` if there is one, to standard error."""
    _write_error(f"error: {visible(message)[:MAX_MESSAGE]}")
    if hint:
        _write_error(f"hint: {visible(hint)}")


def note(message: str) -> None:
    """Write a line that is not part of the result to standard error."""
    _write_error(visible(message))


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Replace warnings.showwarning: one line, without source code."""
    _write_error(f"warning: {visible(str(message))}")


def end_line() -> None:
    """Move the cursor to the start of a line, after Ctrl-C on a terminal."""
    if _is_terminal(sys.stderr):
        _write_error("")


def discard_stdout() -> None:
    """Redirect standard output to the null device, so that the interpreter's last flush does not
    fail again.
    """
    with suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each stage, "checking int8 against torch", and of
    each weight, "h.0.mlp.c_fc.weight".

    On a terminal, a line on standard error shows the stage and the weight; elsewhere nothing is
    written.
    """
    if not _is_terminal(sys.stderr):
        yield lambda name: None
        return
    from rich.console import Console
    from rich.text import Text

    stage = visible(first)
    with Console(stderr=True).status(Text(stage)) as status:

        def show(name: str) -> None:
            nonlocal stage
            name = visible(name)  # a file's names of weights may hold anything
            is_weight = " " not in name and "." in name
            if not is_weight:
                stage = name
            status.update(Text(f"{stage}  {name}" if is_weight else stage))

        yield show


@contextmanager
def bar(unit: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """Yield a function to call with how many are done, and a word about them: a bar with the
    remaining time on standard error, if that is a terminal.
    """
    if not _is_terminal(sys.stderr):
        yield lambda done, word: None
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn(unit),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[word]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=total, word="")
        yield lambda done, word: shown.update(task, completed=done, word=word)


def _stdout() -> TextIO:
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError("standard output is closed")
    return sys.stdout


def _write_error(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed: the exit code must be enough
        if sys.stderr is not None:
            encoding = sys.stderr.encoding or "ascii"
            print(
                line.encode(encoding, "backslashreplace").decode(encoding),
                file=sys.stderr,
                flush=True,
            )


def _is_terminal(stream: TextIO | None) -> bool:
    with suppress(ValueError, AttributeError):  # closed
        return stream is not None and stream.isatty()
    return False
