"""Calibrate a classifier's bundle with labelled examples that it was not trained on: the
temperature goes into its manifest, the weights stay. `temperature.py` has the method.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import DoubleArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.writer import with_manifest
from gpt_edge.errors import BundleError
from gpt_edge.evaluate.temperature import CalibrationFigures, calibrated, calibration_figures
from gpt_edge.runtime.encoder import BATCH, Encoder
from gpt_edge.task_inputs import encode_texts
from gpt_edge.tasks import TaskSpec

CALIBRATION = "calibration"  # in the manifest's quality, and in a checkpoint's training


def calibrate(
    path_or_name: str | os.PathLike[str],
    examples: Sequence[Sequence[str]],
    labels: Sequence[Any],
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    threads: int | None = None,
) -> tuple[Bundle, CalibrationFigures]:
    """Find the temperature of a classifier's bundle and write it into the manifest.

    examples: the texts of each; a text that is too long loses its end, as in fine-tuning. labels:
    of each its class by name or number, of multiple choice the number of the right answer, of
    several labels the list of those that are true. out: a
    new bundle with it, force: also where one is; None replaces the bundle, in one step. Examples
    that the model learned from make it too sure. Raises BundleError, OutputError; ValueError for
    what is no example or label, with its number.
    """
    bundle = Bundle.open(path_or_name)
    if out is None and not os.path.lexists(path_or_name):
        raise BundleError(
            f"{path_or_name} is a built-in model, which stays as it is",
            hint="write a calibrated copy: out=",
            cli_hint="write a calibrated copy: --out DIR",
        )
    task = checked_task(bundle)
    logits = example_logits(bundle, examples, threads=threads)
    numbers = _checked_labels(task, labels, logits)
    task = calibrated(task, logits, numbers)
    figures = calibration_figures(task, logits, numbers)
    quality = {**bundle.manifest.quality, CALIBRATION: figures.to_dict()}
    manifest = dataclasses.replace(bundle.manifest, task=task, quality=quality)
    target = None if out is None else Path(out)
    return with_manifest(bundle, manifest, target, force=force), figures


def measure_calibration(
    bundle: Bundle,
    examples: Sequence[Sequence[str]],
    labels: Sequence[Any],
    *,
    threads: int | None = None,
) -> CalibrationFigures:
    """What a bundle's temperature changes on other examples. Raises as `calibrate`."""
    task = checked_task(bundle)
    logits = example_logits(bundle, examples, threads=threads)
    return calibration_figures(task, logits, _checked_labels(task, labels, logits))


def checked_task(bundle: Bundle) -> TaskSpec:
    """The task of a bundle that can be calibrated. Raises BundleError for another."""
    task = bundle.task
    if task is None:
        raise BundleError(
            f"{bundle.path} is a language model, not a classifier",
            hint="calibrate a bundle of a fine-tuned model",
        )
    if not task.has_probabilities:
        raise BundleError(
            f"{bundle.path} answers {task.described}, which has no probabilities of texts"
        )
    if bundle.is_optimum_export:
        raise BundleError(
            f"{bundle.path} has no manifest to write the temperature into",
            hint="make a bundle of its checkpoint: gpt-edge export",
        )
    return task


def example_logits(
    bundle: Bundle, examples: Sequence[Sequence[str]], *, threads: int | None = None
) -> DoubleArray:
    """Logits float64 [N, K] of examples, of multiple choice filled up with -inf. Raises ValueError
    for what is no example, with its number.
    """
    task = checked_task(bundle)
    tokenizer = bundle.load_tokenizer()
    sequences: list[tuple[int, ...]] = []
    counts = []
    for number, texts in enumerate(examples):
        parts = (texts,) if isinstance(texts, str) else texts
        try:
            encoded = encode_texts(task, tokenizer.encode, parts, bundle.config.n_ctx)
        except ValueError as error:
            raise ValueError(f"example {number}: {error}") from error
        sequences += encoded.sequences
        counts.append(len(parts) - 1)
    with Encoder(bundle, threads=threads) as encoder:
        logits = encoder.logits(sequences, batch=BATCH).astype(np.float64)
    return by_answers(logits[:, 0], counts) if task.kind == "multiple-choice" else logits


def by_answers(scores: DoubleArray, counts: Sequence[int]) -> DoubleArray:
    """Scores [S] of answers as [N, K], one example a row, filled up with -inf. counts: answers of
    each example.
    """
    rows = np.full((len(counts), max(counts, default=0)), -np.inf)
    rows[np.arange(rows.shape[1]) < np.array(counts)[:, None]] = scores
    return rows


def _checked_labels(task: TaskSpec, labels: Sequence[Any], logits: DoubleArray) -> IntArray:
    """The number of each example's right class or answer, int64 [N]; of several labels [N, K], 0 or
    1. Raises ValueError with its number.
    """
    number = {label: i for i, label in enumerate(task.labels)}
    if len(labels) != len(logits):
        raise ValueError(f"{len(labels)} labels for {len(logits)} examples")
    if task.is_multi_label:
        return np.array([_checked_set(task, i, given) for i, given in enumerate(labels)])
    found = []
    for i, label in enumerate(labels):
        value = number.get(label) if isinstance(label, str) else label
        if value is None or not 0 <= value < logits.shape[1] or not np.isfinite(logits[i, value]):
            raise ValueError(f"example {i}: {label!r:.80} is not a label of the model")
        found.append(int(value))
    return np.array(found, np.int64)


def _checked_set(task: TaskSpec, i: int, names: Sequence[str]) -> list[int]:
    if isinstance(names, str) or not set(names) <= set(task.labels):
        raise ValueError(f"example {i}: {names!r:.80} is not a list of the model's labels")
    return [int(label in names) for label in task.labels]
