"""Scoring: how likely a model finds a given text, token by token, and which of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_edge.arguments import check_text, check_whole
from gpt_edge.arrays import FloatArray
from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.logprobs import TokenLogprob, token_logprob
from gpt_edge.generate.params import MAX_LOGPROBS
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer


@dataclass(frozen=True, slots=True)
class Score:
    """The log-probabilities of a continuation's tokens. is_greedy: whether each was the likeliest.

    logprob: their sum, natural logarithm.
    """

    tokens: tuple[TokenLogprob, ...]
    is_greedy: bool

    @property
    def logprob(self) -> float:
        """The sum of all tokens'."""
        return sum(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options of `choose`. probability: of all options, summing to 1."""

    text: str
    logprob: float
    probability: float


def split_ids(
    prompt: str, continuation: str, tokenizer: Tokenizer, *, special: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of what follows it, as the tokens of the whole text: spaces at the
    prompt's end belong to the continuation, whose first token has them.

    The split is that of lm-evaluation-harness: as many of the whole's ids as the prompt alone has.
    An empty prompt becomes one end token. Raises ValueError for a continuation of no tokens, or an
    empty prompt where the model has no end token.
    """
    check_text("prompt", prompt)
    check_text("continuation", continuation)
    n_spaces = len(prompt) - len(prompt.rstrip())
    if n_spaces:
        continuation = prompt[-n_spaces:] + continuation
        prompt = prompt[:-n_spaces]
    if not prompt:
        if tokenizer.end_token is None:
            raise ValueError("the prompt is empty, and this model has no end token to start from")
        before = [tokenizer.end_token]
        after = tokenizer.encode(continuation, special=special)
    else:
        before = tokenizer.encode(prompt, special=special)
        after = tokenizer.encode(prompt + continuation, special=special)[len(before) :]
    if not after:
        raise ValueError("the continuation is empty: there is nothing to score")
    return before, after


def score_ids(
    session: Session,
    before: Sequence[int],
    after: Sequence[int],
    vocab_size: int,
    n_alternatives: int = 0,
    sequence: ReadSequence | None = None,
) -> Score:
    """Score `after` [T] behind `before`. sequence: one that has read `before` but its last id;
    without it one is made. Raises ContextLengthError.
    """
    check_whole("logprobs", n_alternatives, 0, MAX_LOGPROBS)
    ids = [*before, *after]
    if len(ids) - 1 > session.config.n_ctx:
        raise ContextLengthError(
            f"prompt and continuation have {len(ids)} tokens, the context of this model holds "
            f"{session.config.n_ctx}",
            hint="shorten the prompt",
        )
    if sequence is None:
        sequence = ReadSequence(session)
        if len(before) > 1:
            sequence.read(before[:-1])
    rows: list[FloatArray] = []
    sequence.read([before[-1], *after[:-1]], take_rows=rows.append)
    logits = np.concatenate(rows)[:, :vocab_size]
    tokens = tuple(
        token_logprob(row, id, n_alternatives) for row, id in zip(logits, after, strict=True)
    )
    is_greedy = bool((logits.argmax(axis=1) == np.array(after)).all())
    return Score(tokens, is_greedy)


def choose_ids(
    session: Session, pairs: Sequence[tuple[list[int], list[int]]], vocab_size: int
) -> list[Score]:
    """Score each (before, after); what all of them begin with is read once."""
    whole = [[*before, *after] for before, after in pairs]
    n_shared = min(len(before) for before, _ in pairs) - 1
    for place, ids in enumerate(zip(*whole, strict=False)):
        if place >= n_shared or len(set(ids)) > 1:
            n_shared = min(n_shared, place)
            break
    sequence = ReadSequence(session)
    if n_shared:
        sequence.read(whole[0][:n_shared])
    scores = []
    for before, after in pairs:
        sequence.crop(n_shared)
        if len(before) - 1 > n_shared:
            sequence.read(before[n_shared:-1])
        scores.append(score_ids(session, before, after, vocab_size, sequence=sequence))
    return scores


def choices_of(options: Sequence[str], scores: Sequence[Score]) -> list[Choice]:
    """Options with their share of all options' probability, in the order given."""
    sums = np.array([score.logprob for score in scores])
    shares = np.exp(sums - sums.max())
    shares /= shares.sum()
    return [
        Choice(text, score.logprob, float(share))
        for text, score, share in zip(options, scores, shares, strict=True)
    ]
