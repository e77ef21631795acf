"""Generator: a session and its tokenizer, ready to write. Streams ids or text, returns whole texts,
one or a batch.

Checks what a caller gives before any work: a prompt that cannot fit is refused before it is even
cut into tokens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.sampling import SamplingParams
from gpt_edge.generate.stream import Completion, TextAssembly, TextStream, TokenChoice, TokenStream
from gpt_edge.runtime.kv_cache import KVCache
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

Truncate = Literal["left"]
BATCH_SIZE = 8


def open_generator(bundle: Bundle, *, threads: int | None = None) -> Generator:
    """Make an opened bundle ready to write: the tokenizer is built while onnxruntime arranges the
    weights.
    """
    with ThreadPoolExecutor(1) as other:
        session = other.submit(Session, bundle, threads=threads)
        tokenizer = bundle.load_tokenizer()
        return Generator(session.result(), tokenizer)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids the model will read, and how many were cut from their start."""

    ids: list[int]
    dropped_tokens: int = 0


class Generator:
    """Writes text with one model. Thread-safe: every generation has a cache of its own."""

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self.session = session
        self.tokenizer = tokenizer

    def generate_ids(
        self,
        ids: Sequence[int],
        params: SamplingParams | None = None,
        *,
        cancel: threading.Event | None = None,
    ) -> TokenStream:
        """Continue `ids`, one id at a time; the end token is not given. The innermost ring: no
        text, so no stop strings.

        Raises ValueError for no ids, ids out of range or stop strings; ContextLengthError for more
        than the context.
        """
        params = params or SamplingParams()
        if params.stop:
            raise ValueError("stop strings need text: use stream or complete")
        vocab_size = self.session.config.vocab_size
        if not ids or not all(0 <= id < vocab_size for id in ids):
            raise ValueError(f"ids must be one or more token ids from 0 to {vocab_size - 1}")
        self._check_length(len(ids))
        return TokenStream(self.session, ids, params, self.tokenizer, cancel)

    def stream(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        truncate: Truncate | None = None,
        cancel: threading.Event | None = None,
    ) -> TextStream:
        """Continue `prompt`, text piece by text piece; the default is greedy.

        An empty prompt starts a text from nothing, after an end token, as GPT-2 was trained.
        truncate: "left" cuts the start of a prompt that leaves no room for max_new_tokens, see
        `encode_prompt`.
        cancel: set it, from any thread, and the stream ends before its next token.
        Raises ContextLengthError, before any work, for a prompt that does not fit.
        """
        params = params or SamplingParams()
        encoded = self.encode_prompt(prompt, params.max_new_tokens, truncate)
        tokens = TokenStream(self.session, encoded.ids, params, self.tokenizer, cancel)
        return TextStream(tokens, params, self.tokenizer, encoded.dropped_tokens)

    def complete(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        truncate: Truncate | None = None,
        cancel: threading.Event | None = None,
    ) -> Completion:
        """Continue `prompt` and return the whole; see `stream`."""
        stream = self.stream(prompt, params, truncate=truncate, cancel=cancel)
        for _ in stream:
            pass
        return stream.completion

    def generate_batch(
        self,
        prompts: Sequence[str],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        truncate: Truncate | None = None,
        cancel: threading.Event | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[Completion]:
        """Continue every prompt, `batch_size` at a time through the model, and return them in
        order.

        Each is what `complete` alone would give: a seed starts every row anew. params: one for all,
        or one per prompt. decode_seconds of a row is the time until it ended. All prompts are
        checked before the first is read.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts must be a sequence of strings, got one string")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        each = (
            [params or SamplingParams()] * len(prompts)
            if not isinstance(params, Sequence)
            else list(params)
        )
        if len(each) != len(prompts):
            raise ValueError(
                f"one SamplingParams per prompt is wanted, {len(prompts)}, got {len(each)}"
            )
        rows = [
            _Row(self.encode_prompt(prompt, own.max_new_tokens, truncate), own, self)
            for prompt, own in zip(prompts, each, strict=True)
        ]
        for start in range(0, len(rows), batch_size):
            _run_batch(rows[start : start + batch_size], self.session, cancel or threading.Event())
        return [row.completion() for row in rows]

    def encode_prompt(
        self, prompt: str, max_new_tokens: int, truncate: Truncate | None = None
    ) -> Prompt:
        """Ids of `prompt`, at least one and at most a context full.

        truncate="left" keeps the end of the prompt: as many tokens as leave room for
        max_new_tokens, but at least half the context. Raises ValueError for a prompt that is no
        string, or empty where no end token could start a text.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"prompt must be a string, got {type(prompt).__name__}")
        if truncate not in (None, "left"):
            raise ValueError(f"truncate must be 'left' or None, got {truncate!r}")
        if truncate is None:
            self._check_bytes(prompt)
        ids = self.tokenizer.encode(prompt)
        if not ids:
            if self.tokenizer.end_token is None:
                raise ValueError(
                    "the prompt is empty, and this model has no end token to start a text from"
                )
            ids = [self.tokenizer.end_token]
        if truncate is None:
            self._check_length(len(ids))
            return Prompt(ids)
        n_ctx = self.session.config.n_ctx
        kept = ids[-max(n_ctx - max_new_tokens, n_ctx // 2, 1) :]
        return Prompt(kept, len(ids) - len(kept))

    def _check_bytes(self, prompt: str) -> None:
        """Refuse a prompt by its size alone: cutting 10 MB into tokens would take seconds and end
        in a refusal.
        """
        widest = self.tokenizer.max_token_bytes
        n_bytes = len(prompt.encode("utf-8", "replace"))
        if widest is not None and n_bytes > widest * self.session.config.n_ctx:
            raise ContextLengthError(
                f"the prompt has {n_bytes} bytes, more than the context of "
                f"{self.session.config.n_ctx} tokens can hold",
                hint="shorten it, or keep its end with --truncate left",
            )

    def _check_length(self, n_tokens: int) -> None:
        n_ctx = self.session.config.n_ctx
        if n_tokens > n_ctx:
            raise ContextLengthError(
                f"the prompt has {n_tokens} tokens, the context of this model holds {n_ctx}",
                hint="shorten it, or keep its end with --truncate left",
            )


class _Row:
    """One sequence of a batch."""

    def __init__(self, prompt: Prompt, params: SamplingParams, generator: Generator) -> None:
        self.prompt = prompt
        n_ctx = generator.session.config.n_ctx
        self.choice = TokenChoice(params, len(prompt.ids), n_ctx, generator.tokenizer)
        self.text = TextAssembly(params, generator.tokenizer)
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    def take(self, logits: FloatArray) -> None:
        """Choose the next token; an ended row has its text complete."""
        id = self.choice.choose(logits)
        if id is not None:
            self.text.push(id)
        if self.choice.finish_reason is not None:
            self.text.flush()
        if self.text.is_stopped:
            self.choice.finish_reason = "stop"

    def cancel(self) -> None:
        """End the row here."""
        self.text.flush()
        self.choice.finish_reason = "cancelled"

    def completion(self) -> Completion:
        assert self.choice.finish_reason is not None
        return Completion(
            text="".join(self.text.pieces),
            finish_reason=self.choice.finish_reason,
            ids=tuple(self.choice.ids),
            prompt_tokens=len(self.prompt.ids),
            dropped_tokens=self.prompt.dropped_tokens,
            seed=self.choice.seed,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
        )


def _run_batch(rows: list[_Row], session: Session, cancel: threading.Event) -> None:
    """Read each prompt alone, then decode all together; a row that ends leaves the cache."""
    cache = session.new_cache(len(rows))
    for index, row in enumerate(rows):
        started = time.perf_counter()
        if cancel.is_set():
            row.cancel()
        else:
            row.take(session.forward([row.prompt.ids], cache, row=index)[0, 0])
        row.prefill_seconds = time.perf_counter() - started
    started = time.perf_counter()
    active = rows
    while active := _still_active(active, cache):
        if cancel.is_set():
            for row in active:
                row.cancel()
            return
        logits = session.decode([row.choice.ids[-1] for row in active], cache)
        for row, next_logits in zip(active, logits, strict=True):
            row.take(next_logits)
            row.decode_seconds = time.perf_counter() - started


def _still_active(rows: list[_Row], cache: KVCache) -> list[_Row]:
    """The rows that have not ended; the cache keeps theirs only."""
    places = [place for place, row in enumerate(rows) if row.choice.finish_reason is None]
    if places and len(places) < len(rows):
        cache.keep_rows(places)
    return [rows[place] for place in places]
