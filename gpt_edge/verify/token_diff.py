"""How far apart two models' predictions are on one text, token by token. Needs neither torch nor
onnx.

Row t is the prediction after token t: where it differs, the models would have continued
differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import EvaluationError
from gpt_edge.evaluate.measures import kl_divergence, log_softmax
from gpt_edge.evaluate.scorer import Scorer, finite
from gpt_edge.tokenizer.spec import Tokenizer
from gpt_edge.verify.parity import encode_passage, logit_margin

N_RANDOM = 128  # ids in place of a text where there is no tokenizer
SEED = 20201228


@dataclass(frozen=True, slots=True)
class TokenFlip:
    """A row where the models choose different tokens; margins are logits of the best token over the
    second best.
    """

    row: int
    tokens: tuple[int, int]
    margins: tuple[float, float]
    kl: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the second model is from the first on `ids` [T]. KL(first || second) in nats for each
    row.
    """

    ids: tuple[int, ...]
    kl: tuple[float, ...]
    max_difference: float  # of a logit
    flips: tuple[TokenFlip, ...]

    @property
    def mean_kl(self) -> float:
        """Over all rows."""
        return math.fsum(self.kl) / len(self.kl)

    @property
    def top1(self) -> float:
        """Fraction of rows with the same best token."""
        return 1 - len(self.flips) / len(self.kl)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        flips = [
            {"row": f.row, "tokens": list(f.tokens), "margins": list(f.margins), "kl": f.kl}
            for f in self.flips
        ]
        return {
            "n_tokens": len(self.ids),
            "max_difference": self.max_difference,
            "mean_kl": self.mean_kl,
            "p99_kl": float(np.percentile(self.kl, 99)),
            "max_kl": max(self.kl),
            "top1": self.top1,
            "flips": flips,
            "ids": list(self.ids),
            "kl": list(self.kl),
        }


def check_same_vocabulary(first: GPTConfig, second: GPTConfig, names: tuple[str, str]) -> None:
    """Raise EvaluationError unless both predict over as many tokens."""
    if first.vocab_size != second.vocab_size:
        raise EvaluationError(
            f"{names[0]} has a vocabulary of {first.vocab_size} tokens, {names[1]} one of "
            f"{second.vocab_size}",
            hint="compare models with the same tokenizer",
        )


def probe_ids(
    text: str | None, tokenizer: Tokenizer | None, config: GPTConfig, n_ctx: int
) -> IntArray:
    """Ids [T] to run, at most `n_ctx`: of `text`, else of a passage; random ones where there is no
    tokenizer.

    Raises EvaluationError for a text of no token, and for a text without a tokenizer.
    """
    if tokenizer is None:
        if text is not None:
            raise EvaluationError(
                "neither model has a tokenizer: a text cannot be read",
                hint="leave out the text",
                cli_hint="leave out --text",
            )
        return np.random.default_rng(SEED).integers(0, config.vocab_size, min(N_RANDOM, n_ctx))
    encoded = encode_passage(tokenizer) if text is None else tokenizer.encode(text)
    ids = np.array(encoded[:n_ctx], np.int64)
    if not ids.size:
        raise EvaluationError(
            "the text has no token", hint="give another text", cli_hint="give one with --text"
        )
    return ids


def compare_models(first: Scorer, second: Scorer, ids: IntArray) -> Difference:
    """Run both on ids [T]. Raises EvaluationError for different vocabularies, NumericError for NaN
    or infinite logits.
    """
    check_same_vocabulary(first.config, second.config, (first.name, second.name))
    kl: list[float] = []
    flips: list[TokenFlip] = []
    largest = 0.0
    for row, (x, y) in enumerate(zip(_rows(first, ids), _rows(second, ids), strict=True)):
        kl.append(float(kl_divergence(log_softmax(x), log_softmax(y))))
        largest = max(largest, float(np.abs(x - y).max()))
        tokens = int(x.argmax()), int(y.argmax())
        if tokens[0] != tokens[1]:
            flips.append(TokenFlip(row, tokens, (logit_margin(x), logit_margin(y)), kl[-1]))
    return Difference(tuple(int(id) for id in ids), tuple(kl), largest, tuple(flips))


def _rows(model: Scorer, ids: IntArray) -> Iterator[FloatArray]:
    """Logits [V] of each row; a block is consumed before the next overwrites it."""
    for block in model.rows(ids, 0):
        yield from finite(block, model.name)
