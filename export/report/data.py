"""The contents of a report as values: `measure.py` measures them, `page.py` draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.budget.degradation import Degradation
from gpt_edge.export.verify.divergence import Divergence
from gpt_edge.schemes import FP32

REFERENCE = FP32.name  # the label of the version that all others are compared with


@dataclass(frozen=True, slots=True)
class Sample:
    """One greedy continuation. diverges_at: index of the first token that is not the reference's;
    None if all are the reference's.
    """

    prompt: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]  # text of each token; ids where there is no tokenizer
    differs: tuple[bool, ...]  # per token: in no run of tokens that the reference also has
    diverges_at: int | None = None
    margin: float | None = None  # logit margin of the reference's choice there


@dataclass(frozen=True, slots=True)
class Variant:
    """One version of the model: the bundle itself, the reference, one built for the page, or
    another bundle.
    """

    label: str
    scheme: str
    n_bytes: int  # graph and weights
    is_main: bool = False
    is_built: bool = False  # in a temporary folder, for this page
    degradation: Degradation | None = None  # against the reference
    samples: tuple[Sample, ...] = ()
    layers: tuple[Divergence, ...] = ()  # the difference at each operator

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; samples as ids."""
        return {
            "label": self.label,
            "scheme": self.scheme,
            "n_bytes": self.n_bytes,
            "made_for_this_report": self.is_built,
            "damage": self.degradation.to_dict() if self.degradation else None,
            "samples": [
                {"prompt": sample.prompt, "ids": list(sample.ids), "parted": sample.diverges_at}
                for sample in self.samples
            ],
            "layers": [divergence.to_dict() for divergence in self.layers],
        }


@dataclass(frozen=True, slots=True)
class TokenDivergences:
    """A text, and for each token the KL divergence of the bundle's prediction from the reference's,
    in nats.
    """

    pieces: tuple[str, ...]
    kl: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BundleReport:
    """Everything on the page. missing: what the page lacks, why, and how to get it. text: what the
    versions were measured on.
    """

    bundle: Bundle
    reference: str | None  # its description
    variants: tuple[Variant, ...]
    text: str | None
    n_tokens: int
    prompts: str  # where they come from
    tokens: TokenDivergences | None
    sensitivity: Mapping[str, Mapping[str, float]]  # KL by weight and format
    sensitivity_origin: str | None
    torch: Mapping[str, Any] | None  # torch against the fp32 graph, measured for this page
    missing: tuple[str, ...]

    @property
    def main(self) -> Variant:
        """The bundle itself."""
        return next(variant for variant in self.variants if variant.is_main)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bundle": self.bundle.manifest.name,
            "reference": self.reference,
            "text": self.text,
            "n_tokens": self.n_tokens,
            "variants": [variant.to_dict() for variant in self.variants],
            "sensitivity": {name: dict(values) for name, values in self.sensitivity.items()},
            "sensitivity_origin": self.sensitivity_origin,
            "torch_against_fp32": self.torch,
            "missing": list(self.missing),
        }
