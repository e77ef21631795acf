"""What a verification measured, with its limits, and what is out of tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import ParityError
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify.parity import Agreement, Flip

# max |difference| of logits between paths, as a share of their spread within a row (and at least as
# if that were 1).
PATH_TOLERANCE = 1e-4  # fp32: summation order
# int8 activations: a sum that differs in its last bit may be rounded to the next of 127 steps.
# Twice what 124M showed.
QUANTIZED_PATH_TOLERANCE = 0.2

Progress = Callable[[str], None]


def silent(stage: str) -> None:
    """The progress of somebody who does not want any."""


@dataclass(slots=True)
class Verification:
    """Figures by section and name, with their limits; `faults` says in words what is out of
    tolerance.

    first: the operator and its layer where the model parts from its reference, where that was
    looked for and found.
    """

    figures: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    first: dict[str, Any] | None = None

    def add(
        self,
        section: str,
        name: str,
        agreement: Agreement,
        limits: Mapping[str, float],
        *,
        excuse_ties: bool,
    ) -> None:
        """Record an Agreement. limits: of max_difference or mean_kl; excuse_ties: a flip must be a
        near tie.
        """
        values = agreement.to_dict()
        wrong = [
            f"{section}, {name}: {key} is {values[key]:.3g}, at most {limit:.3g} is allowed"
            for key, limit in limits.items()
            if not values[key] <= limit
        ]
        if excuse_ties and (flips := agreement.unexcused()):
            wrong.append(f"{section}, {name}: {describe(flips[0])} is no near tie")
        self.faults += wrong
        self.figures.setdefault(section, {})[name] = {
            **values,
            "limits": dict(limits),
            "ok": not wrong,
        }

    def add_greedy(
        self,
        section: str,
        wanted: Sequence[int],
        found: Sequence[int],
        gaps: Sequence[float],
        noise: float,
    ) -> None:
        """Record whether two greedy continuations are equal; they may part only at a near tie, of
        twice the noise.

        gaps: the logit margin of each of the first one's choices.
        """
        pairs = zip(wanted, found, strict=True)
        same = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), len(wanted))
        is_equal = same == len(wanted)
        gap = 0.0 if is_equal else gaps[same]
        ok = is_equal or gap <= 2 * noise
        if not ok:
            self.faults.append(
                f"{section}, greedy: tokens part after {same} of {len(wanted)}, where the gap is "
                f"{gap:.3g}"
            )
        values = {"equal_tokens": same, "tokens": len(wanted), "gap": gap, "ok": ok}
        self.figures.setdefault(section, {})["greedy"] = values

    def add_operator_fault(self, layer: int | None, operator: str, place: str, text: str) -> None:
        """Record a fault at an operator, in the order of the computation: the first one is where to
        look.
        """
        self.faults.append(f"{place}: {text}")
        if self.first is None:
            self.first = {"layer": layer, "operator": operator, "place": place, "text": text}

    def summary(self) -> str:
        """What is wrong in one line: the first place where the activations part, else the first
        fault, and how many.
        """
        if not self.faults:
            return ""
        text = self.faults[0]
        if self.first is not None:
            text = f"first at {self.first['place']}: {self.first['text']}"
        return text + (f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else "")

    def raise_if_wrong(self) -> None:
        """Raise ParityError with the first fault."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            hint = "nothing was published; --json shows every figure"
            raise ParityError(self.faults[0] + more, hint=hint, figures=self.figures)


def describe(flip: Flip) -> str:
    """One flip in words."""
    return (
        f"in {flip.probe}, row {flip.row}, token {flip.tokens[0]} against {flip.tokens[1]} with a "
        f"gap of {flip.margin:.3g}"
    )


def tokenizer_of(bundle: Bundle) -> Tokenizer | None:
    """The bundle's tokenizer, or None for a bundle of ids."""
    return (
        bundle.load_tokenizer() if bundle.manifest.tokenizer or bundle.is_optimum_export else None
    )
