"""ChatTemplate: messages as the text that a chat model was trained on, by the Jinja template that
its checkpoint brought. Needs the extra `chat`.

The template is untrusted: it runs in Jinja's sandbox, sees the messages and nothing else. What a
message spells never becomes a control token. Source of the variables and functions that a template
may use: transformers, utils/chat_template_utils.py.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypedDict

from gpt_edge.errors import GPTEdgeError, require
from gpt_edge.tokenizer.spec import Tokenizer


class Message(TypedDict):
    """role: "system", "user" or "assistant"."""

    role: str
    content: str


class ChatTemplate:
    """A template and the special tokens that it may print, by their names, such as bos_token."""

    def __init__(self, text: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """Raises MissingDependencyError without jinja2, GPTEdgeError for what is no Jinja."""
        self.text = text
        self._special_tokens = dict(special_tokens or {})
        jinja2 = require("jinja2")
        try:
            self._template = environment().from_string(text)
        except (jinja2.TemplateSyntaxError, RecursionError) as error:
            raise GPTEdgeError(
                f"the chat template is not Jinja: {_first_line(error)}", hint="correct it"
            ) from error

    def render(self, messages: Sequence[Message]) -> str:
        """The text up to where the assistant's next message begins. Raises GPTEdgeError for what
        the template refuses.
        """
        try:
            text: str = self._template.render(
                messages=list(messages), add_generation_prompt=True, **self._special_tokens
            )
        except Exception as error:  # a template may fail in any way
            raise GPTEdgeError(
                f"the chat template refuses these messages: {_first_line(error)}",
                hint="give the roles that this model knows, in its order",
            ) from error
        return text


def encode_chat(text: str, contents: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Ids of a rendered text: control tokens where the template prints them, plain text where one
    of the messages' `contents`, in their order, spells one.

    Raises ValueError where a message that spells one is not in the text as it is.
    """
    if all(tokenizer.first_spelled(content) is None for content in contents):
        return tokenizer.encode_part(text, special=True)
    ids: list[int] = []
    rest = text
    for content in contents:
        before, found, after = rest.partition(content.strip())
        if not found:
            raise ValueError(
                "the chat template changes a message that spells a special token, "
                f"{tokenizer.first_spelled(content)!r}: leave it out of the message"
            )
        ids += tokenizer.encode_part(before, special=True)
        ids += tokenizer.encode_part(found)
        rest = after
    return ids + tokenizer.encode_part(rest, special=True)


@functools.cache
def environment() -> Any:
    """The sandbox in which templates are parsed and run. Raises MissingDependencyError."""
    extension = require("jinja2.ext").Extension
    sandbox = require("jinja2.sandbox")

    class Generation(extension):  # type: ignore[misc, valid-type]
        """The block `generation`, which marks what an assistant says, and prints what it holds."""

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            """The statements inside."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    made = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return made


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:120]
