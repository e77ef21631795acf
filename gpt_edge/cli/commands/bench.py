"""`bench`: measure the speed of bundles on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BUNDLE_HELP, complete_bundle

FormatName = Literal["table", "md", "csv", "json", "jsonl"]
LIST_HELP = "A list is 32,512 or 128-512+128."


def bench(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help=f"{BUNDLE_HELP} Several are measured in alternation, and compared with the first.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--prompt",
            metavar="N,...",
            help=f"Tokens of the prompt (pp); by default 32,512 if they fit. {LIST_HELP}",
        ),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--new",
            metavar="N,...",
            help="Tokens to generate (tg); by default 128 if they fit.",
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--depth",
            metavar="N,...",
            help="Tokens already in the context; by default 0.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--threads",
            metavar="N,...",
            help="CPU threads to use; by default one per physical core, at most 16.",
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option("-b", "--batch", metavar="N,...", help="Sequences per batch.")
    ] = "1",
    repetitions: Annotated[
        int, typer.Option("-r", "--repetitions", help="Number of measured rounds.")
    ] = 5,
    warmup: Annotated[int, typer.Option("--warmup", help="Number of warm-up rounds.")] = 1,
    format: Annotated[FormatName, typer.Option("--format", help="Output format.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the time that each operator takes.")
    ] = False,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy",
            help="Show the joules of a token, where the processor's counters (RAPL) can be read.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Plot decoding speed over the context to this file; without -d, at nine depths.",
        ),
    ] = None,
) -> None:
    """Measure the speed and memory of bundles on this machine.

    As llama-bench does, runs every combination of the lists and prints medians over rounds. Also
    measures process start, peak memory, the time of a token outside onnxruntime, and the fraction
    of the memory bandwidth that is reached. -p 0 or -n 0 skips that test.
    """
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
        report = run(opened, plan, with_profile=profile, with_energy=energy, progress=progress)
    if plot is not None:
        write_plot(report, plot)
    console.say(render(report, "json" if as_json else format))
