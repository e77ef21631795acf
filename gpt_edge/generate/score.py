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
    """One of the options of `choose`. logprob: of its tokens after the prompt. probability: its
    share among all options, which sum to 1; calibrated, where that was asked for.
    """

    text: str
    logprob: float
    probability: float


def split_ids(
    prompt: str, continuation: str, tokenizer: Tokenizer, *, special: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of what follows it, as tokens of the whole text; see `split_options`."""
    return split_options(prompt, [continuation], tokenizer, special=special)[0]


def split_options(
    prompt: str, options: Sequence[str], tokenizer: Tokenizer, *, special: bool = False
) -> list[tuple[list[int], list[int]]]:
    """(ids before, ids after) for each option behind `prompt`, as the tokens of the whole text.
    What comes before is the same for all, so that their probabilities can be compared.

    Spaces at the prompt's end belong to the options, whose first tokens have them. Where an option
    changes the prompt's last tokens ("The cat" and "erpillar"), those tokens come after, for all
    options. lm-evaluation-harness splits by the prompt's number of tokens, which is the same except
    there, where its tokens would be those of another text. An empty prompt becomes one end token.
    Raises ValueError for an option of no tokens, or a text that begins with nothing known where the
    model has no end token.
    """
    check_text("prompt", prompt)
    for option in options:
        check_text("continuation", option)
    n_spaces = len(prompt) - len(prompt.rstrip())
    if n_spaces:
        options = [prompt[-n_spaces:] + option for option in options]
        prompt = prompt[:-n_spaces]
    known = tokenizer.encode(prompt, special=special) if prompt else []
    wholes = [tokenizer.encode(prompt + option, special=special) for option in options]
    if any(whole in (known, []) for whole in wholes):
        raise ValueError("the continuation is empty: there is nothing to score")
    n_shared = min(_n_common(known, whole) for whole in wholes)
    if n_shared:
        return [(whole[:n_shared], whole[n_shared:]) for whole in wholes]
    if tokenizer.end_token is None:
        what = "is empty" if not prompt else "is one token, which an option changes"
        raise ValueError(f"the prompt {what}, and this model has no end token to start from")
    return [([tokenizer.end_token], whole) for whole in wholes]


def fit_options(
    pairs: Sequence[tuple[list[int], list[int]]], n_ctx: int, *, cut: bool
) -> list[tuple[list[int], list[int]]]:
    """The pairs, if each fits into the context; with `cut`, without the start of what comes before,
    the same for all. Raises ContextLengthError.
    """
    # the last id is never read
    excess = max(len(before) + len(after) - 1 for before, after in pairs) - n_ctx
    shortest = min(len(before) for before, _ in pairs)
    if excess > 0 and not (cut and excess < shortest):
        raise ContextLengthError(
            f"prompt and continuation have {excess + n_ctx + 1} tokens, the context of this model "
            f"holds {n_ctx}",
            hint="shorten the continuation" if cut else "shorten the prompt",
        )
    return [(before[max(excess, 0) :], after) for before, after in pairs]


def _n_common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(some, others, strict=False)
    shorter = min(len(some), len(others))
    return next((place for place, (one, other) in enumerate(pairs) if one != other), shorter)


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
    fit_options([([*before], [*after])], session.config.n_ctx, cut=False)
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


def choices_of(
    options: Sequence[str], scores: Sequence[Score], neutral: Sequence[Score] | None = None
) -> list[Choice]:
    """Options with their share of all options' probability, in the order given. neutral: their
    scores after a prompt that says nothing, which are divided out.

    Source: Zhao et al. 2021, "Calibrate Before Use"; Holtzman et al. 2021, "Surface Form
    Competition" (domain conditional PMI).
    """
    sums = np.array([score.logprob for score in scores])
    if neutral is not None:
        sums -= [score.logprob for score in neutral]
    shares = np.exp(sums - sums.max())
    shares /= shares.sum()
    return [
        Choice(text, score.logprob, float(share))
        for text, score, share in zip(options, scores, shares, strict=True)
    ]
