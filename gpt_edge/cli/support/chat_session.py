"""ChatSession: a Conversation that is led by lines of text, of which some are commands. Replies go
to standard output, all else to standard error.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt_edge.cli.support import console
from gpt_edge.cli.support.chat_commands import COMMANDS, changed_params, help_text, shown_params
from gpt_edge.cli.support.stdin import note_special_token
from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.conversation import Conversation
from gpt_edge.generate.params import MAX_SEED

if TYPE_CHECKING:
    from gpt_edge.cli.support.chat_input import ChatInput
    from gpt_edge.generate.chat_template import ChatTemplate
    from gpt_edge.generate.completion import Completion
    from gpt_edge.generate.context import ContextPolicy
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams


class ChatSession:
    """`n_errors`: turns and commands that failed."""

    def __init__(
        self,
        model: Generator,
        params: SamplingParams,
        *,
        template: ChatTemplate | None,
        system: str | None,
        context: ContextPolicy,
        special: bool,
        raw: bool,
    ) -> None:
        self._model = model
        self._params = params
        self._template = template
        self._raw = raw
        self._special = special
        self._conversation = Conversation(
            model, template=template, system=system, context=context, special=special
        )
        self._last: Completion | None = None
        self._n_replies = 0
        self.n_errors = 0

    @property
    def greeting(self) -> str:
        """One line about what the model does."""
        name = self._model.session.name
        if self._template is not None:
            return f"{name} answers by its chat template; /help lists the commands"
        return (
            f"{name} continues text, it does not answer: write a beginning, an empty line lets it "
            "go on; /help lists the commands"
        )

    def run(self, source: ChatInput) -> None:
        """Take turns until the input ends. Errors of a turn are one line and end nothing."""
        while True:
            try:
                line = source.read()
                if line is None or not self.take(line):
                    return
            except KeyboardInterrupt:
                if not source.is_terminal:
                    raise
                console.note("Ctrl-D or /exit ends the chat")
            except (GPTEdgeError, ValueError, TypeError) as error:
                self.n_errors += 1
                hint = error.cli_hint if isinstance(error, GPTEdgeError) else None
                console.error(str(error), hint)

    def take(self, line: str) -> bool:
        """Do what a line says; False if it ends the chat."""
        if line.startswith("/") and not line.startswith("//"):
            return self._command(line)
        text = line[1:] if line.startswith("//") else line
        if text or self._template is None:
            self._reply(text)
        return True

    def _command(self, line: str) -> bool:
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name not in COMMANDS:
            raise ValueError(f"{name:.40} is no command: /help lists them, // begins a text with /")
        if COMMANDS[name][0] and not argument:
            raise ValueError(f"{name} needs {COMMANDS[name][0]}")
        if not COMMANDS[name][0] and argument:
            raise ValueError(f"{name} takes nothing, got {argument!r:.40}")
        match name:
            case "/help":
                _note_lines(help_text())
            case "/params":
                _note_lines(shown_params(self._params))
            case "/stats":
                _note_lines(self._stats())
            case "/set":
                self._params = changed_params(self._params, argument)
            case "/save" | "/load":
                self._keep(name, os.path.expanduser(argument))
            case "/undo" | "/retry":
                self._take_back(is_retry=name == "/retry")
        return name != "/exit"

    def _keep(self, name: str, path: str) -> None:
        if name == "/save":
            self._conversation.save(path)
        else:
            self._conversation = Conversation.load(
                self._model, path, template=self._template, special=self._special
            )
        n_turns = len(self._conversation.turns)
        verb = "kept in" if name == "/save" else "continued from"
        console.note(f"{n_turns} {'turn' if n_turns == 1 else 'turns'} {verb} {path}")

    def _take_back(self, *, is_retry: bool) -> None:
        turns = self._conversation.turns
        if not turns:
            raise ValueError("there is no turn to take back")
        self._conversation.rewind(1)
        if not is_retry:
            left = len(turns) - 1
            console.note(f"forgotten; {left} {'turn is' if left == 1 else 'turns are'} left")
            return
        if self._params.is_greedy:
            console.note("greedy replies are always the same: /set temperature 0.8 varies them")
        self._reply(turns[-1].text)

    def _reply(self, text: str) -> None:
        """Print a reply as it comes. Ctrl-C stops it; what was generated until then counts."""
        params = self._params
        if params.seed is not None:  # another reply each time, the same ones in the next chat
            seed = (params.seed + self._n_replies) & MAX_SEED
            params = dataclasses.replace(params, seed=seed)
        if not self._special:
            note_special_token(text, self._model.tokenizer, "the text")
        cancel = threading.Event()
        stream = self._conversation.send(text, params, cancel=cancel)
        self._n_replies += 1
        try:
            with _ctrl_c_sets(cancel):
                for piece in stream:
                    console.write(piece, raw=self._raw)
        finally:
            console.say()
            if not stream.is_over:
                stream.close()
        self._last = stream.completion
        if self._last.finish_reason == "cancelled":
            console.note("stopped")

    def _stats(self) -> str:
        """Turns, tokens, and the last reply."""
        turns = self._conversation.turns
        n_tokens = len(self._conversation.ids)
        n_ctx = self._model.session.config.n_ctx
        lines = [f"{len(turns)} turns, {n_tokens:,} tokens; the context holds {n_ctx:,}"]
        if (last := self._last) is not None:
            lines.append(
                f"last reply: {last.completion_tokens} tokens, {last.tokens_per_second:.0f} "
                f"tokens/s, ended by {last.finish_reason}; read {last.prompt_tokens} tokens, "
                f"{last.cached_tokens} of them before"
                + ("" if last.seed is None else f"; seed {last.seed}")
            )
        return "\n".join(lines)


def _note_lines(text: str) -> None:
    for line in text.split("\n"):
        console.note(line)


@contextmanager
def _ctrl_c_sets(cancel: threading.Event) -> Iterator[None]:
    """Let Ctrl-C set the event, and a second one interrupt. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
