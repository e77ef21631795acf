"""`eval`: how well a model predicts texts, and how far two models differ on them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.eval_tables import lambada_table, text_table
from gpt_edge.cli.support.open_model import MODEL_HELP, open_model
from gpt_edge.cli.support.options import (
    JsonOption,
    SpecialOption,
    ThreadsOption,
    complete_bundle,
)
from gpt_edge.errors import TokenizerError

if TYPE_CHECKING:
    from gpt_edge.evaluate import LambadaScore, Models, Step, TextReport
    from gpt_edge.tokenizer import Tokenizer


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=MODEL_HELP,
            autocompletion=complete_bundle,
        ),
    ],
    texts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="TEXT", help="Plain-text or JSON-lines files, optionally gzipped."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Compare MODEL with this model: KL divergence, top-1 agreement, RMS Δp.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    lambada: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure last-word accuracy on these LAMBADA passages."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Tokens per window; by default the context length."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens between the starts of two windows; by default half a window."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Maximum number of documents, and of passages."),
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Separator between the documents of a plain-text file.")
    ] = "<|endoftext|>",
    format: Annotated[
        Literal["auto", "text", "jsonl"],
        typer.Option(
            help="Format of TEXT; auto reads .jsonl and .ndjson, also gzipped, as JSON lines."
        ),
    ] = "auto",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Tokenizer file, folder or name (gpt2); by default the model's own.",
        ),
    ] = None,
    special: SpecialOption = False,
    threads: ThreadsOption = None,
    noise_floor: Annotated[
        bool | None,
        typer.Option(
            "--noise-floor/--no-noise-floor",
            help="Compare MODEL with itself at another number of threads; by default only with "
            "--against.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save progress to FILE, and resume from it if it exists.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a model predicts texts.

    Prints perplexity, bits per byte and next-token accuracy of TEXT, where each document is
    evaluated on its own in overlapping windows. With --lambada, also the accuracy of the last words
    of passages. Every error (±) is a standard error.
    """
    from gpt_edge.evaluate import (
        EvaluationSettings,
        EvaluationState,
        evaluate_lambada,
        evaluate_text,
    )
    from gpt_edge.system.threads import check_threads

    paths = texts or []
    if not paths and lambada is None:
        raise ValueError("give a TEXT to score, or passages with --lambada FILE")
    settings = EvaluationSettings(
        window=window,
        stride=stride,
        separator=separator,
        format=format,
        limit=limit,
        special=special,
    )
    if threads is not None:
        check_threads(threads)
    if noise_floor is None:
        noise_floor = against is not None
    models, shared_tokenizer = _open_models(
        model,
        against,
        threads,
        tokenizer,
        with_noise_floor=noise_floor and bool(paths),
        with_identity=resume is not None,
    )
    state = EvaluationState(resume)
    report = None
    scores = []
    if paths:
        with _bar("text") as progress:
            report = evaluate_text(
                models, shared_tokenizer, paths, settings, state=state, progress=progress
            )
    if lambada is not None:
        with _bar("lambada") as progress:
            scores = evaluate_lambada(
                models, shared_tokenizer, lambada, settings, state=state, progress=progress
            )
    if as_json:
        console.say_json(_as_json(models, report, scores))
    else:
        _print(models, [path.name for path in paths], report, scores)


def _open_models(
    model: str,
    against: str | None,
    threads: int | None,
    tokenizer_name: str | None,
    *,
    with_noise_floor: bool,
    with_identity: bool,
) -> tuple[Models, Tokenizer]:
    """Return the models and the tokenizer that they share. with_identity: hash their files, for a
    run that may be resumed.
    """
    from gpt_edge.evaluate import Models, check_same_tokens, fingerprint

    opened = [open_model(model, tokenizer_name)]
    if against is not None:
        opened.append(open_model(against, tokenizer_name, opened[0].config))
    scorers = [one.scorer(threads) for one in opened]
    models = Models(scorers[0], scorers[1] if against is not None else None)
    tokenizers = [one.tokenizer for one in opened if one.tokenizer is not None]
    if not tokenizers:
        raise TokenizerError(
            f"{model} has no tokenizer", hint="give one with --tokenizer FILE, or --tokenizer gpt2"
        )
    for other in tokenizers[1:]:
        check_same_tokens(tokenizers[0], other, (model, against or ""))
    if with_noise_floor:
        other_threads = 1 if scorers[0].threads > 1 else 2
        models = dataclasses.replace(models, again=opened[0].scorer(other_threads))
    if with_identity:
        identity = tuple(fingerprint(one.path) for one in opened)
        models = dataclasses.replace(models, identity=identity)
    return models, tokenizers[0]


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Step], None]]:
    """Show a bar on standard error if that is a terminal; else write nothing."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    terminal = Console(stderr=True)
    columns = (
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.monotonic()
    n_resumed: int | None = None  # done before this run: does not count for its speed
    with Progress(
        *columns, TimeRemainingColumn(), console=terminal, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task(title, total=1.0, note="")

        def show(step: Step) -> None:
            nonlocal n_resumed
            if n_resumed is None:
                n_resumed = step.n_done
            rate = (step.n_done - n_resumed) / max(1e-9, time.monotonic() - started)
            note = f"{step.n_done:,} done  {rate:,.0f}/s  loss {step.loss:.4f}"
            bar.update(task, completed=step.fraction, note=note)

        yield show


def _as_json(
    models: Models, report: TextReport | None, scores: list[LambadaScore]
) -> dict[str, Any]:
    roles = [("model", models.model), ("against", models.base)]
    values: dict[str, Any] = {
        role: {"name": scorer.name, "threads": scorer.threads, "n_ctx": scorer.config.n_ctx}
        for role, scorer in roles
        if scorer is not None
    }
    if report is not None:
        text = dataclasses.asdict(report)
        values["text"] = {
            "against" if name == "base" else name: value for name, value in text.items()
        }
    if scores:
        names = [role for role, scorer in roles if scorer is not None]
        values["lambada"] = {
            name: dataclasses.asdict(score) for name, score in zip(names, scores, strict=True)
        }
    return values


def _print(
    models: Models, files: list[str], report: TextReport | None, scores: list[LambadaScore]
) -> None:
    names = [scorer.name for scorer in (models.model, models.base) if scorer is not None]
    tables = [] if report is None else [text_table(names, files, report)]
    if scores:
        tables.append(lambada_table(names, scores))
    console.say("\n\n".join(tables))
