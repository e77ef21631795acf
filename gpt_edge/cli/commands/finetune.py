"""`finetune`: a checkpoint and a file of examples to a model for one of GPT-1's four tasks, or for
vectors of texts. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.column_options import (
    AnswersOption,
    FormatOption,
    HypothesisOption,
    PremiseOption,
    SkipBadRowsOption,
)
from gpt_edge.cli.support.examples import columns_of, pair_columns, with_separator
from gpt_edge.cli.support.options import AdapterOption, ConfigOption, JsonOption
from gpt_edge.cli.support.tables import calibration_line
from gpt_edge.errors import require

if TYPE_CHECKING:
    from gpt_edge.tasks import TaskSpec
    from gpt_edge.training.finetune.results import FinetuneResult

TaskName = Literal["classification", "entailment", "similarity", "multiple-choice", "embedding"]


def finetune(
    task: Annotated[TaskName, typer.Option(help="Task to train for.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Training examples: TSV or CSV with a header, or JSON lines.",
        ),
    ],
    checkpoint: Annotated[
        Path,
        typer.Option(
            metavar="SOURCE",
            help="Checkpoint to start from, in any format that export reads.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder.")],
    dev: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Examples to select the best epoch with."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Examples to score once, at the end."),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(
            metavar="FRACTION", help="Use this fraction of --data as dev instead of for training."
        ),
    ] = 0.0,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the text; twice for similarity and embedding. Several columns of "
            "classification, or of the question of multiple-choice, are joined.",
        ),
    ] = None,
    premise: PremiseOption = None,
    hypothesis: HypothesisOption = None,
    choice: AnswersOption = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the label, the score or the correct answer.",
        ),
    ] = None,
    format: FormatOption = None,
    skip_bad_rows: SkipBadRowsOption = False,
    score_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Train similarity as a score in this range instead of as classes.",
        ),
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label",
            help="Train classification with any number of labels for each text, or none.",
        ),
    ] = False,
    label_separator: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Separator between the labels of a field, with --multi-label; in JSON lines they "
            "may be a list.",
        ),
    ] = "|",
    class_weights: Annotated[
        Literal["none", "balanced"],
        typer.Option(help="Weight classes in the loss so that rare ones count as much as others."),
    ] = "none",
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Numbers in an embedding's vectors; by default as many as the model's width.",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the contrastive loss of an embedding.")
    ] = 0.05,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 3,
    lr: Annotated[
        float,
        typer.Option(help="Peak learning rate; small models need about 1e-3, with --warmup 0.05."),
    ] = 6.25e-5,
    batch: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 32,
    lm_weight: Annotated[
        float,
        typer.Option(
            "--lambda",
            metavar="WEIGHT",
            help="Weight of the auxiliary language-model loss; 0 disables it.",
        ),
    ] = 0.5,
    dropout: Annotated[float, typer.Option(help="Dropout inside the model.")] = 0.1,
    clf_dropout: Annotated[
        float, typer.Option(help="Dropout before the classification head.")
    ] = 0.1,
    token_noise: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            help="Fraction of input tokens to replace with random ones; 0.1 helps small models.",
        ),
    ] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of the matrices.")] = 0.01,
    warmup: Annotated[
        float,
        typer.Option(
            metavar="FRACTION", help="Fraction of the steps in which the learning rate rises."
        ),
    ] = 0.002,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop after this many epochs without improvement on dev; 0 never stops early.",
        ),
    ] = 0,
    lora_rank: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Train a LoRA adapter of this rank on a frozen model; 0 trains the head alone. "
            "The checkpoint holds it merged, and for export --base by itself.",
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Scale of the LoRA adapters; by default twice the rank.")
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Start from random weights of the same shape, as a baseline."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Precision of the computation.")
    ] = "float32",
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Token positions per forward pass; fewer take less memory.")
    ] = 4096,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads to use; 0 lets torch choose.")
    ] = 0,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Tokenizer file, folder or name (gpt2); by default the one beside the checkpoint.",
        ),
    ] = None,
    config: ConfigOption = None,
    adapter: AdapterOption = None,
    forgetting_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text to measure perplexity on before and after, to show what the model forgets.",
        ),
    ] = None,
    separator: Annotated[
        str, typer.Option(help="Separator between the documents of --forgetting-text.")
    ] = "<|endoftext|>",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume after the last complete epoch in --out.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Plot the confusion matrix to confusion.png in --out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on one of four tasks, or to embed texts.

    The defaults are those of the GPT-1 paper. With --dev or --hold-out, probabilities are
    calibrated on those examples at the end. Writes checkpoint/ (the model of the best epoch with
    its head, ready to export), figures per epoch, and results.json to the run folder. Needs the
    extra gpt-edge[train].
    """
    require("gpt_edge.training.finetune.run", "train")
    from gpt_edge.training.finetune.run import finetune as run
    from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

    columns = (
        pair_columns(text, label)
        if task == "embedding"
        else columns_of(
            task, text, premise, hypothesis, choice, label, is_score=score_range is not None
        )
    )
    if multi_label:
        columns = with_separator(columns, label_separator)
    settings = FinetuneSettings(
        kind=task,
        score_range=score_range,
        multi_label=multi_label,
        class_weights=class_weights,
        dimensions=dimensions,
        temperature=temperature,
        epochs=epochs,
        learning_rate=lr,
        batch=batch,
        lm_weight=lm_weight,
        dropout=dropout,
        clf_dropout=clf_dropout,
        token_noise=token_noise,
        weight_decay=weight_decay,
        warmup=warmup,
        patience=patience,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        from_scratch=from_scratch,
        seed=seed,
        precision=precision,
        batch_tokens=batch_tokens,
        threads=threads,
    )
    files = FinetuneData(
        train=data,
        dev=dev,
        test=test,
        hold_out=hold_out,
        columns=columns,
        format=format,
        skip_bad_rows=skip_bad_rows,
        forgetting_text=forgetting_text,
        separator=separator,
    )
    result = run(
        checkpoint,
        out,
        files,
        settings,
        tokenizer=tokenizer,
        config=config,
        adapter=adapter,
        resume=resume,
        plot=plot,
    )
    if as_json:
        console.say_json(result.to_dict())
    else:
        console.say(describe(result))


def describe(result: FinetuneResult) -> str:
    """Return the result in a few lines."""
    lines = [
        f"{result.checkpoint}: {result.spec.kind}, {_outputs(result.spec)}, "
        f"{result.steps:,} steps in {result.seconds:,.0f} s, "
        f"best epoch {result.best_epoch} of {result.epochs}"
    ]
    for name, counts in result.data.items():
        if name != "balance":
            sizes = f"{counts['n_examples']:,} examples, {counts['n_tokens']:,} tokens"
            lines.append(f"{name:<6} {sizes}, {_truncated(counts)}")
    if balance := result.data.get("balance"):
        lines.append(_balance(balance))
    for name, scores in result.sets.items():
        for metric, estimate in scores.metrics.items():
            lines.append(
                f"{name:<6} {metric.replace('_', ' ')} {estimate.value:.4f}, 95 % interval "
                f"{estimate.low:.4f} to {estimate.high:.4f} ({estimate.interval})"
            )
        if scores.calibration is not None:
            error = f"calibration error {scores.calibration.ece_after:.4f}, not calibrated"
            is_calibrated = result.spec.temperature is not None
            shown = calibration_line(scores.calibration) if is_calibrated else error
            lines.append(f"{name:<6} {shown}")
    if result.forgetting:
        values = result.to_dict()["forgetting"]
        lines.append(
            f"text   perplexity {values['perplexity_before']:.2f} before, "
            f"{values['perplexity_after']:.2f} after"
        )
    return "\n".join(lines)


def _outputs(task: TaskSpec) -> str:
    if task.score_range:
        return f"scores {task.score_range[0]:g} to {task.score_range[1]:g}"
    if task.dimensions is not None:
        return f"vectors of {task.dimensions} numbers"
    if task.is_multi_label:
        return f"any of {len(task.labels)} labels"
    return f"{len(task.labels)} classes" if task.labels else "one score per answer"


def _balance(counts: Mapping[str, int]) -> str:
    """counts: of each label, the most frequent one first."""
    total = sum(counts.values())
    largest = max(counts.values())
    smallest = min(counts.values())
    return (
        f"labels {len(counts)} in train, {smallest:,} to {largest:,} examples each; "
        f"the most frequent, {next(iter(counts))!r}, has {largest / total:.1%}"
    )


def _truncated(counts: Mapping[str, int]) -> str:
    if not counts["n_truncated_examples"]:
        return "none truncated"
    return (
        f"{counts['n_truncated_examples']:,} truncated to the context, "
        f"{counts['n_truncated_tokens']:,} tokens lost"
    )
