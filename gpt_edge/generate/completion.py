"""Completion, the whole of an ended generation, and what streams and batches share while one is
under way: TokenChoice chooses ids, TextAssembly turns them into text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.constraints.processor import ConstraintProcessor
from gpt_edge.generate.logits import LogitsProcessor, LogitsRow
from gpt_edge.generate.logprobs import TokenLogprob, token_logprob
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.processors import build_processors
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.speculation import SpeculationStats
from gpt_edge.generate.stop_strings import StopMatcher
from gpt_edge.generate.token_healing import HealingProcessor
from gpt_edge.tokenizer.spec import Tokenizer

FinishReason = Literal["stop", "length", "context_full", "cancelled"]


class LogprobFields(TypedDict):
    """Fields of Completion that a TokenChoice knows."""

    logprobs: tuple[TokenLogprob, ...] | None
    cumulative_logprob: float | None
    is_constraint_met: bool | None


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a generation. `ids` has no end token, and `text` no stop string: those only end
    it.
    """

    text: str
    # stop: end token, stop string or end of the constraint; length: max_new_tokens; context_full;
    # cancelled
    finish_reason: FinishReason
    ids: tuple[int, ...]
    prompt_tokens: int  # processed by the model
    dropped_tokens: int  # cut from the start of the prompt by truncate="left"
    seed: int | None  # reproduces the text; None when greedy
    prefill_seconds: float  # until the first token was chosen
    decode_seconds: float  # from there to the end
    # one of each id, where the params ask for logprobs
    logprobs: tuple[TokenLogprob, ...] | None = None
    # one of each id of the prompt but the first, which nothing precedes
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    # the sum of all chosen tokens' logprobs, the end token's included; with logprobs
    cumulative_logprob: float | None = None
    speculation: SpeculationStats | None = None  # with speculation
    score: float | None = None  # of beam search, see `beam_search.py`
    cached_tokens: int = 0  # of the prompt, that were held already and not read again
    # whether the text is one that the params' constraint admits; False for one that ended inside
    # it, None without a constraint
    is_constraint_met: bool | None = None

    @property
    def completion_tokens(self) -> int:
        """How many tokens were generated."""
        return len(self.ids)

    @property
    def mean_logprob(self) -> float:
        """The mean of `logprobs`; -inf where there are none."""
        if not self.logprobs:
            return -math.inf
        return sum(entry.logprob for entry in self.logprobs) / len(self.logprobs)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 for fewer than two tokens."""
        if len(self.ids) < 2 or self.decode_seconds <= 0:
            return 0.0
        return (len(self.ids) - 1) / self.decode_seconds


class TokenChoice:
    """Chooses the ids of one sequence and knows when it ends. Shared by streams and batches.

    tokenizer's `vocab_size`: rows of the embedding beyond it have no token and are never chosen.
    end_tokens: that end it besides the tokenizer's own and those of `params`. processors: the
    caller's own, after those that `params` ask for. Raises ValueError for token ids that the
    vocabulary does not have.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        n_ctx: int,
        tokenizer: Tokenizer,
        end_tokens: Collection[int] = (),
        processors: Sequence[LogitsProcessor] = (),
        healed: str = "",
    ) -> None:
        """healed: text that the new tokens begin with, of the prompt's; see `token_healing.py`."""
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.cumulative_logprob = 0.0
        self.finish_reason: FinishReason | None = None
        self.history = list(prompt)  # and the ids after it
        self._end_tokens = end_tokens_of(params, tokenizer, end_tokens)
        self._n_logprobs = params.logprobs
        own = build_processors(params, len(prompt), tokenizer, self._end_tokens)
        if healed:
            own.append(HealingProcessor(healed, tokenizer, len(prompt)))
        self._own_processors = own
        self._constraint: ConstraintProcessor | None = None
        last: list[LogitsProcessor] = []
        if params.constraint is not None:
            self._constraint = ConstraintProcessor(
                params.constraint, tokenizer, len(prompt), self._end_tokens, healed
            )
            last = [self._constraint]
        self._processors: list[LogitsProcessor] = [*own, *processors, *last]
        self._sampler = Sampler(params, self._processors)
        self.seed = None if params.is_greedy else self._sampler.seed
        self._vocab_size = tokenizer.vocab_size
        self._max_new_tokens = params.max_new_tokens
        # the last token is never processed, so it needs no room in the context
        self._room = n_ctx - len(prompt) + 1

    def choose(self, logits: FloatArray) -> int | None:
        """Append and return the next id, or None for an end token. logits: float32 [V]. Raises
        NumericError.
        """
        return self.take(self.draw(logits), logits)

    def draw(self, logits: FloatArray) -> int:
        """The next id after logits [V], which `take` then appends. Raises NumericError."""
        return self._sample(logits[: self._vocab_size])

    def is_slow_draw(self, min_tokens: int) -> bool:
        """Whether `draw` is arithmetic over a vocabulary of at least so many tokens, and nothing of
        a caller's is called.
        """
        is_large = self._vocab_size >= min_tokens
        return is_large and self._constraint is None and self._sampler.draws_from(self._vocab_size)

    def processed(self, logits: FloatArray) -> LogitsRow:
        """The row [V'] of tokens that exist, after all processors; for a search that chooses."""
        row: LogitsRow = logits[: self._vocab_size]
        for processor in self._processors:
            row = processor(self.history, row)
        return row

    def take(self, id: int, logits: FloatArray) -> int | None:
        """Append and return an id that was chosen after `logits` [V], or None for an end token."""
        logits = logits[: self._vocab_size]
        is_end = id in self._end_tokens
        if self._n_logprobs is not None:
            self._note_logprob(logits, id, is_end)
        if is_end:
            self.finish_reason = "stop"
            return None
        self.ids.append(id)
        self.history.append(id)
        if self._constraint is not None and self._constraint.is_over(self.history):
            self.finish_reason = "stop"
        elif len(self.ids) == self._max_new_tokens:
            self.finish_reason = "length"
        elif len(self.ids) == self._room:
            self.finish_reason = "context_full"
        return id

    def guesser(self) -> Sampler:
        """A sampler that chooses as this one will next, with the same random numbers, by whatever
        logits it is shown; without the caller's processors, which may keep something.
        """
        return self._sampler.fork(self._own_processors)

    def _sample(self, logits: FloatArray) -> int:
        id = self._sampler.sample(logits, self.history)
        while self._constraint is not None and not self._constraint.can_continue(self.history, id):
            logits = logits.copy()
            logits[id] = -math.inf
            id = self._sampler.sample(logits, self.history)
        return id

    def logprob_fields(self) -> LogprobFields:
        """What a Completion says of log-probabilities and of the constraint: None unless the params
        ask for it.
        """
        is_asked = self._n_logprobs is not None
        return {
            "logprobs": tuple(self.logprobs) if is_asked else None,
            "cumulative_logprob": self.cumulative_logprob if is_asked else None,
            "is_constraint_met": self.is_constraint_met,
        }

    @property
    def is_constraint_met(self) -> bool | None:
        """Whether the text so far is one that the constraint admits; None without one."""
        return None if self._constraint is None else self._constraint.is_met(self.history)

    def _note_logprob(self, logits: FloatArray, id: int, is_end: bool) -> None:
        assert self._n_logprobs is not None
        entry = token_logprob(logits, id, self._n_logprobs)
        self.cumulative_logprob += entry.logprob
        if not is_end:
            self.logprobs.append(entry)


def end_tokens_of(
    params: SamplingParams, tokenizer: Tokenizer, end_tokens: Collection[int]
) -> frozenset[int]:
    """Ids that end the text; those of `params` do whether or not the model's own are ignored."""
    own = [] if params.ignore_end_token else [*end_tokens, tokenizer.end_token]
    return frozenset(id for id in [*own, *params.stop_token_ids] if id is not None)


class TextAssembly:
    """Turns the ids of one sequence into text and cuts it at a stop string. Shared by streams and
    batches.
    """

    def __init__(self, params: SamplingParams, tokenizer: Tokenizer, healed: str = "") -> None:
        """healed: what the text begins with that is the prompt's, and not shown."""
        self.pieces: list[str] = []
        self._n_hidden = len(healed)
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopMatcher(params.stop)

    @property
    def is_stopped(self) -> bool:
        """True once a stop string has matched."""
        return self._stops.is_found

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often ""."""
        return self._append(self._stops.push(self._new(self._detokenizer.push(id))))

    def flush(self) -> str:
        """Return the text that was held back; no more ids follow."""
        rest = self._new(self._detokenizer.flush())
        return self._append(self._stops.push(rest) + self._stops.flush())

    def _new(self, piece: str) -> str:
        """What of a piece is no part of the prompt."""
        n_hidden = min(self._n_hidden, len(piece))
        self._n_hidden -= n_hidden
        return piece[n_hidden:]

    def _append(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece
