"""A terminal for commands that run in this process: what they print there is read from its other
end.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.cli import main

END = b"\x04the end\x04"


@contextlib.contextmanager
def terminal_output() -> Iterator[io.BytesIO]:
    """Standard output and standard error are a terminal; yields what it was sent, complete once the
    block has ended.

    A mark is read to know the end: where a terminal is closed, Linux may drop what was written just
    before.
    """
    controller, terminal = pty.openpty()
    shown = io.BytesIO()

    def read() -> None:
        while not shown.getvalue().endswith(END):
            shown.write(os.read(controller, 65536))
        shown.truncate(len(shown.getvalue()) - len(END))

    kept = os.dup(terminal)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        with (
            open(terminal, "w", encoding="utf-8", errors="strict") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            yield shown
    finally:
        os.write(kept, END)
        reader.join()
        os.close(kept)
        os.close(controller)


def run_on_terminal(*arguments: str | Path) -> tuple[int, str]:
    """`gpt-edge ARGUMENTS` with its outputs on a terminal: the exit code, and what was shown."""
    with pytest.MonkeyPatch.context() as patch, terminal_output() as shown:
        patch.setattr(sys, "stdin", io.StringIO())
        code = main([str(argument) for argument in arguments])
    return code, shown.getvalue().decode().replace("\r\n", "\n")
