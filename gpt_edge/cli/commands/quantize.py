"""`quantize`: an fp32 bundle rounded by a scheme, or as cheaply as a budget of loss allows. Needs
the extra `export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.export_output import figures_of_failure, print_made
from gpt_edge.cli.support.options import (
    BUNDLE_HELP,
    ForceOption,
    JsonOption,
    OutArgument,
    QuantizedSchemeName,
    TargetOption,
    check_target,
    complete_bundle,
)
from gpt_edge.cli.support.quantize_tables import outcome_tables
from gpt_edge.errors import ExportError, require

if TYPE_CHECKING:
    from gpt_edge.export.budget.run import Quantized

ROAD = "gpt_edge.export.budget.run"
Bits = Literal["4", "8", "16", "32"]


def quantize(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE",
            help=BUNDLE_HELP.partition(";")[0] + "; its scheme must be fp32.",
            show_default=False,
            autocompletion=complete_bundle,
        ),
    ],
    out: OutArgument,
    scheme: Annotated[
        QuantizedSchemeName,
        typer.Option(
            help="How the weights are stored; mixed is searched for a budget.", show_default=False
        ),
    ],
    block_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Weights that share a scale: 16, 32, 64, ...; not for int8.",
            show_default=False,
        ),
    ] = None,
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric/--asymmetric", help="Without or with a zero point for each block."
        ),
    ] = True,
    head: Annotated[
        Bits | None,
        typer.Option(
            help="Bits of the head; a tied embedding is the same table.", show_default=False
        ),
    ] = None,
    embedding: Annotated[
        Bits | None, typer.Option(help="Bits of the embedding.", show_default=False)
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Round only weights like 'h.*.mlp.*'.", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave weights like 'h.0.*'.", show_default=False),
    ] = None,
    rounding: Annotated[
        Literal["nearest", "gptq", "search"] | None,
        typer.Option(
            help="How to choose levels; gptq for 4 bits and nearest for 8 if not given.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text for gptq; by default the model writes its own.",
            show_default=False,
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(metavar="X", help="Most mean KL from fp32, in nats.", show_default=False),
    ] = None,
    max_ppl_increase: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Most growth of perplexity: 0.002 is 0.2 %.", show_default=False
        ),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Least share of tokens that stay the most likely one: 0.985.",
            show_default=False,
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text to measure the budget on; by default the model writes its own.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="Draw size against loss into this file.", show_default=False
        ),
    ] = None,
    target: TargetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Round the weights of an fp32 bundle, within a budget of loss if one is given.

    The new bundle at OUT is held against the one that it came from, and published if it is within
    tolerance and within the budget. With --scheme mixed each tensor gets the cheapest of 4, 8 and
    16 bits that the budget allows.
    """
    check_target(scheme, target)
    from gpt_edge.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    with (
        _outcome_of_failure(as_json),
        figures_of_failure(as_json),
        console.progress("loading torch") as progress,
    ):
        require(ROAD, "export")
        from gpt_edge.export.budget.loss_budget import LossBudget
        from gpt_edge.export.budget.run import quantize_to_budget
        from gpt_edge.export.formats.plan import QuantizeOptions

        options = QuantizeOptions(
            scheme,
            block_size,
            symmetric,
            "scale-search" if rounding == "search" else rounding,
            int(head) if head else None,
            int(embedding) if embedding else None,
            tuple(include or ()),
            tuple(exclude or ()),
        )
        made = quantize_to_budget(
            opened,
            out,
            options,
            budget=LossBudget(max_kl, max_ppl_increase, min_top1),
            calibration=calibration,
            eval_text=eval_text,
            plot=plot,
            target=target,
            force=force,
            progress=progress,
        )
    _print(made, as_json)


@contextmanager
def _outcome_of_failure(as_json: bool) -> Iterator[None]:
    """Where the budget is missed, show what was tried before the error goes on."""
    try:
        yield
    except ExportError as error:
        outcome = getattr(error, "outcome", None)
        if outcome is not None and as_json:
            console.say_json({"ok": False, "fault": error.message, "budget": outcome.to_dict()})
        elif outcome is not None:
            console.say(outcome_tables(outcome.to_dict()))
        raise


def _print(made: Quantized, as_json: bool) -> None:
    more: dict[str, Any] = {"notes": list(made.notes)}
    if made.plan is not None:
        more["tensors"] = {name: form.label for name, form in made.plan.items()}
    if made.outcome is not None:
        more["budget"] = made.outcome.to_dict()
    print_made(made.bundle, made.verification.figures, as_json, more)
    if as_json:
        return
    if made.outcome is not None:
        console.say()
        console.say(outcome_tables(made.outcome.to_dict()))
    if made.notes:
        console.say()
    for note in made.notes:
        console.say(note)
