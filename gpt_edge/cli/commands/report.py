"""`report`: an HTML page about a bundle, to attach to a release. Needs the extra `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BundleArgument, JsonOption, complete_bundle
from gpt_edge.cli.support.tables import columns, size
from gpt_edge.errors import require


def report(
    bundle: BundleArgument = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="HTML file to write.")
    ] = Path("report.html"),
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint or fp32 bundle to compare with; int8 and int4 bundles of it are "
            "added to the comparison.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            help="Add this bundle to the comparison; repeatable.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text to measure on; by default the fp32 model generates it."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Prompt of a sample; repeatable; by default three built-in prompts.",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=2, help="Maximum number of tokens to measure on.")
    ] = 8192,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="Measure the quality loss from quantizing each weight alone."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a self-contained HTML report about a bundle.

    Shows size, quality loss, samples side by side and the error of each layer. Without --against,
    the report has only what can be measured without the fp32 model, and lists what is missing.
    Needs the extra gpt-edge[export].
    """
    from gpt_edge.bundle.bundle import Bundle

    with console.progress("loading torch") as progress:
        require("gpt_edge.export.report.measure", "export")
        from gpt_edge.export.report.measure import make_report
        from gpt_edge.export.report.page import check_target, write_page

        check_target(out)
        bundle_report = make_report(
            Bundle.open(bundle),
            against=against,
            also=[Bundle.open(name) for name in also or ()],
            text=text,
            prompts=prompt or (),
            n_tokens=tokens,
            with_sensitivity=sensitivity,
            progress=progress,
        )
        n_bytes = write_page(bundle_report, out)
    if as_json:
        console.say_json({"report": str(out), **bundle_report.to_dict()})
        return
    console.say(f"{out}: {size(n_bytes)}")
    rows = [("", "size", "mean KL", "perplexity", "same token")]
    for variant in bundle_report.variants:
        loss = variant.degradation
        figures = (
            (f"{loss.mean_kl:.2g}", f"{loss.ppl_increase:+.3%}", f"{loss.top1:.2%}")
            if loss
            else ("-", "-", "-")
        )
        rows.append((console.visible(variant.label), size(variant.n_bytes), *figures))
    console.say(columns(rows))
    for reason in bundle_report.missing:
        console.say(console.visible(f"missing: {reason}"))
