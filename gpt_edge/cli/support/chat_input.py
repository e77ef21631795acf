"""What a user of `chat` writes: on a terminal with history, editing and several lines, through
prompt_toolkit; elsewhere the lines of standard input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol

from gpt_edge.cli.support.chat_commands import COMMANDS
from gpt_edge.errors import TokenizerError, require

PROMPT = "> "
MAX_LINE_BYTES = 1 << 20


class ChatInput(Protocol):
    """Where turns come from."""

    is_terminal: bool

    def read(self) -> str | None:
        """The next turn or command; None at the end. Raises KeyboardInterrupt for Ctrl-C."""
        ...


def open_input() -> ChatInput:
    """The terminal, if there is one at both ends, else standard input. Raises
    MissingDependencyError for a terminal without prompt_toolkit, TokenizerError for a closed input.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise TokenizerError("standard input is closed", hint="give turns on standard input")
    if sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty():
        return TerminalInput(history_file())
    return LineInput()


def history_file() -> Path | None:
    """The file of lines that were entered before, for this user's eyes only; None where there is no
    place for one.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        home = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
        folder = home / "gpt-edge"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "chat_history"
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)
    except (OSError, RuntimeError):  # a read-only or missing home
        return None
    return path


class TerminalInput:
    """Lines that are edited on the terminal. Enter sends, Alt-Enter begins a new line."""

    is_terminal = True

    def __init__(self, history: Path | None) -> None:
        """history: None keeps what is entered in memory only."""
        prompt_toolkit = require("prompt_toolkit")
        histories = require("prompt_toolkit.history")
        completion = require("prompt_toolkit.completion")
        kept = histories.InMemoryHistory() if history is None else histories.FileHistory(history)
        self._session: Any = prompt_toolkit.PromptSession(
            history=kept,
            multiline=True,
            key_bindings=_key_bindings(),
            completer=completion.WordCompleter(list(COMMANDS), sentence=True),
            complete_while_typing=False,
            prompt_continuation="  ",
        )

    def read(self) -> str | None:
        """See `ChatInput`."""
        try:
            return str(self._session.prompt(PROMPT))
        except EOFError:
            return None


def _key_bindings() -> Any:
    bindings = require("prompt_toolkit.key_binding").KeyBindings()

    @bindings.add("enter")  # type: ignore[untyped-decorator, unused-ignore]
    def send(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")  # type: ignore[untyped-decorator, unused-ignore]
    def new_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class LineInput:
    """Lines of standard input. A backslash at the end of a line continues it on the next."""

    is_terminal = False

    def __init__(self) -> None:
        self._n_lines = 0

    def read(self) -> str | None:
        """See `ChatInput`. Raises TokenizerError, with the line's number, for a line that is not
        UTF-8 or too long; the next call goes on behind it.
        """
        parts: list[str] = []
        while (line := self._line()) is not None:
            if not line.endswith("\\"):
                return "\n".join([*parts, line])
            parts.append(line[:-1])
        return "\n".join(parts) if parts else None

    def _line(self) -> str | None:
        data = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
        if not data:
            return None
        self._n_lines += 1
        if len(data) > MAX_LINE_BYTES:
            while data and not data.endswith(b"\n"):
                data = sys.stdin.buffer.readline(MAX_LINE_BYTES)
            raise TokenizerError(
                f"line {self._n_lines} has more than {MAX_LINE_BYTES >> 20} MiB of text"
            )
        try:
            return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"line {self._n_lines} is not UTF-8: byte {error.start} is "
                f"0x{data[error.start]:02x}",
                hint="convert it first, for example with iconv -t UTF-8",
            ) from error
