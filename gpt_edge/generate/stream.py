"""One generation as it happens: TokenStream gives ids, TextStream text, and Completion is the whole
when it has ended.

Each ring knows only the one inside it: ids know the session, text knows ids. A stream works when it
is asked for its next item, so a caller who stops asking stops the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.sampling import Sampler, SamplingParams
from gpt_edge.generate.stop_strings import StopMatcher
from gpt_edge.runtime.session import PREFILL_CHUNK, Session
from gpt_edge.tokenizer.spec import Tokenizer

FinishReason = Literal["stop", "length", "context_full", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generation gave. `ids` has neither the end token nor, in `text`, the stop string that
    ended it.
    """

    text: str
    # stop: end token or stop string; length: max_new_tokens; context_full; cancelled
    finish_reason: FinishReason
    ids: tuple[int, ...]
    prompt_tokens: int  # read by the model
    dropped_tokens: int  # cut from the start of the prompt by truncate="left"
    seed: int | None  # gives the same text again; None when greedy
    prefill_seconds: float  # until the first token was chosen
    decode_seconds: float  # from there to the end

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated."""
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 for fewer than two tokens."""
        return (
            (len(self.ids) - 1) / self.decode_seconds
            if len(self.ids) > 1 and self.decode_seconds > 0
            else 0.0
        )


class TokenChoice:
    """Chooses the ids of one sequence and says when it ends. Shared by streams and batches.

    tokenizer's `vocab_size`: rows of the embedding beyond it have no token and are never chosen.
    """

    def __init__(
        self, params: SamplingParams, n_prompt: int, n_ctx: int, tokenizer: Tokenizer
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._sampler = Sampler(params)
        self.seed = None if params.is_greedy else self._sampler.seed
        self._end_token = None if params.ignore_end_token else tokenizer.end_token
        self._vocab_size = tokenizer.vocab_size
        self._max_new_tokens = params.max_new_tokens
        # the last token is never read, so it needs no place in the context
        self._room = n_ctx - n_prompt + 1

    def choose(self, logits: FloatArray) -> int | None:
        """Append and return the next id, or None for the end token. logits: float32 [V]. Raises
        NumericError.
        """
        id = self._sampler.sample(logits[: self._vocab_size])
        if id == self._end_token:
            self.finish_reason = "stop"
            return None
        self.ids.append(id)
        if len(self.ids) == self._max_new_tokens:
            self.finish_reason = "length"
        elif len(self.ids) == self._room:
            self.finish_reason = "context_full"
        return id


class TextAssembly:
    """Turns the ids of one sequence into text and cuts it at a stop string. Shared by streams and
    batches.
    """

    def __init__(self, params: SamplingParams, tokenizer: Tokenizer) -> None:
        self.pieces: list[str] = []
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopMatcher(params.stop)

    @property
    def is_stopped(self) -> bool:
        """True once a stop string was found."""
        return self._stops.is_found

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often ""."""
        return self._keep(self._stops.push(self._detokenizer.push(id)))

    def flush(self) -> str:
        """Return what was held back; no more ids follow."""
        return self._keep(self._stops.push(self._detokenizer.flush()) + self._stops.flush())

    def _keep(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece


class TokenStream:
    """Iterator over the ids of one generation; `finish_reason` tells why it ended, None while it
    goes on.

    Threads that share one take turns. After an error, or `close`, it gives nothing more.
    """

    def __init__(
        self,
        session: Session,
        prompt: Sequence[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        cancel: threading.Event | None = None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self._session = session
        self._cache = session.new_cache()
        self._choice = TokenChoice(params, len(self.prompt), session.config.n_ctx, tokenizer)
        self._cancel = cancel or threading.Event()
        self._has_failed = False
        # re-entrant: a signal handler may call close() while a step runs
        self._lock = threading.RLock()

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the last id was given."""
        return self._choice.finish_reason

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids so far."""
        return tuple(self._choice.ids)

    @property
    def seed(self) -> int | None:
        """The seed in use; None when greedy."""
        return self._choice.seed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        with self._lock:
            if self._has_failed or self._choice.finish_reason is not None:
                raise StopIteration
            try:
                id = self._advance()
            except BaseException:  # whatever it was, also Ctrl-C: the cache may be half-written
                self._has_failed = True
                raise
        if id is None:
            raise StopIteration
        return id

    def _advance(self) -> int | None:
        started = time.perf_counter()
        ids = self._choice.ids
        if ids and not self._cancel.is_set():
            id = self._choice.choose(self._session.decode(ids[-1:], self._cache)[0])
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
        """Logits [V] after the prompt; None if cancelled, which is looked at before every chunk."""
        prompt = np.array(self.prompt, np.int64)[None]
        self._session.reserve(self._cache, prompt.size)
        logits: FloatArray | None = None
        for start in range(0, prompt.shape[1], PREFILL_CHUNK):
            if self._cancel.is_set():
                return None
            logits = self._session.forward(prompt[:, start : start + PREFILL_CHUNK], self._cache)[
                0, 0
            ]
        return logits

    def close(self) -> None:
        """End it after the step that runs, if one does; `finish_reason` is "cancelled" unless it
        had ended.
        """
        self._end("cancelled")

    def _end(self, reason: FinishReason) -> None:
        with self._lock:
            self._choice.finish_reason = self._choice.finish_reason or reason


class TextStream:
    """Iterator over the text of one generation, piece by piece, never half a character, never a
    stop string.

    The pieces join to the whole text. Afterwards `finish_reason` and `completion` tell the rest.
    `close`, or leaving a with-block, ends it early.
    """

    def __init__(
        self, tokens: TokenStream, params: SamplingParams, tokenizer: Tokenizer, dropped_tokens: int
    ) -> None:
        self._tokens = tokens
        self._text = TextAssembly(params, tokenizer)
        self._dropped_tokens = dropped_tokens
        self._finish_reason: FinishReason | None = None
        self._lock = threading.RLock()

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the last piece was given."""
        return self._finish_reason

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        with self._lock:
            while self._finish_reason is None:
                if piece := self._next_piece():
                    return piece
        raise StopIteration

    def _next_piece(self) -> str:
        """The text of the next token, often "", or at the end what was held back."""
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

    def close(self) -> None:
        """End it after the step that runs, if one does; what was held back is dropped."""
        self._tokens.close()
        with self._lock:
            self._finish_reason = self._finish_reason or "cancelled"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def completion(self) -> Completion:
        """All of it. Raises RuntimeError before the end."""
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
        )
