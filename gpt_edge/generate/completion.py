"""Completion, the whole of an ended generation, and what streams and batches share while one is
under way: TokenChoice chooses ids, TextAssembly turns them into text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.stop_strings import StopMatcher
from gpt_edge.tokenizer.spec import Tokenizer

FinishReason = Literal["stop", "length", "context_full", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a generation. `ids` has no end token, and `text` no stop string: those only end
    it.
    """

    text: str
    # stop: end token or stop string; length: max_new_tokens; context_full; cancelled
    finish_reason: FinishReason
    ids: tuple[int, ...]
    prompt_tokens: int  # processed by the model
    dropped_tokens: int  # cut from the start of the prompt by truncate="left"
    seed: int | None  # reproduces the text; None when greedy
    prefill_seconds: float  # until the first token was chosen
    decode_seconds: float  # from there to the end

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated."""
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 for fewer than two tokens."""
        if len(self.ids) < 2 or self.decode_seconds <= 0:
            return 0.0
        return (len(self.ids) - 1) / self.decode_seconds


class TokenChoice:
    """Chooses the ids of one sequence and knows when it ends. Shared by streams and batches.

    tokenizer's `vocab_size`: rows of the embedding beyond it have no token and are never chosen.
    end_tokens: that end it besides the tokenizer's own.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        n_ctx: int,
        tokenizer: Tokenizer,
        end_tokens: Collection[int] = (),
    ) -> None:
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._history = list(prompt)  # and the ids after it
        self._sampler = Sampler(params)
        self.seed = None if params.is_greedy else self._sampler.seed
        self._end_tokens: frozenset[int | None] = frozenset()
        if not params.ignore_end_token:
            self._end_tokens = frozenset([*end_tokens, tokenizer.end_token])
        self._vocab_size = tokenizer.vocab_size
        self._max_new_tokens = params.max_new_tokens
        # the last token is never processed, so it needs no room in the context
        self._room = n_ctx - len(prompt) + 1

    def choose(self, logits: FloatArray) -> int | None:
        """Append and return the next id, or None for an end token. logits: float32 [V]. Raises
        NumericError.
        """
        id = self._sampler.sample(logits[: self._vocab_size], self._history)
        if id in self._end_tokens:
            self.finish_reason = "stop"
            return None
        self.ids.append(id)
        self._history.append(id)
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
        """True once a stop string has matched."""
        return self._stops.is_found

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often ""."""
        return self._append(self._stops.push(self._detokenizer.push(id)))

    def flush(self) -> str:
        """Return the text that was held back; no more ids follow."""
        return self._append(self._stops.push(self._detokenizer.flush()) + self._stops.flush())

    def _append(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece
