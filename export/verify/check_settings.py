"""Is what a bundle's manifest says beside the graph what the checkpoint says: tokenizer, labels,
how to generate, chat template?
"""

from __future__ import annotations

from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import TokenizerError
from gpt_edge.export.verify.check_tokenizer import compare_tokenizers
from gpt_edge.export.weights.chat_template import read_chat_template
from gpt_edge.export.weights.generation_config import read_generation_defaults
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer import TokenizerSource
from gpt_edge.verify.report import Verification

SECTION = "checkpoint"  # of the figures


def check_settings(
    report: Verification, bundle: Bundle, checkpoint: Checkpoint, source: TokenizerSource | None
) -> None:
    """Record what differs. source: the checkpoint's tokenizer, or the one that the caller names
    instead; None where there is none.
    """
    _check_tokenizer(report, bundle, source)
    if bundle.task is not None and checkpoint.task is not None:
        faults = label_faults(bundle.task, checkpoint.task)
        report.add_settings(SECTION, "labels", len(bundle.task.labels), faults)
        return
    end_token = source.spec.end_token if source is not None else None
    faults = _default_faults(bundle, checkpoint, end_token)
    report.add_settings(SECTION, "generation defaults", None, faults)
    report.add_settings(SECTION, "chat template", None, _template_faults(bundle, checkpoint))


def _check_tokenizer(report: Verification, bundle: Bundle, source: TokenizerSource | None) -> None:
    has_tokenizer = bundle.manifest.tokenizer is not None
    if source is None and has_tokenizer:
        report.notes.append(
            "the checkpoint has no tokenizer, so the bundle's was compared with none; "
            "--tokenizer FILE names the one that it was exported with"
        )
    elif source is not None and not has_tokenizer:
        report.notes.append(
            "the bundle has no tokenizer and takes ids only, the checkpoint has one"
        )
    elif source is not None:
        try:
            faults = compare_tokenizers(bundle, source)
        except TokenizerError as error:
            faults = [error.message]
        n_tokens = bundle.manifest.tokenizer["vocab_size"] if bundle.manifest.tokenizer else None
        report.add_settings(SECTION, "tokenizer", n_tokens, faults)


def label_faults(ours: TaskSpec, theirs: TaskSpec) -> list[str]:
    """What differs between two tasks of one kind; a bundle may be calibrated later."""
    faults = []
    if ours.labels != theirs.labels:
        faults.append(_label_fault(ours.labels, theirs.labels))
    expected = theirs.uncalibrated.to_dict()
    for name, value in ours.uncalibrated.to_dict().items():
        if name != "labels" and value != expected.get(name):
            faults.append(f"its {name} is {value}, the checkpoint's is {expected.get(name)}")
    return faults


def _label_fault(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    pairs = enumerate(zip(ours, theirs, strict=False))
    both = min(len(ours), len(theirs))
    first = next((i for i, (a, b) in pairs if a != b), both)
    shown = [
        f"{labels[first]!r:.60}" if first < len(labels) else "none" for labels in (ours, theirs)
    ]
    how = "renamed"
    if ours == theirs[::-1]:
        how = "reversed"
    elif sorted(ours) == sorted(theirs):
        how = "in another order"
    return f"the labels are {how}: label {first} is {shown[0]}, the checkpoint's is {shown[1]}"


def _default_faults(bundle: Bundle, checkpoint: Checkpoint, end_token: int | None) -> list[str]:
    expected = read_generation_defaults(checkpoint, end_token)
    actual = bundle.manifest.generation_defaults
    ours: dict[str, Any] = actual.to_dict() if actual is not None else {}
    theirs: dict[str, Any] = expected.to_dict() if expected is not None else {}
    return [
        f"{name} is {ours.get(name)}, the checkpoint's is {theirs.get(name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def _template_faults(bundle: Bundle, checkpoint: Checkpoint) -> list[str]:
    """A bundle of ids has no template, whatever the checkpoint has."""
    ours = bundle.read_chat_template()
    theirs = read_chat_template(checkpoint) if bundle.manifest.tokenizer is not None else None
    if ours == theirs:
        return []
    if ours is None or theirs is None:
        return [f"the {'bundle' if ours is None else 'checkpoint'} has none"]
    lines = zip(ours.splitlines(), theirs.splitlines(), strict=False)
    pairs = enumerate(lines, 1)
    first = next((f"line {i}: {a!r:.60} against {b!r:.60}" for i, (a, b) in pairs if a != b), "end")
    return [f"it differs from the checkpoint's at its {first}"]
