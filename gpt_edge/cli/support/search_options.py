"""Options of `generate` that make several texts of one prompt, or search for the best: samples,
beams and contrastive search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from gpt_edge.generate.completion import Completion
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams

SEARCH = "Several texts and search"

SamplesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="So many texts of one prompt, with seeds that count up; of --beams, the best so many.",
        rich_help_panel=SEARCH,
    ),
]
BestOfOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Sample so many, and print the --samples whose tokens are likeliest; else the one.",
        rich_help_panel=SEARCH,
    ),
]
BeamsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Search for the likeliest text with so many beams.", rich_help_panel=SEARCH
    ),
]
LengthPenaltyOption = Annotated[
    float,
    typer.Option(
        help="Of --beams: above 0 long texts gain, below 0 short ones.", rich_help_panel=SEARCH
    ),
]
PenaltyAlphaOption = Annotated[
    float | None,
    typer.Option(
        metavar="0 TO 1",
        help="Contrastive search: of the --top-k likeliest tokens, 4 without it, the one that is "
        "unlike the text so far, with this weight; 0.6 is usual.",
        rich_help_panel=SEARCH,
    ),
]


@dataclass(frozen=True, slots=True)
class Search:
    """What the options ask for; `is_asked` is False for one text in the usual way."""

    samples: int | None
    best_of: int | None
    beams: int | None
    length_penalty: float
    penalty_alpha: float | None

    @property
    def is_asked(self) -> bool:
        """Whether any of them is given."""
        return self.is_deterministic or self.samples is not None or self.best_of is not None

    @property
    def is_deterministic(self) -> bool:
        """Whether it searches, so that a model's own sampling does not apply."""
        return self.beams is not None or self.penalty_alpha is not None

    def check(self, params: SamplingParams, others: Mapping[str, object]) -> None:
        """Raise ValueError for options that contradict each other. others: that go with one text
        alone, by name.
        """
        if self.beams is None and self.length_penalty != 1:
            raise ValueError("--length-penalty goes with --beams")
        if not self.is_asked:
            return
        for name, value in others.items():
            if value not in (None, False):
                raise ValueError(f"{name} goes with one text, not with {self._name}")
        if self.penalty_alpha is not None:
            self._check_contrastive(params)
        elif self.beams is not None:
            self._check_beams(params)
        elif self.best_of is not None and self.best_of < (self.samples or 1):
            raise ValueError(
                f"--best-of must be at least --samples, got {self.best_of} and {self.samples}"
            )

    def _check_contrastive(self, params: SamplingParams) -> None:
        if self.samples is not None or self.best_of is not None or self.beams is not None:
            raise ValueError("--penalty-alpha finds one text: leave --samples, --best-of, --beams")
        from gpt_edge.generate.contrastive import ContrastiveParams

        assert self.penalty_alpha is not None
        ContrastiveParams(self.penalty_alpha, params.top_k or 4)

    def _check_beams(self, params: SamplingParams) -> None:
        from gpt_edge.generate.beam_search import BeamParams

        if self.best_of is not None:
            raise ValueError("--best-of samples, --beams searches: give one of them")
        if not params.is_greedy:
            raise ValueError("--beams goes with no option that samples, such as --top-k")
        assert self.beams is not None
        BeamParams(self.beams, self.length_penalty, False, self.samples or 1)

    @property
    def _name(self) -> str:
        given = {
            "--penalty-alpha": self.penalty_alpha,
            "--beams": self.beams,
            "--best-of": self.best_of,
            "--samples": self.samples,
        }
        return next(name for name, value in given.items() if value is not None)

    def run(
        self,
        generator: Generator,
        prompt: str,
        params: SamplingParams,
        truncate: Literal["left"] | None,
        *,
        special: bool,
        on_text: Callable[[str], object],
    ) -> list[Completion]:
        """The texts. on_text: called with pieces where there is one text that comes in pieces."""
        if self.penalty_alpha is not None:
            from gpt_edge.generate.contrastive import ContrastiveParams

            contrastive = ContrastiveParams(self.penalty_alpha, params.top_k or 4)
            done = generator.contrastive_search(
                prompt,
                dataclasses.replace(params, top_k=None),
                contrastive=contrastive,
                truncate=truncate,
                special=special,
                on_text=on_text,
            )
            return [done]
        if self.beams is not None:
            from gpt_edge.generate.beam_search import BeamParams

            beams = BeamParams(self.beams, self.length_penalty, False, self.samples or 1)
            found = generator.beam_search(
                prompt, params, beams=beams, truncate=truncate, special=special
            )
        else:
            found = generator.samples(
                prompt,
                params,
                n=self.samples or 1,
                best_of=self.best_of,
                truncate=truncate,
                special=special,
            )
        if len(found) == 1:
            on_text(found[0].text)
        return found
