"""Figures as text: sizes with their unit, columns that line up, the table of a verification, a
bundle in one object.

Figures from a manifest are somebody else's: what is not a number is shown as it is, or as `-`, and
nothing fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt_edge.cli.support.console import visible

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle

LIMIT_NAMES = {"max_difference": "max", "mean_kl": "KL"}
HEADINGS = ("", "rows", "max |Δlogit|", "mean KL", "same token", "allowed", "")
PLACE_SECTIONS = ("weights", "operators")  # of a verification that went through the graph
PLACE_HEADINGS = ("operator", "places", "weights", "result", "")


def size(n_bytes: int) -> str:
    """Bytes with the unit that a disk's label would use: 7.9 MB is 7,900,000."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value, units = n_bytes / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first column to the left and the others to the right; no spaces at the
    ends of lines.
    """
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def parity_table(figures: Mapping[str, Any]) -> str:
    """One line for each comparison, under its section's name; then one for each operator, where
    they were compared.

    figures: of a Verification or a manifest, by section and name. Differences are of logits, KL in
    nats.
    """
    is_task = any(
        str(name).startswith("labels") for found in figures.values() for name in _mapping(found)
    )
    rows: list[tuple[str, ...]] = [
        tuple(name.replace("token", "label") if is_task else name for name in HEADINGS)
    ]
    for section, comparisons in figures.items():
        if not isinstance(comparisons, Mapping) or section in PLACE_SECTIONS:
            continue
        rows.append((visible(str(section)), *[""] * (len(HEADINGS) - 1)))
        for name, values in comparisons.items():
            if isinstance(values, Mapping):
                rows.append((f"  {visible(str(name))}", *_cells(values)))
    return "\n".join([columns(rows), *_flips(figures), *_places(figures)])


def _places(figures: Mapping[str, Any]) -> list[str]:
    """Operators by the largest difference from the reference's, as a share of what rounding
    explains.
    """
    weights, operators = (_mapping(figures.get(section)) for section in PLACE_SECTIONS)
    rows: list[tuple[str, ...]] = [PLACE_HEADINGS]
    for name in operators or weights:
        pair = [_mapping(found.get(name)) for found in (weights, operators)]
        wrong = [values for values in pair if values.get("ok", True) is not True]
        places = [values["places"] for values in pair if _is_number(values.get("places"))]
        verdict = visible(f"WRONG, worst at {wrong[0].get('worst')}") if wrong else ""
        shares = [_share(values.get("share")) for values in pair]
        rows.append(
            (f"  {visible(str(name))}", _whole(max(places, default=None)), *shares, verdict)
        )
    if len(rows) == 1:
        return []
    return [
        "operators against the reference, by the share of the difference that rounding explains",
        columns(rows),
    ]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _share(value: object) -> str:
    return f"{value:.0%}" if _is_number(value) else "-"


def _flips(figures: Mapping[str, Any]) -> list[str]:
    """One line for each flip on a path: near ties, or there is a fault. Against a reference, the
    share says enough.
    """
    lines = []
    for section, comparisons in figures.items():
        if not str(section).endswith(" paths") or not isinstance(comparisons, Mapping):
            continue
        for name, values in comparisons.items():
            for flip in values.get("flips", ()) if isinstance(values, Mapping) else ():
                if isinstance(flip, Mapping):
                    place = f"{section}, {name}: row {flip.get('row')} of {flip.get('probe')}"
                    gap, noise = _short(flip.get("gap")), _short(values.get("noise"))
                    lines.append(
                        visible(f"flip in {place}, gap {gap}, noise of the other rows {noise}")
                    )
    return lines


def _cells(values: Mapping[str, Any]) -> tuple[str, ...]:
    verdict = "" if values.get("ok", True) is True else "WRONG"
    if "equal_tokens" in values:
        tokens = f"{_whole(values['equal_tokens'])} of {_whole(values.get('tokens'))}"
        return ("", "", "", tokens, "", verdict)
    limits = values.get("limits")
    allowed = [
        f"{LIMIT_NAMES.get(name, visible(str(name)))} {_short(limit)}"
        for name, limit in (limits.items() if isinstance(limits, Mapping) else ())
    ]
    top1 = values.get("top1")
    return (
        _whole(values.get("rows")),
        _short(values.get("max_difference")),
        _short(values.get("mean_kl")),
        f"{top1:.1%}" if _is_number(top1) else "-",
        ", ".join(allowed),
        verdict,
    )


def describe(bundle: Bundle) -> dict[str, Any]:
    """A bundle's place, kind and sizes, as JSON values."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "name": manifest.name,
        "graph": manifest.graph,
        "scheme": manifest.scheme,
        **({"task": manifest.task.to_dict()} if manifest.task else {}),
        "n_parameters": bundle.config.n_parameters,
        "n_bytes": bundle.n_bytes,
        "files": {name: record["size"] for name, record in manifest.files.items()},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    return f"{value:.2g}" if _is_number(value) else "-"


def _whole(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"
