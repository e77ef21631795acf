"""Several prompts through the model at once: each is prefilled alone, then all decode together."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.completion import Completion, TextAssembly, TokenChoice
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.runtime.kv_cache import KVCache
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

BATCH_SIZE = 8


def complete_batch(
    prompts: Sequence[Prompt],
    params: Sequence[SamplingParams],
    session: Session,
    tokenizer: Tokenizer,
    *,
    end_tokens: Collection[int] = (),
    batch_size: int = BATCH_SIZE,
    cancel: threading.Event | None = None,
) -> list[Completion]:
    """Continue every prompt, one SamplingParams each, `batch_size` at a time; in order.

    end_tokens: that end a text besides the tokenizer's own.
    """
    n_ctx = session.config.n_ctx
    rows = [
        _Row(
            prompt,
            TokenChoice(own, prompt.ids, n_ctx, tokenizer, end_tokens),
            TextAssembly(own, tokenizer),
        )
        for prompt, own in zip(prompts, params, strict=True)
    ]
    for start in range(0, len(rows), batch_size):
        _run_batch(rows[start : start + batch_size], session, cancel or threading.Event())
    return [row.completion() for row in rows]


class _Row:
    """One sequence of a batch."""

    def __init__(self, prompt: Prompt, choice: TokenChoice, text: TextAssembly) -> None:
        self.prompt = prompt
        self.choice = choice
        self.text = text
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    def take(self, logits: FloatArray) -> None:
        """Choose the next token; the text of an ended row is complete."""
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
            **self.choice.logprob_fields(),
        )


def _run_batch(rows: list[_Row], session: Session, cancel: threading.Event) -> None:
    """Prefill each prompt alone, then decode all together; a row that ends leaves the cache."""
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
    """The rows that have not ended; the cache keeps only theirs."""
    indices = [index for index, row in enumerate(rows) if row.choice.finish_reason is None]
    if indices and len(indices) < len(rows):
        cache.keep_rows(indices)
    return [rows[index] for index in indices]
