"""The result of a search within a budget as text: the format of each tensor, and every assignment
that was measured.
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
    """Return both tables. outcome: `Outcome.to_dict()`, also from a manifest."""
    tables = [points_table(outcome)]
    if any("kl" in values for values in outcome.get("tensors", {}).values()):
        tables.insert(0, tensors_table(outcome["tensors"]))
    return "\n\n".join(tables)


def tensors_table(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each layer, one column for each of its weights: the format, and the KL
    divergence from quantizing that weight alone.
    """
    in_layers = [name.split(".", 2) for name in tensors if name.startswith("h.")]
    layers = sorted({int(layer) for _, layer, _ in in_layers})
    weights = list(dict.fromkeys(weight.removesuffix(".weight") for _, _, weight in in_layers))
    rows: list[tuple[str, ...]] = [("", *weights)]
    for layer in layers:
        cells = [_cell(tensors.get(f"h.{layer}.{weight}.weight")) for weight in weights]
        rows.append((f"h.{layer}", *cells))
    others = [
        (visible(name), _cell(values))
        for name, values in tensors.items()
        if not name.startswith("h.")
    ]
    return "\n".join([columns(others), "", columns(rows)] if layers else [columns(others)])


def points_table(outcome: Mapping[str, Any]) -> str:
    """One line for each measured assignment, in the order of measurement; the chosen one is
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
