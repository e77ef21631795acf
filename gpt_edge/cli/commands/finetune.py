"""`finetune`: a model for one of GPT-1's four tasks, from a checkpoint and a file of examples.
Needs the extra `train`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import JsonOption
from gpt_edge.errors import require

if TYPE_CHECKING:
    from gpt_edge.data.examples import Columns
    from gpt_edge.training.finetune.results import FinetuneResult

TaskName = Literal["classification", "entailment", "similarity", "multiple-choice"]


def finetune(
    task: Annotated[TaskName, typer.Option(help="Kind of task.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Examples: TSV, CSV or JSON lines, columns named.",
        ),
    ],
    checkpoint: Annotated[
        Path,
        typer.Option(
            metavar="SOURCE",
            help="Checkpoint to start from; any that export takes.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")],
    dev: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Examples that choose the best epoch."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Examples scored once, at the end."),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Take this share of --data away as dev."),
    ] = 0.0,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the text; give it twice for similarity; of multiple choice, the "
            "question's one or more.",
        ),
    ] = None,
    premise: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the premise."),
    ] = None,
    hypothesis: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the hypothesis."),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the answers' list, or one for each answer.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the label, the score or the right answer.",
        ),
    ] = None,
    format: Annotated[
        Literal["csv", "tsv", "jsonl"] | None,
        typer.Option(help="Format of the files, if their names do not say."),
    ] = None,
    score_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Similarity is a number in this range, not a class.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every example is seen.")] = 3,
    lr: Annotated[
        float, typer.Option(help="Peak learning rate; small models want 1e-3, with --warmup 0.05.")
    ] = 6.25e-5,
    batch: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 32,
    lm_weight: Annotated[
        float,
        typer.Option(
            "--lambda", metavar="WEIGHT", help="Weight of the language model's loss; 0 is without."
        ),
    ] = 0.5,
    dropout: Annotated[float, typer.Option(help="Inside the model.")] = 0.1,
    clf_dropout: Annotated[float, typer.Option(help="Before the head.")] = 0.1,
    token_noise: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the tokens that are read as random ones; 0.1 helps small models.",
        ),
    ] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Of the matrices.")] = 0.01,
    warmup: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the steps in which the rate rises.")
    ] = 0.002,
    patience: Annotated[
        int,
        typer.Option(
            min=0, help="Stop after so many epochs without a better one on dev; 0 never does."
        ),
    ] = 0,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Train corrections of this rank, merged at the end."),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Their scale; by default twice the rank.")
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Start from random weights of the same shape, to compare."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the arithmetic.")
    ] = "float32",
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Positions computed at once: less takes less memory.")
    ] = 4096,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 leaves the choice to torch.")] = 0,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Tokenizer file, folder or name (gpt2); by default what lies beside the "
            "checkpoint.",
        ),
    ] = None,
    forgetting_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text whose perplexity is measured before and after.",
        ),
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Between the documents of that text.")
    ] = "<|endoftext|>",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last whole epoch in --out.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the confusion matrix to confusion.png in --out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on one task: classification, entailment, similarity or multiple choice.

    The defaults are GPT-1's. The folder gets checkpoint/, the best epoch's model with its head, to
    export; figures per epoch; and results.json.
    """
    require("gpt_edge.training.finetune.run", "train")
    from gpt_edge.data.examples import default_columns
    from gpt_edge.training.finetune.run import finetune as run
    from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

    columns = _columns(
        task,
        default_columns(task, score_range is not None),
        text,
        premise,
        hypothesis,
        choice,
        label,
    )
    settings = FinetuneSettings(
        kind=task, score_range=score_range, epochs=epochs, learning_rate=lr, batch=batch, lm_weight=lm_weight,
        dropout=dropout, clf_dropout=clf_dropout, token_noise=token_noise, weight_decay=weight_decay, warmup=warmup,
        patience=patience, lora_rank=lora_rank, lora_alpha=lora_alpha, from_scratch=from_scratch, seed=seed,
        precision=precision, batch_tokens=batch_tokens, threads=threads,
    )  # fmt: skip
    files = FinetuneData(
        train=data, dev=dev, test=test, hold_out=hold_out, columns=columns, format=format,
        forgetting_text=forgetting_text, separator=separator,
    )  # fmt: skip
    result = run(checkpoint, out, files, settings, tokenizer=tokenizer, resume=resume, plot=plot)
    if as_json:
        console.say_json(result.to_dict())
    else:
        console.say(describe(result))


def _columns(
    task: str,
    default: Columns,
    text: Sequence[str] | None,
    premise: str | None,
    hypothesis: str | None,
    choice: Sequence[str] | None,
    label: str | None,
) -> Columns:
    """The columns that were named, in place of the default ones. Raises ValueError for a flag of
    another task.
    """
    texts = tuple(text or default.texts)
    if task == "entailment":
        if text:
            raise ValueError("entailment has --premise and --hypothesis, not --text")
        texts = (premise or default.texts[0], hypothesis or default.texts[1])
    else:
        if premise or hypothesis:
            raise ValueError(f"--premise and --hypothesis are for entailment, {task} has --text")
        if task != "multiple-choice" and len(texts) != len(default.texts):
            raise ValueError(f"{task} wants --text {len(default.texts)} time(s), got {len(texts)}")
    if choice and task != "multiple-choice":
        raise ValueError(f"--choice is for multiple-choice, not for {task}")
    return dataclasses.replace(
        default, texts=texts, choices=tuple(choice or default.choices), label=label or default.label
    )


def describe(result: FinetuneResult) -> str:
    """The result in a few lines."""
    task = result.spec
    answer = (
        f"scores {task.score_range[0]:g} to {task.score_range[1]:g}" if task.score_range else ""
    )
    answer = answer or (f"{len(task.labels)} classes" if task.labels else "one score per answer")
    lines = [
        f"{result.checkpoint}: {task.kind}, {answer}, {result.steps:,} steps in "
        f"{result.seconds:,.0f} s, "
        f"best epoch {result.best_epoch} of {result.epochs}"
    ]
    for name, part in result.data.items():
        if name != "balance":
            lines.append(
                f"{name:<6} {part['n_examples']:,} examples, {part['n_tokens']:,} tokens, "
                f"{_cut(part)}"
            )
    if shares := result.data.get("balance"):
        total, largest, smallest = sum(shares.values()), max(shares.values()), min(shares.values())
        lines.append(
            f"labels {len(shares)} in train, {smallest:,} to {largest:,} examples each; "
            f"the most frequent, {next(iter(shares))!r}, has {largest / total:.1%}"
        )
    for name, found in result.sets.items():
        for metric, estimate in found.metrics.items():
            lines.append(
                f"{name:<6} {metric.replace('_', ' ')} {estimate.value:.4f}, 95 % interval "
                f"{estimate.low:.4f} to {estimate.high:.4f} ({estimate.interval})"
            )
    if result.forgetting:
        values = result.to_dict()["forgetting"]
        lines.append(
            f"text   perplexity {values['perplexity_before']:.2f} before, "
            f"{values['perplexity_after']:.2f} after"
        )
    return "\n".join(lines)


def _cut(part: dict[str, int]) -> str:
    if not part["n_cut_examples"]:
        return "none cut"
    return f"{part['n_cut_examples']:,} cut, {part['n_cut_tokens']:,} tokens lost: they pass the context"
