"""`quantize`: an fp32 bundle quantized by a scheme, or within a quality budget. Needs the extra
`export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.export_output import figures_of_failure, print_exported
from gpt_edge.cli.support.options import (
    BUNDLE_NAME_HELP,
    AcceptParityOption,
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

PIPELINE = "gpt_edge.export.budget.run"
Bits = Literal["4", "8", "16", "32"]


def quantize(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE",
            help=f"{BUNDLE_NAME_HELP}; its scheme must be fp32.",
            autocompletion=complete_bundle,
        ),
    ],
    out: OutArgument,
    scheme: Annotated[
        QuantizedSchemeName,
        typer.Option(
            help="Quantization scheme; mixed searches a format for each tensor within the budget."
        ),
    ],
    block_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Weights that share one scale: 16, 32, 64, ...; not for int8.",
        ),
    ] = None,
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric/--asymmetric", help="Quantize without or with a zero point per block."
        ),
    ] = True,
    head: Annotated[
        Bits | None,
        typer.Option(help="Bits of the output head, and of a tied embedding."),
    ] = None,
    embedding: Annotated[Bits | None, typer.Option(help="Bits of the token embedding.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Quantize only the weights that match, such as 'h.*.mlp.*'; repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Keep the weights that match in fp32, such as 'h.0.*'; repeatable.",
        ),
    ] = None,
    rounding: Annotated[
        Literal["nearest", "gptq", "search"] | None,
        typer.Option(
            help="How to choose quantization levels; by default gptq for 4 bits, nearest for 8.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Calibration text for gptq; by default the model generates it.",
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(metavar="X", help="Maximum mean KL divergence from fp32, in nats."),
    ] = None,
    max_ppl_increase: Annotated[
        float | None,
        typer.Option(metavar="X", help="Maximum perplexity increase: 0.002 is 0.2 %."),
    ] = None,
    min_top1: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Minimum top-1 agreement: 0.985 is 98.5 % of tokens.",
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text to measure the budget on; by default the model generates it.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Plot size against quality loss to this file."),
    ] = None,
    target: TargetOption = None,
    accept_parity: AcceptParityOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize an fp32 bundle, optionally within a quality budget.

    The new bundle is compared with the fp32 bundle, and published only if it is within tolerance
    and within the budget. --scheme mixed gives each tensor the smallest of 4, 8 and 16 bits that
    the budget allows. Needs the extra gpt-edge[export].
    """
    check_target(scheme, target)
    from gpt_edge.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    with (
        _outcome_of_failure(as_json),
        figures_of_failure(as_json),
        console.progress("loading torch") as progress,
    ):
        require(PIPELINE, "export")
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
        quantized = quantize_to_budget(
            opened,
            out,
            options,
            budget=LossBudget(max_kl, max_ppl_increase, min_top1),
            calibration=calibration,
            eval_text=eval_text,
            plot=plot,
            target=target,
            accept_parity=accept_parity,
            force=force,
            progress=progress,
        )
    _print(quantized, as_json)


@contextmanager
def _outcome_of_failure(as_json: bool) -> Iterator[None]:
    """Print the assignments that were tried before reporting that none met the budget."""
    try:
        yield
    except ExportError as error:
        outcome = getattr(error, "outcome", None)
        if outcome is not None and as_json:
            console.say_json({"ok": False, "fault": error.message, "budget": outcome.to_dict()})
        elif outcome is not None:
            console.say(outcome_tables(outcome.to_dict()))
        raise


def _print(quantized: Quantized, as_json: bool) -> None:
    more: dict[str, Any] = {"notes": list(quantized.notes)}
    if quantized.plan is not None:
        more["tensors"] = {
            name: tensor_format.label for name, tensor_format in quantized.plan.items()
        }
    if quantized.outcome is not None:
        more["budget"] = quantized.outcome.to_dict()
    print_exported(quantized.bundle, quantized.verification.figures, as_json, more)
    if as_json:
        return
    if quantized.outcome is not None:
        console.say()
        console.say(outcome_tables(quantized.outcome.to_dict()))
    if quantized.notes:
        console.say()
    for note in quantized.notes:
        console.say(note)
