"""Conversation: a text that a user and a model continue in turns. What was read is kept, so a turn
reads only what is new.

Without a template it is a notebook: a base model continues whatever the text is. With one, turns
are messages of a chat.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from gpt_edge.arguments import check_is_a, check_path, check_text
from gpt_edge.errors import StateError
from gpt_edge.generate.chat_template import ChatTemplate, Message, encode_chat
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.context import ContextPolicy, check_context
from gpt_edge.generate.params import SamplingParams, SamplingSettings, params_with
from gpt_edge.generate.prompt import fit_prompt
from gpt_edge.generate.settings import CallOptions, shows_settings
from gpt_edge.generate.state_file import HINT, read_state, write_state
from gpt_edge.generate.turn import OpenTurn, Turn, turn_of

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.stream import TextStream

NOTE_FIELDS = ("system", "context", "keep_first", "turns")


class Conversation:
    """Turns with one model. One at a time: `send` is refused while the last reply has not ended.

    Thread-safe. `turns`: those that have ended. A turn that an error ended leaves no trace.
    """

    def __init__(
        self,
        model: Generator,
        *,
        template: ChatTemplate | None = None,
        system: str | None = None,
        context: ContextPolicy = "error",
        keep_first: int = 0,
        special: bool = False,
    ) -> None:
        """template: `model.chat_template()` for a chat model; None is a notebook. system: the first
        message of a chat, or what a notebook begins with. context, keep_first: see
        `Generator.stream`; only a window keeps turns short when the context is full. special:
        special tokens that messages spell become their ids; else they are plain text.
        Raises ValueError for a wrong context.
        """
        check_is_a("template", template, ChatTemplate)
        if system is not None:
            check_text("system", system)
        check_context(context, keep_first, model.session.config.n_ctx)
        self.model = model
        self.template = template
        self.system = system
        self.context: ContextPolicy = context
        self.keep_first = keep_first
        self.special = special
        self._turns: list[Turn] = []
        self._sequence = model.new_sequence()
        self._open: OpenTurn | None = None
        self._lock = threading.RLock()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far. Raises RuntimeError while a reply is under way."""
        with self._lock:
            self._settle()
            return tuple(self._turns)

    @property
    def ids(self) -> list[int]:
        """All ids of the text."""
        ids: list[int] = []
        for turn in self.turns:
            ids[turn.n_kept :] = turn.ids
        return ids

    @property
    def text(self) -> str:
        """The whole text of a notebook; of a chat, as the template has it."""
        return self.model.tokenizer.decode(self.ids)

    @property
    def messages(self) -> list[Message]:
        """The turns as messages, with the system's."""
        messages: list[Message] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.text})
            messages.append({"role": "assistant", "content": turn.reply})
        return messages

    @shows_settings(SamplingSettings)
    def send(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        cancel: threading.Event | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> TextStream:
        """Continue after `text`, piece by piece; the turn counts when the stream has ended, also by
        its `close`.

        Raises RuntimeError while another reply is under way, ContextLengthError, before any work
        and changing nothing, where the text no longer fits and the context is "error".
        """
        check_text("text", text)
        params = params_with(params, settings)
        with self._lock:
            self._settle()
            ids, n_kept = self._ids_with(text)
            n_dropped = self._turns[-1].n_dropped if self._turns and n_kept else 0
            first = self.keep_first if n_dropped else 0
            prompt = fit_prompt(
                [*ids[:first], *ids[first + n_dropped :]],
                self.model.session.config.n_ctx,
                params.max_new_tokens,
                self.context,
                self.keep_first,
            )
            stream = self.model.stream_encoded(
                prompt, params, CallOptions(cancel=cancel, sequence=self._sequence)
            )
            n_dropped += prompt.dropped_tokens
            self._open = OpenTurn(text, ids, n_kept, n_dropped, stream)
            return stream

    @shows_settings(SamplingSettings)
    def complete(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        cancel: threading.Event | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Completion:
        """`send`, and the whole reply."""
        stream = self.send(text, params, cancel=cancel, **settings)
        for _ in stream:
            pass
        return stream.completion

    def rewind(self, n_turns: int = 1) -> None:
        """Forget the last turns. What stays is not read again. Raises ValueError for more than
        there are.
        """
        with self._lock:
            self._settle()
            if not 0 <= n_turns <= len(self._turns):
                raise ValueError(f"{len(self._turns)} turns cannot be rewound by {n_turns}")
            del self._turns[len(self._turns) - n_turns :]

    def fork(self) -> Conversation:
        """Another conversation that continues from here, with a copy of what was read."""
        with self._lock:
            self._settle()
            other = Conversation(
                self.model,
                template=self.template,
                system=self.system,
                context=self.context,
                keep_first=self.keep_first,
                special=self.special,
            )
            other._turns = list(self._turns)
            other._sequence = self._sequence.copy()
            return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Put it into a file, with what was read; see `Generator.save_state`. The template and
        `special` stay out. Raises ValueError before the first turn, OutputError.
        """
        with self._lock:
            self._settle()
            note = {name: getattr(self, name) for name in NOTE_FIELDS}
            note["turns"] = [dataclasses.asdict(turn) for turn in self._turns]
            text = json.dumps(note, separators=(",", ":"))
            check_path("path", path)
            write_state(Path(path), self._sequence, text.encode("utf-8", "surrogatepass"))

    @classmethod
    def load(
        cls,
        model: Generator,
        path: str | os.PathLike[str],
        *,
        template: ChatTemplate | None = None,
        special: bool = False,
    ) -> Conversation:
        """What `save` put there, to continue with `template` and `special`. Raises StateError for a
        file that is corrupt, another model's, or no conversation.
        """
        check_path("path", path)
        sequence, note = read_state(Path(path), model.session)
        try:
            values = json.loads(note.decode("utf-8", "surrogatepass"))
            turns = [turn_of(value) for value in values.pop("turns")]
            made = cls(model, template=template, special=special, **values)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise StateError(f"{path} is a state, but no conversation", hint=HINT) from error
        made._turns = turns
        made._sequence = sequence
        return made

    def _settle(self) -> None:
        """Take in the reply that has ended. Raises RuntimeError for one that has not."""
        if self._open is None:
            return
        if not self._open.stream.is_over:
            raise RuntimeError(
                "the last reply has not ended: read it to its end, or close its stream"
            )
        opened, self._open = self._open, None
        if opened.stream.finish_reason is not None:
            self._turns.append(opened.turn(self.model, self._sequence))

    def _ids_with(self, text: str) -> tuple[list[int], int]:
        """Ids of the whole text with the next message, and how many of those before stay."""
        before = self.ids
        tokenizer = self.model.tokenizer
        if self.template is not None:
            return self._chat_with(text, before, self.template)
        if before:
            return before + tokenizer.encode_part(text, special=self.special), len(before)
        start = (self.system or "") + text
        if not start:  # unconditional, behind an end token
            return self.model.encode_prompt("", 1).ids, 0
        return tokenizer.encode(start, special=self.special), 0

    def _chat_with(
        self, text: str, before: list[int], template: ChatTemplate
    ) -> tuple[list[int], int]:
        messages = self.messages
        new = template.render([*messages, {"role": "user", "content": text}])
        if self._turns:
            # as generated, unless the template writes past messages in another way
            old = template.render(messages[:-1]) + messages[-1]["content"]
            if new.startswith(old):
                return before + self._encode_chat(new[len(old) :], [text]), len(before)
        contents = [message["content"] for message in messages]
        ids = self._encode_chat(new, [*contents, text])
        n_kept = 0
        while n_kept < min(len(ids), len(before)) and ids[n_kept] == before[n_kept]:
            n_kept += 1
        return ids, n_kept if n_kept == len(before) else 0

    def _encode_chat(self, text: str, contents: list[str]) -> list[int]:
        plain = () if self.special else contents
        return encode_chat(text, plain, self.model.tokenizer)
