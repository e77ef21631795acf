"""`POST /v1/completions`: OpenAI's completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gpt_edge.generate.completion import Completion
from gpt_edge.generate.logprobs import TokenLogprob
from gpt_edge.serve.completion_request import CompletionRequest
from gpt_edge.serve.running import RunningTexts
from gpt_edge.serve.served_models import ServedModel
from gpt_edge.tokenizer.spec import Tokenizer

# ours to OpenAI's; a text that was cancelled is not sent
FINISH_REASON = {"stop": "stop", "length": "length", "context_full": "length"}


class CompletionAnswer:
    """Forms the answer to one request, whole or in events."""

    def __init__(self, model: ServedModel, request: CompletionRequest) -> None:
        assert model.generator is not None
        self._tokenizer: Tokenizer = model.generator.tokenizer
        self._request = request
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }

    def whole(self, rows: Sequence[Completion]) -> dict[str, Any]:
        """The answer of a request that does not stream. rows: `best_of` for each prompt."""
        output = self._request.output
        choices: list[dict[str, Any]] = []
        for start in range(0, len(rows), output.best_of):
            group = list(rows[start : start + output.best_of])
            if output.best_of > output.n:
                group.sort(key=lambda row: row.mean_logprob, reverse=True)
            prompt = self._request.prompts[start // output.best_of]
            choices += [
                self._choice(len(choices) + number, prompt, row)
                for number, row in enumerate(group[: output.n])
            ]
        return {**self._head, "choices": choices, "usage": usage(rows, output.best_of)}

    async def events(self, running: RunningTexts) -> AsyncIterator[dict[str, Any]]:
        """The answer's events, without the last `[DONE]`."""
        output = self._request.output
        n_sent = [0] * len(running.handles)  # tokens whose log-probabilities were sent
        if output.echo:
            for index in range(len(running.handles)):
                yield self._event(index, self._echo_text(self._prompt_of(index)), None, None)
        async for piece in running.pieces():
            reason = None
            if piece.text is None:
                reason = FINISH_REASON.get(running.result(piece.index).finish_reason)
            elif output.max_tokens == 0:
                continue
            handle = running.handles[piece.index]
            logprobs = None
            if output.logprobs is not None:
                entries = handle.logprobs[n_sent[piece.index] :]
                n_sent[piece.index] += len(entries)
                logprobs = self._logprobs(entries)
            yield self._event(piece.index, piece.text or "", reason, logprobs)
        if output.include_usage:
            rows = [running.result(index) for index in range(len(running.handles))]
            yield {**self._head, "choices": [], "usage": usage(rows, output.best_of)}

    def _event(
        self, index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None
    ) -> dict[str, Any]:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "choices": [choice]}

    def _prompt_of(self, row: int) -> str | list[int]:
        return self._request.prompts[row // self._request.output.best_of]

    def _echo_text(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

    def _choice(self, index: int, prompt: str | list[int], row: Completion) -> dict[str, Any]:
        output = self._request.output
        text = "" if output.max_tokens == 0 else row.text
        entries: list[TokenLogprob | None] = []
        if output.echo:
            text = self._echo_text(prompt) + text
            entries += [None, *(row.prompt_logprobs or ())]
        if output.max_tokens:
            entries += row.logprobs or ()
        logprobs = None
        if output.logprobs is not None:
            logprobs = self._logprobs(entries, self._first_id(prompt))
        return {
            "text": text,
            "index": index,
            "logprobs": logprobs,
            "finish_reason": FINISH_REASON.get(row.finish_reason),
        }

    def _first_id(self, prompt: str | list[int]) -> int | None:
        if isinstance(prompt, str):
            ids = self._tokenizer.encode(prompt, special=self._request.special)
            return ids[0] if ids else self._tokenizer.end_token
        return prompt[0]

    def _logprobs(
        self, entries: Sequence[TokenLogprob | None], first: int | None = None
    ) -> dict[str, Any]:
        """OpenAI's four lists. first: the token of an entry None, which nothing precedes."""
        tokens: list[str] = []
        offsets: list[int] = []
        offset = 0
        for entry in entries:
            id = first if entry is None else entry.id
            assert id is not None
            tokens.append(token_text(self._tokenizer, id))
            offsets.append(offset)
            offset += len(tokens[-1])
        return {
            "tokens": tokens,
            "token_logprobs": [None if entry is None else entry.logprob for entry in entries],
            "top_logprobs": [
                None
                if entry is None
                else {
                    token_text(self._tokenizer, id): logprob for id, logprob in entry.alternatives
                }
                for entry in entries
            ],
            "text_offset": offsets,
        }


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """A token's text; part of a character as `bytes:\\xe2\\x80`, as OpenAI writes it."""
    raw = tokenizer.token_bytes(id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def usage(rows: Sequence[Completion], best_of: int) -> dict[str, Any]:
    """Tokens of all prompts, each once, and of all texts that were generated; of the prompts' those
    that the prefix cache had.
    """
    prompts = rows[::best_of]
    prompt_tokens = sum(row.prompt_tokens for row in prompts)
    completion_tokens = sum(row.completion_tokens for row in rows)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(row.cached_tokens for row in prompts)},
    }
