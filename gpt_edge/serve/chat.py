"""`POST /v1/chat/completions`: only with a template, the bundle's own or the operator's, since a
base model knows no roles.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.chat_template import Message, encode_chat
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.logprobs import TokenLogprob
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.completion_request import (
    CompletionRequest,
    check_rows,
    read_output,
    with_logprobs,
)
from gpt_edge.serve.completions import FINISH_REASON, token_text, usage
from gpt_edge.serve.fields import Fields
from gpt_edge.serve.running import RunningTexts
from gpt_edge.serve.sampling_fields import read_sampling
from gpt_edge.serve.served_models import ServedModel
from gpt_edge.tokenizer.spec import Tokenizer

MAX_MESSAGES = 256
MAX_TOP_LOGPROBS = 20
UNSUPPORTED = {
    "tools": "these models call no tools",
    "tool_choice": "these models call no tools",
    "functions": "these models call no tools",
    "function_call": "these models call no tools",
    "chat_template": "the server's operator chooses the template",
    "modalities": "these models write text alone",
    "audio": "these models write text alone",
}


def read_chat(fields: Fields, model: ServedModel) -> CompletionRequest:
    """A request to `/v1/chat/completions`. Raises ApiError 400 naming the field."""
    assert model.generator is not None
    if model.chat_template is None:
        raise ApiError(
            400,
            f"{model.name} has no chat template: start the server with --chat-template FILE, or "
            "use /v1/completions",
            code="no_chat_template",
        )
    fields.refuse(UNSUPPORTED)
    fields.text("user")
    config = model.generator.session.config
    messages = _read_messages(fields)
    old = fields.whole("max_tokens", 1, config.n_ctx)
    max_tokens = fields.whole("max_completion_tokens", 1, config.n_ctx, old) or config.n_ctx
    logprobs = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if not fields.flag("logprobs"):
        if logprobs is not None:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        logprobs = None
    else:
        logprobs = logprobs or 0
    output = read_output(fields, max_tokens, logprobs)
    tokenizer = model.generator.tokenizer
    params = read_sampling(
        fields, model.generator.generation_defaults, tokenizer.vocab_size, max_tokens
    )
    fields.finish()
    check_rows(output, 1)
    return CompletionRequest([render(messages, model)], with_logprobs(params, output), output)


def _read_messages(fields: Fields) -> list[Message]:
    value = fields.raw("messages")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        raise fields.wrong("messages", f"1 to {MAX_MESSAGES} messages", value)
    messages: list[Message] = []
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise fields.wrong("messages", "a list of objects", item)
        message = Fields(item, f"messages[{number}].")
        role = message.text("role")
        content = message.text("content")
        message.text("name")
        message.finish()
        if role is None or content is None:
            raise ApiError(400, f"messages[{number}] needs a role and a content", param="messages")
        messages.append({"role": role, "content": content})
    return messages


def render(messages: Sequence[Message], model: ServedModel) -> list[int]:
    """Ids of the text that the template makes of the messages, up to where the assistant begins.
    What a message spells never becomes a control token.

    Raises ApiError 400 for messages that it refuses, and for a template that fails.
    """
    assert model.generator is not None
    assert model.chat_template is not None
    try:
        text = model.chat_template.render(messages)
        contents = [message["content"] for message in messages]
        return encode_chat(text, contents, model.generator.tokenizer)
    except GPTEdgeError as error:
        raise ApiError(400, error.message, param="messages") from error
    except ValueError as error:
        raise ApiError(400, str(error), param="messages") from error


class ChatAnswer:
    """Forms the answer to one chat request, whole or in events."""

    def __init__(self, model: ServedModel, request: CompletionRequest) -> None:
        assert model.generator is not None
        self._tokenizer: Tokenizer = model.generator.tokenizer
        self._request = request
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.name,
        }

    def whole(self, rows: Sequence[Completion]) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        output = self._request.output
        kept = list(rows)
        if output.best_of > output.n:
            kept.sort(key=lambda row: row.mean_logprob, reverse=True)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": row.text, "refusal": None},
                "logprobs": self._logprobs(row.logprobs),
                "finish_reason": FINISH_REASON.get(row.finish_reason),
            }
            for index, row in enumerate(kept[: output.n])
        ]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage(rows, output.best_of),
        }

    async def events(self, running: RunningTexts) -> AsyncIterator[dict[str, Any]]:
        """The answer's events, without the last `[DONE]`."""
        n_sent = [0] * len(running.handles)
        for index in range(len(running.handles)):
            yield self._event(index, {"role": "assistant", "content": ""}, None, None)
        async for piece in running.pieces():
            entries = running.handles[piece.index].logprobs[n_sent[piece.index] :]
            n_sent[piece.index] += len(entries)
            reason = None
            delta: dict[str, str] = {}
            if piece.text is None:
                reason = FINISH_REASON.get(running.result(piece.index).finish_reason)
            else:
                delta = {"content": piece.text}
            yield self._event(piece.index, delta, reason, self._logprobs(entries))
        if self._request.output.include_usage:
            rows = [running.result(index) for index in range(len(running.handles))]
            yield {
                **self._head,
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": usage(rows, self._request.output.best_of),
            }

    def _event(
        self, index: int, delta: dict[str, str], reason: str | None, logprobs: Any
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _logprobs(self, entries: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
        if self._request.output.logprobs is None or entries is None:
            return None
        return {
            "content": [
                {
                    **self._token(entry.id, entry.logprob),
                    "top_logprobs": [self._token(*pair) for pair in entry.alternatives],
                }
                for entry in entries
            ],
            "refusal": None,
        }

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(self._tokenizer, id),
            "logprob": logprob,
            "bytes": list(self._tokenizer.token_bytes(id)),
        }
