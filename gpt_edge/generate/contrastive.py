"""Contrastive search: at each step the token, of the likeliest few, that is both likely and unlike
what the text has said.

A candidate's score is (1 - penalty_alpha) * probability - penalty_alpha * similarity, the largest
cosine of its hidden state to that of any token before it. The model reads all candidates in one
call, as rows that share the text, and that of the chosen one is its next step: so a token costs one
call of `top_k` rows. Deterministic.

Source: Su et al. 2022, "A contrastive framework for neural text generation", section 4.2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpt_edge.arguments import check_whole
from gpt_edge.arrays import FloatArray
from gpt_edge.errors import NumericError
from gpt_edge.generate.completion import Completion, TextAssembly, TokenChoice
from gpt_edge.generate.logits import (
    LogitsProcessor,
    LogitsRow,
    check_processed,
    check_sound,
    top_k_ids,
)
from gpt_edge.generate.logprobs import log_softmax
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.read_sequence import IsCancelled, ReadSequence
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class ContrastiveParams:
    """How to search. penalty_alpha: 0 to 1, the weight of being unlike the text; 0 is greedy.
    top_k: 1 to 64 candidates a step. Raises ValueError naming the field and value.
    """

    penalty_alpha: float = 0.6
    top_k: int = 4

    def __post_init__(self) -> None:
        alpha = self.penalty_alpha
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
            raise ValueError(f"penalty_alpha must be a number from 0 to 1, got {alpha!r:.80}")
        check_whole("top_k", self.top_k, 1, MAX_CANDIDATES)


class ContrastiveSearch:
    """One search for the continuation of one prompt."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        prompt: Prompt,
        params: SamplingParams,
        contrastive: ContrastiveParams,
        end_tokens: Sequence[int] = (),
        processors: Sequence[LogitsProcessor] = (),
        *,
        sequence: ReadSequence,
    ) -> None:
        """params: of which those that sample, a constraint, prompt_logprobs and token_healing are a
        ValueError. processors: after those that `params` ask for. sequence: nothing read yet; it
        holds the prompt afterwards, whose rows then part.
        """
        if not params.is_greedy or params.constraint is not None:
            raise ValueError("contrastive search takes no sampling settings and no constraint")
        if params.token_healing or params.prompt_logprobs is not None:
            raise ValueError("contrastive search takes no token_healing and no prompt_logprobs")
        self._session = session
        self._sequence = sequence
        self._prompt = prompt
        self._params = contrastive
        # a candidate is read before it is chosen, so the last token needs room, too
        n_ctx = session.config.n_ctx - 1
        self._choice = TokenChoice(params, prompt.ids, n_ctx, tokenizer, end_tokens, processors)
        self._text = TextAssembly(params, tokenizer)
        self._n_read = 0
        self._directions = np.empty((session.config.n_ctx, session.config.n_embd), np.float32)

    def run(
        self,
        on_text: Callable[[str], object] | None = None,
        cancel: IsCancelled | None = None,
    ) -> Completion:
        """Search to the end of the text. on_text: called with each piece of it. cancel: ends it
        before its next token.
        """
        started = time.perf_counter()
        logits = self._read_prompt(cancel)
        prefill_seconds = time.perf_counter() - started
        while self._choice.finish_reason is None and not self._text.is_stopped:
            if logits is None or (cancel is not None and cancel.is_set()):
                self._choice.finish_reason = "cancelled"
                break
            logits, id = self._step(logits)
            if id is not None:
                self._tell(self._text.push(id), on_text)
        if not self._text.is_stopped:
            self._tell(self._text.flush(), on_text)
        decode_seconds = time.perf_counter() - started - prefill_seconds
        return self._completion(prefill_seconds, decode_seconds)

    def _read_prompt(self, cancel: IsCancelled | None) -> FloatArray | None:
        """Logits [V] after the prompt, whose keys and values every candidate's row has then; None
        if cancelled.
        """
        hidden = np.empty((len(self._prompt.ids), self._session.config.n_embd), np.float32)
        logits = self._sequence.read(self._prompt.ids, cancel, hidden=hidden)
        if logits is not None:
            self._sequence.remember()
            self._sequence.cache.keep_rows([0] * self._params.top_k)
            self._note(_directions(hidden))
        return logits

    def _step(self, logits: FloatArray) -> tuple[FloatArray, int | None]:
        """Read the candidates after `logits` [V] and choose one: the logits after it, and its id,
        None for an end token.
        """
        cache = self._sequence.cache
        check_sound(logits, float(logits.max()))
        candidates, probabilities = self._candidates(self._choice.processed(logits))
        missing = self._params.top_k - candidates.size
        ids = np.append(candidates, np.repeat(candidates[:1], missing))
        hidden = np.empty((ids.size, 1, self._session.config.n_embd), np.float32)
        rows = self._session.forward(ids[:, None], cache, hidden=hidden)[:, 0]
        directions = _directions(hidden[: candidates.size, 0])
        similarity = (directions @ self._directions[: self._n_read].T).max(axis=1)
        alpha = self._params.penalty_alpha
        best = int(((1 - alpha) * probabilities - alpha * similarity).argmax())
        id = self._choice.take(int(candidates[best]), logits)
        self._note(directions[best : best + 1])
        cache.share_last(best)
        return rows[best], id

    def _candidates(self, row: LogitsRow) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids of the likeliest, the likeliest first, ties to the lower id, and their
        probabilities.
        """
        check_processed(row)
        logprobs = log_softmax(row)
        ids = top_k_ids(row, min(self._params.top_k, row.size))
        ids = ids[np.argsort(-row[ids], kind="stable")]
        ids = ids[row[ids] > -np.inf]
        return ids, np.exp(logprobs[ids])

    def _note(self, directions: FloatArray) -> None:
        """Add those of tokens that belong to the text now."""
        self._directions[self._n_read : self._n_read + len(directions)] = directions
        self._n_read += len(directions)

    def _tell(self, piece: str, on_text: Callable[[str], object] | None) -> None:
        if piece and on_text is not None:
            on_text(piece)

    def _completion(self, prefill_seconds: float, decode_seconds: float) -> Completion:
        reason = "stop" if self._text.is_stopped else self._choice.finish_reason
        assert reason is not None
        return Completion(
            text="".join(self._text.pieces),
            finish_reason=reason,
            ids=tuple(self._choice.ids),
            prompt_tokens=len(self._prompt.ids),
            dropped_tokens=self._prompt.dropped_tokens,
            seed=None,
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
            **self._choice.logprob_fields(),
        )


def _directions(hidden: FloatArray) -> FloatArray:
    """Hidden states [N, C] at length 1. Raises NumericError for those that have no direction."""
    lengths = np.linalg.norm(hidden, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise NumericError(
            "the model's hidden states hold NaN or infinity, so no token can be chosen",
            hint="the weights are corrupt or overflow: run gpt-edge verify on the bundle",
        )
    found: FloatArray = hidden / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found
