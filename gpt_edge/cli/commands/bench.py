"""`bench`: how fast bundles are here. Parses, measures, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BUNDLE_HELP, complete_bundle

FormatName = Literal["table", "md", "csv", "json", "jsonl"]
LIST_HELP = "Numbers such as 32,512, or 128-512+128."


def bench(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help=f"{BUNDLE_HELP} Several are measured in alternation and compared with the first.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--prompt",
            metavar="N,...",
            help=f"Tokens to read (pp); 32,512 if they fit. {LIST_HELP}",
        ),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--new",
            metavar="N,...",
            help="Tokens to write (tg); 128 if they fit.",
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--depth",
            metavar="N,...",
            help="Tokens in the context before; 0 if not given.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--threads",
            metavar="N,...",
            help="Threads; what the machine allows if not given.",
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option("-b", "--batch", metavar="N,...", help="Sequences at once.")
    ] = "1",
    repetitions: Annotated[int, typer.Option("-r", "--repetitions", help="Rounds that count.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", help="Rounds before them.")] = 1,
    format: Annotated[
        FormatName, typer.Option("--format", help="How to print the figures.")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say which operators a token's time goes to.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw decoding speed over the context; spreads -d over it.",
        ),
    ] = None,
) -> None:
    """Measure how fast bundles read and write.

    As llama-bench: every combination of the lists, medians over rounds. Also the start of a
    process, its memory, the cost of a token outside onnxruntime, and the share of what memory could
    give. -p 0 or -n 0 leaves that part out.
    """  # fmt: skip
    if as_json and format not in ("table", "json"):
        raise ValueError(f"--json and --format {format} contradict each other")
    from gpt_edge.bench.plan import make_plan, parse_numbers

    lists = {
        name: None if text is None else parse_numbers(text)
        for name, text in (
            ("prompts", prompt),
            ("new_tokens", new),
            ("depths", depth),
            ("threads", threads),
        )
    }
    batches = parse_numbers(batch)
    from gpt_edge.bench.plot import check_target, write_plot
    from gpt_edge.bench.report import render
    from gpt_edge.bench.run import bench as run
    from gpt_edge.bundle.bundle import Bundle

    opened = [Bundle.open(bundle) for bundle in bundles] if bundles else [Bundle.open()]
    plan = make_plan(
        min(bundle.config.n_ctx for bundle in opened),
        **lists,
        batches=batches,
        repetitions=repetitions,
        warmup=warmup,
        is_curve=plot is not None,
    )
    if plot is not None:
        check_target(plot)
    with console.progress("starting") as progress:
        report = run(opened, plan, with_profile=profile, progress=progress)
    if plot is not None:
        write_plot(report, plot)
    console.say(render(report, "json" if as_json else format))
