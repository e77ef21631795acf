"""Degradation of a changed model on a text: KL from the original, perplexity, token flips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.budget.calibration import Rows
from gpt_edge.runtime.session import Session

REFERENCE_VALUES = 1 << 28  # logits of the reference in memory: 1 GiB
ROWS_AT_ONCE = 256  # of logits in several copies: 50 MB each for 50,257 tokens


@dataclass(frozen=True, slots=True)
class Degradation:
    """Loss over rows of a text: mean KL in nats from the reference, with standard errors."""

    n_rows: int
    mean_kl: float
    kl_error: float
    loss_increase: float  # nats per token
    loss_error: float
    top1: float  # fraction of rows with the reference's most likely token

    @property
    def ppl_increase(self) -> float:
        """Perplexity divided by the reference's, minus 1."""
        return math.expm1(min(self.loss_increase, 700.0))

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON values, four digits; None for a value that is not finite."""
        values = {
            "mean_kl": self.mean_kl,
            "kl_error": self.kl_error,
            "ppl_increase": self.ppl_increase,
            "loss_error": self.loss_error,
            "top1": self.top1,
        }
        figures = {
            name: float(f"{value:.4g}") if math.isfinite(value) else None
            for name, value in values.items()
        }
        return {"rows": self.n_rows, **figures}


class DegradationSum:
    """Accumulates the comparison of rows of logits with the reference's."""

    def __init__(self) -> None:
        self._kl: list[Tensor] = []
        self._loss: list[Tensor] = []
        self._n_same = 0

    def add(self, reference: Tensor, changed: Tensor, targets: Tensor) -> None:
        """Add rows: logits or log-probabilities [R, V] of both models; targets: next tokens [R]."""
        for start in range(0, len(targets), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            p = F.log_softmax(reference[rows], -1)
            q = F.log_softmax(changed[rows], -1)
            # float32 terms, float64 sum: good to 1e-7 nats, far below the loss of quantization
            self._kl.append((p.exp() * (p - q)).sum(-1, dtype=torch.float64).clamp(min=0))
            index = targets[rows, None]
            self._loss.append((p.gather(-1, index) - q.gather(-1, index))[:, 0].to(torch.float64))
            self._n_same += int((p.argmax(-1) == q.argmax(-1)).sum())

    def result(self) -> Degradation:
        """The means; a model that overflows has an infinite KL."""
        kl = torch.cat(self._kl)
        loss = torch.cat(self._loss)
        kl = torch.where(torch.isfinite(kl), kl, torch.inf)
        loss = torch.where(torch.isfinite(loss), loss, torch.inf)
        root = math.sqrt(max(1, len(kl) - 1))
        return Degradation(
            len(kl),
            float(kl.mean()),
            float(kl.std(correction=0)) / root,
            float(loss.mean()),
            float(loss.std(correction=0)) / root,
            self._n_same / len(kl),
        )


def rows_that_fit(config: GPTConfig, n_tokens: int, n_values: int = REFERENCE_VALUES) -> int:
    """The number of tokens up to `n_tokens` whose logits are at most `n_values`."""
    return min(n_tokens, max(1, n_values // config.vocab_size))


class TextReference:
    """A text and the unquantized bundle's logits on it, which any session can be compared with."""

    def __init__(self, session: Session, rows: Rows) -> None:
        self.rows = rows
        self._logits = [_row_logits(session, rows, i) for i in range(len(rows.ids))]

    def measure(self, session: Session) -> Degradation:
        """Run the text through another session of the same vocabulary."""
        total = DegradationSum()
        for i, logits in enumerate(self._logits):
            changed = torch.from_numpy(_row_logits(session, self.rows, i))
            total.add(torch.from_numpy(logits), changed, torch.from_numpy(self.rows.ids[i, 1:]))
        return total.result()


def _row_logits(session: Session, rows: Rows, row: int) -> FloatArray:
    """Logits [T - 1, V] of a row."""
    ids = rows.ids[row : row + 1, :-1]
    logits: FloatArray = session.forward(ids, session.new_cache(capacity=ids.shape[1]), "all")[0]
    return logits
