"""What a verification measured, with its limits, and what is out of tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import ACCEPTED_PARITY
from gpt_edge.errors import ParityError
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify.parity import Agreement, Flip

# max |difference| of logits between execution paths, as a fraction of their spread within a row
# (and of 1 where the spread is smaller)
PATH_TOLERANCE = 1e-4  # fp32: summation order
# int8 activations: a sum that differs in its last bit may be rounded to the next level. Twice what
# GPT-2 124M showed.
QUANTIZED_PATH_TOLERANCE = 0.2

# a bundle may be so many times as far from the reference as the reference is from itself with
# errors of the same size
NOISE_FACTOR = 6.0

MAX_ACCEPTED = 8  # faults in the manifest of a bundle that is published in spite of them

Progress = Callable[[str], None]


class OwnNoise(Protocol):
    """How far a reference is from itself, see `export.verify.own_noise`."""

    def __call__(self, scheme: str, window: tuple[str, int] | None = None) -> Agreement:
        """With errors of the size of this scheme's, over all rows, or over the `parity.WINDOW` rows
        of a probe of that name that begin at a row.
        """


PATHS_AGREE = "its execution paths agree with each other"


def proof_line(facts: Sequence[str], named: Sequence[str]) -> str:
    """What was proved without a checkpoint, and of which parts only a checkpoint can tell."""
    return (
        f"proved without a checkpoint: {_listed(facts) or 'nothing'}; not proved: that its "
        f"{_listed(named)} are the checkpoint's, which --against CHECKPOINT compares"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def silent(stage: str) -> None:
    """Report no progress."""


@dataclass(slots=True)
class Verification:
    """Figures by section and name, with their limits; `faults` describes what is out of tolerance.

    first: the operator and its layer where the model diverges from its reference, if operators were
    compared and one does. notes: what was proved, and what could not be compared.
    """

    figures: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    first: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        section: str,
        name: str,
        agreement: Agreement,
        limits: Mapping[str, float],
        *,
        excuse_ties: bool,
        own_noise: Callable[[], Agreement] | None = None,
    ) -> None:
        """Record an Agreement. limits: of max_difference or mean_kl; excuse_ties: a flip must be a
        near tie. own_noise: asked where a limit is exceeded, which is then relative to it.
        """
        values = agreement.to_dict()
        flips = agreement.unexcused() if excuse_ties else []
        is_exceeded = any(not values[key] <= limit for key, limit in limits.items())
        if own_noise is not None and (is_exceeded or flips):
            noise = own_noise()
            limits = _relative_limits(limits, noise)
            largest_margin = 2 * NOISE_FACTOR * noise.max_difference
            flips = [flip for flip in flips if not flip.margin <= largest_margin]
        faults = [
            f"{section}, {name}: {key} is {values[key]:.3g}, at most {limit:.3g} is allowed"
            for key, limit in limits.items()
            if not values[key] <= limit
        ]
        if flips:
            faults.append(f"{section}, {name}: {describe(flips[0])} is no near tie")
        self.faults += faults
        self.figures.setdefault(section, {})[name] = {
            **values,
            "limits": dict(limits),
            "ok": not faults,
        }

    def add_greedy(
        self,
        section: str,
        expected: Sequence[int],
        actual: Sequence[int],
        margins: Sequence[float],
        noise: float,
    ) -> None:
        """Record whether two greedy continuations are equal; they may diverge only at a near tie,
        of twice the noise.

        margins: the logit margin of each expected token.
        """
        pairs = enumerate(zip(expected, actual, strict=True))
        n_equal = next((i for i, pair in pairs if pair[0] != pair[1]), len(expected))
        is_equal = n_equal == len(expected)
        margin = 0.0 if is_equal else margins[n_equal]
        ok = is_equal or margin <= 2 * noise
        if not ok:
            self.faults.append(
                f"{section}, greedy: tokens diverge after {n_equal} of {len(expected)}, where the "
                f"logit margin is {margin:.3g}"
            )
        values = {"equal_tokens": n_equal, "tokens": len(expected), "gap": margin, "ok": ok}
        self.figures.setdefault(section, {})["greedy"] = values

    def add_settings(
        self, section: str, name: str, n_compared: int | None, faults: Sequence[str]
    ) -> None:
        """Record whether a part of the manifest is the checkpoint's. n_compared: of what it has
        many, such as tokens.
        """
        self.figures.setdefault(section, {})[name] = {"rows": n_compared, "ok": not faults}
        for text in faults:
            self.add_operator_fault(None, name, name, text)

    def add_operator_fault(self, layer: int | None, operator: str, label: str, text: str) -> None:
        """Record a fault of an operator, in the order of the computation: the first one is where to
        look. label: the operator and its layer for a reader.
        """
        self.faults.append(f"{label}: {text}")
        if self.first is None:
            self.first = {"layer": layer, "operator": operator, "place": label, "text": text}

    def summary(self) -> str:
        """What is wrong in one line: the first operator that diverges, else the first fault, and
        how many more there are; "" where nothing is wrong.
        """
        if self.first is not None:
            return f"first at {self.first['place']}: {self.first['text']}{self._n_more()}"
        return self.faults[0] + self._n_more() if self.faults else ""

    def _n_more(self) -> str:
        return f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""

    def raise_if_wrong(self) -> None:
        """Raise ParityError with the first fault."""
        if self.faults:
            raise ParityError(
                self.faults[0] + self._n_more(),
                hint="nothing was published; `figures` of this error has every figure, "
                "accept_parity=True publishes in spite of them",
                cli_hint="nothing was published; --json shows every figure, --accept-parity "
                "publishes in spite of them",
                figures=self.figures,
            )

    def accepted(self, is_accepted: bool) -> dict[str, Any]:
        """For the provenance of what is published: the faults that its maker accepts, if any.
        Raises ParityError for faults that are not accepted.
        """
        if not is_accepted:
            self.raise_if_wrong()
        return {ACCEPTED_PARITY: self.faults[:MAX_ACCEPTED]} if self.faults else {}


def _relative_limits(limits: Mapping[str, float], noise: Agreement) -> dict[str, float]:
    """Limits that the model's own noise stays within; those of a model whose noise has no end, and
    a limit of 0, are kept.
    """
    own = noise.to_dict()
    return {
        key: max(limit, NOISE_FACTOR * own[key]) if limit and math.isfinite(own[key]) else limit
        for key, limit in limits.items()
    }


def describe(flip: Flip) -> str:
    """One flip for a reader."""
    return (
        f"in {flip.probe}, row {flip.row}, token {flip.tokens[0]} against {flip.tokens[1]} with a "
        f"logit margin of {flip.margin:.3g}"
    )


def tokenizer_of(bundle: Bundle) -> Tokenizer | None:
    """The bundle's tokenizer, or None for a bundle of ids."""
    if bundle.manifest.tokenizer or bundle.is_optimum_export:
        return bundle.load_tokenizer()
    return None
