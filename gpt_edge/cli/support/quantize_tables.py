"""The outcome of a search for a budget as text: what each tensor got, and every assignment that was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.cli.support.console import visible
from gpt_edge.cli.support.tables import columns, size

POINT_HEADINGS = (
    "assignment",
    "weights",
    "predicted KL",
    "mean KL",
    "perplexity",
    "same token",
    "",
)


def outcome_tables(outcome: Mapping[str, Any]) -> str:
    """outcome: `Outcome.to_dict()`, also from a manifest."""
    tables = [points_table(outcome)]
    if any("kl" in values for values in outcome.get("tensors", {}).values()):
        tables.insert(0, tensors_table(outcome["tensors"]))
    return "\n\n".join(tables)


def tensors_table(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each layer, one column for each of its weights: the format, and the KL of that
    change alone.
    """
    parts: list[str] = []
    for name in tensors:
        if name.startswith("h.") and (part := _part(name)) not in parts:
            parts.append(part)
    rows: list[tuple[str, ...]] = [("", *parts)]
    layers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("h.")})
    for layer in layers:
        rows.append(
            (f"h.{layer}", *(_cell(tensors.get(f"h.{layer}.{part}.weight")) for part in parts))
        )
    others = [
        (visible(name), _cell(values))
        for name, values in tensors.items()
        if not name.startswith("h.")
    ]
    return "\n".join([columns(others), "", columns(rows)] if layers else [columns(others)])


def points_table(outcome: Mapping[str, Any]) -> str:
    """One line for each measured assignment, in the order of measuring; the chosen one is
    marked.
    """
    rows: list[tuple[str, ...]] = [POINT_HEADINGS]
    for point in outcome.get("points", ()):
        is_best = point["label"] == outcome.get("best")
        verdict = "within the budget" if point["ok"] else "too much loss"
        rows.append(
            (
                visible(str(point["label"])),
                size(point["n_bytes"]),
                _short(point["predicted_kl"]),
                _with_error(point["mean_kl"], point["kl_error"]),
                _percent(point["ppl_increase"], sign=True),
                _percent(point["top1"]),
                f"{verdict}, chosen" if is_best and point["ok"] else verdict,
            )
        )
    return columns(rows)


def _part(name: str) -> str:
    return name.split(".", 2)[2].removesuffix(".weight")


def _cell(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    label = values["format"]
    return f"{label} {_short(values.get('kl', {}).get(label))}".rstrip(" -")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _with_error(value: float | None, error: float | None) -> str:
    return "-" if value is None else f"{value:.2e} ± {_short(error)}"


def _percent(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.3%}" if sign else f"{value:.2%}"
