"""One generation as it happens: TokenStream yields ids, TextStream text.

Each layer knows only the one inside it: ids know the session, text knows ids. A stream works when
it is asked for its next item, so a caller who stops asking stops the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Self

from gpt_edge.arguments import check_hooks
from gpt_edge.arrays import FloatArray
from gpt_edge.generate.completion import (
    Completion,
    FinishReason,
    LogprobFields,
    TextAssembly,
    TokenChoice,
)
from gpt_edge.generate.context import UNLIMITED
from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.logprobs import PromptLogprobs, TokenLogprob
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.generate.speculation import Proposer, SpeculationStats, SpeculativeReader
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer


class Cancellation:
    """An event of one stream, set also by the caller's, which several streams may share."""

    def __init__(self, shared: threading.Event | None) -> None:
        self._shared = shared
        self._is_set = False

    def is_set(self) -> bool:
        """Whether the stream must end."""
        return self._is_set or (self._shared is not None and self._shared.is_set())

    def set(self) -> None:
        """End this stream alone."""
        self._is_set = True


# makes a proposer for one generation
Speculate = Callable[[TokenChoice], Proposer]


class TokenStream:
    """Iterator over the ids of one generation; `finish_reason` says why it ended, None until then.

    Threads that share one take turns. After an error, or `close`, it yields nothing more.
    """

    def __init__(
        self,
        session: Session,
        prompt: Prompt,
        params: SamplingParams,
        tokenizer: Tokenizer,
        cancel: threading.Event | None = None,
        end_tokens: Collection[int] = (),
        processors: Sequence[LogitsProcessor] = (),
        speculate: Speculate | None = None,
        sequence: ReadSequence | None = None,
    ) -> None:
        """end_tokens: that end the text besides the tokenizer's own. processors: see
        `TokenChoice`. speculate: see `Generator.stream`. sequence: what was read before; what the
        prompt shares with its start is not read again. It is lent to this stream until the end.
        """
        check_hooks(cancel, processors)
        self.prompt = tuple(prompt.ids)
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self.cached_tokens = 0  # of the prompt, that were not read again
        self._prompt_logprobs: PromptLogprobs | None = None
        if params.prompt_logprobs is not None:
            self._prompt_logprobs = PromptLogprobs(
                self.prompt, tokenizer.vocab_size, params.prompt_logprobs
            )
        self._sequence = sequence or ReadSequence(session)
        n_ctx = session.config.n_ctx if prompt.keep_first is None else UNLIMITED
        self._choice = TokenChoice(
            params, self.prompt, n_ctx, tokenizer, end_tokens, processors, prompt.healed
        )
        self._reader: ReadSequence | SpeculativeReader = self._sequence
        if speculate is not None:
            proposer = speculate(self._choice)
            limit = len(self.prompt) + params.max_new_tokens
            self._reader = SpeculativeReader(self._sequence, proposer, self._choice.history, limit)
        self._cancel = Cancellation(cancel)
        self._has_failed = False
        self._is_stepping = False
        # re-entrant: a signal handler may call close() while a step runs
        self._lock = threading.RLock()
        self._sequence.lend(self)
        self._sequence.keep_first = prompt.keep_first
        self._sequence.n_dropped = 0

    @property
    def sequence(self) -> ReadSequence:
        """What the model has read: the prompt and the ids so far, but the last."""
        return self._sequence

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended it."""
        return self._has_failed

    @property
    def is_over(self) -> bool:
        """Whether it has ended, by an error too."""
        return self._has_failed or self._choice.finish_reason is not None

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the last id was yielded."""
        return self._choice.finish_reason

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids so far."""
        return tuple(self._choice.ids)

    @property
    def seed(self) -> int | None:
        """The seed in use; None when greedy."""
        return self._choice.seed

    @property
    def speculation(self) -> SpeculationStats | None:
        """What speculation did so far; None without it."""
        return self._reader.stats if isinstance(self._reader, SpeculativeReader) else None

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """One of each id so far; empty unless the params ask for them."""
        return tuple(self._choice.logprobs)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        with self._lock:
            if self.is_over:
                raise StopIteration
            self._is_stepping = True
            try:
                id = self._advance()
            except BaseException:  # also Ctrl-C: the cache may be half-written
                self._has_failed = True
                raise
            finally:
                self._is_stepping = False
            if self._choice.finish_reason is not None:
                self._finish()
        if id is None:
            raise StopIteration
        return id

    def _advance(self) -> int | None:
        started = time.perf_counter()
        ids = self._choice.ids
        if ids and not self._cancel.is_set():
            id = self._choice.choose(self._reader.step(ids[-1]))
            self.decode_seconds += time.perf_counter() - started
            return id
        logits = None if ids else self._read_prompt()
        if logits is None:
            self._choice.finish_reason = "cancelled"
            return None
        id = self._choice.choose(logits)
        self.prefill_seconds = time.perf_counter() - started
        return id

    def _read_prompt(self) -> FloatArray | None:
        """Logits [V] after the prompt; None if cancelled."""
        if self._prompt_logprobs is not None:  # only reading tells them
            self._sequence.crop(0)
            return self._sequence.read(self.prompt, self._cancel, self._prompt_logprobs.take_rows)
        self.cached_tokens = self._sequence.keep_prefix(self.prompt)
        return self._sequence.read(self.prompt[self.cached_tokens :], self._cancel)

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """One of each id of the prompt but the first, as far as it was read; None unless the params
        ask for them.
        """
        return None if self._prompt_logprobs is None else tuple(self._prompt_logprobs.entries)

    def cancel(self) -> None:
        """End it before its next token, from any thread, without waiting for the step that runs."""
        self._cancel.set()

    def logprob_fields(self) -> LogprobFields:
        """What a Completion says of log-probabilities."""
        return self._choice.logprob_fields()

    def close(self) -> None:
        """End it after the step that runs, if one does; `finish_reason` is "cancelled" unless it
        had ended.
        """
        self._end("cancelled")

    def _end(self, reason: FinishReason) -> None:
        with self._lock:
            if self.is_over:
                return
            self._choice.finish_reason = reason
            if not self._is_stepping:  # else the step finishes
                self._finish()

    def _finish(self) -> None:
        """Forget what was read ahead, and remember the rest for prompts that begin alike."""
        if not self._sequence.n_dropped:
            self._forget_guesses()
        self._sequence.remember()

    def _forget_guesses(self) -> None:
        text = [*self.prompt, *self._choice.ids]
        n_read = len(self._sequence.ids)
        n_text = min(len(text), n_read)
        if n_text and self._sequence.ids[n_text - 1] != text[n_text - 1]:
            n_text -= 1  # a wrong guess in place of the last token
        if n_text < n_read:
            self._sequence.crop(n_text)


class TextStream:
    """Iterator over the text of one generation, piece by piece, never half a character, never a
    stop string.

    The pieces join to the whole text. Afterwards `finish_reason` and `completion` hold the rest.
    `close`, or leaving a with-block, ends it early.
    """

    def __init__(
        self, tokens: TokenStream, params: SamplingParams, tokenizer: Tokenizer, prompt: Prompt
    ) -> None:
        self._tokens = tokens
        self._text = TextAssembly(params, tokenizer, prompt.healed)
        self._dropped_tokens = prompt.dropped_tokens
        self._finish_reason: FinishReason | None = None
        self._lock = threading.RLock()

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the last piece was yielded."""
        return self._finish_reason

    @property
    def is_over(self) -> bool:
        """Whether it has ended, by an error too."""
        return self._finish_reason is not None or self._tokens.has_failed

    @property
    def sequence(self) -> ReadSequence:
        """What the model has read; see `Generator.save_state`."""
        return self._tokens.sequence

    @property
    def seed(self) -> int | None:
        """The seed in use; None when greedy."""
        return self._tokens.seed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        with self._lock:
            while self._finish_reason is None:
                if piece := self._next_piece():
                    return piece
        raise StopIteration

    def _next_piece(self) -> str:
        """The text of the next token, often "", or at the end the text that was held back."""
        id = next(self._tokens, None)
        if id is not None:
            piece = self._text.push(id)
        elif self._tokens.finish_reason is None:
            raise StopIteration  # an error ended it
        else:
            piece = self._text.flush()
            self._finish_reason = self._tokens.finish_reason
        if self._text.is_stopped:
            self._tokens.close()
            self._finish_reason = "stop"
        return piece

    def cancel(self) -> None:
        """End it before its next token, from any thread, without waiting for the step that runs."""
        self._tokens.cancel()

    def close(self) -> None:
        """End it after the step that runs, if one does; text that was held back is dropped."""
        self._tokens.close()
        with self._lock:
            self._finish_reason = self._finish_reason or "cancelled"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def completion(self) -> Completion:
        """The whole result. Raises RuntimeError before the end."""
        if self._finish_reason is None:
            raise RuntimeError("the stream has not ended: read it to its end, or close it")
        return Completion(
            text="".join(self._text.pieces),
            finish_reason=self._finish_reason,
            ids=self._tokens.ids,
            prompt_tokens=len(self._tokens.prompt),
            dropped_tokens=self._dropped_tokens,
            seed=self._tokens.seed,
            prefill_seconds=self._tokens.prefill_seconds,
            decode_seconds=self._tokens.decode_seconds,
            speculation=self._tokens.speculation,
            prompt_logprobs=self._tokens.prompt_logprobs,
            cached_tokens=self._tokens.cached_tokens,
            **self._tokens.logprob_fields(),
        )
