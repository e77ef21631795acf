"""Figures as text: sizes with their unit, aligned columns, the table of a verification, a bundle as
one object.

Figures from a manifest are untrusted: a value that is not a number is shown as `-` or escaped, and
nothing fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt_edge.cli.support.console import visible

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.evaluate.temperature import CalibrationFigures

LIMIT_NAMES = {"max_difference": "max", "mean_kl": "KL"}
HEADINGS = ("", "rows", "max |Δlogit|", "mean KL", "same token", "allowed", "")
OPERATOR_SECTIONS = ("weights", "operators")  # of a verification operator by operator
OPERATOR_HEADINGS = ("operator", "count", "weights", "result", "")


def size(n_bytes: int) -> str:
    """Return bytes with a decimal unit, as on the label of a disk: 7.9 MB is 7,900,000."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value = n_bytes / 1000
    units = ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return lines of cells, the first column aligned left and the others right, without trailing
    spaces.
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
    """Return one line for each comparison, under the name of its section; then one for each
    operator, if operators were compared.

    figures: of a Verification or a manifest, by section and name. Differences are of logits, KL
    divergences in nats.
    """
    names = [str(name) for comparisons in figures.values() for name in _mapping(comparisons)]
    is_task = any(name.startswith("labels") for name in names)
    unit = "label" if is_task else "token"
    rows = [tuple(heading.replace("token", unit) for heading in HEADINGS)]
    for section, comparisons in figures.items():
        if not isinstance(comparisons, Mapping) or section in OPERATOR_SECTIONS:
            continue
        rows.append((visible(str(section)), *[""] * (len(HEADINGS) - 1)))
        for name, values in comparisons.items():
            if isinstance(values, Mapping):
                rows.append((f"  {visible(str(name))}", *_cells(values)))
    return "\n".join([columns(rows), *_flips(figures), *_operators(figures)])


def _operators(figures: Mapping[str, Any]) -> list[str]:
    """Operators by the largest difference from the reference's, as a fraction of what rounding
    explains.
    """
    weights, operators = (_mapping(figures.get(section)) for section in OPERATOR_SECTIONS)
    rows = [OPERATOR_HEADINGS]
    for name in operators or weights:
        pair = [_mapping(section.get(name)) for section in (weights, operators)]
        wrong = [values for values in pair if values.get("ok", True) is not True]
        counts = [values["places"] for values in pair if _is_number(values.get("places"))]
        verdict = visible(f"WRONG, worst at {wrong[0].get('worst')}") if wrong else ""
        in_weights, in_result = (_percent(values.get("share")) for values in pair)
        label = f"  {visible(str(name))}"
        rows.append((label, _whole(max(counts, default=None)), in_weights, in_result, verdict))
    if len(rows) == 1:
        return []
    title = "operators against the reference: difference as a fraction of what rounding explains"
    return [title, columns(rows)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _percent(value: object) -> str:
    return f"{value:.0%}" if _is_number(value) else "-"


def _flips(figures: Mapping[str, Any]) -> list[str]:
    """One line for each token flip between execution paths: a near tie, or a fault. Against a
    reference, the percentage of equal tokens is enough.
    """
    lines = []
    for section, comparisons in figures.items():
        if not str(section).endswith(" paths") or not isinstance(comparisons, Mapping):
            continue
        for name, values in comparisons.items():
            for flip in _mapping(values).get("flips", ()):
                if isinstance(flip, Mapping):
                    row = f"{section}, {name}: row {flip.get('row')} of {flip.get('probe')}"
                    margin, noise = _short(flip.get("gap")), _short(values.get("noise"))
                    line = f"token flip in {row}, logit margin {margin}, noise floor {noise}"
                    lines.append(visible(line))
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
    """Return the path, kind and sizes of a bundle as JSON values."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "name": manifest.name,
        "kind": manifest.kind,
        **({"base": dict(manifest.base)} if manifest.base else {}),
        "graph": manifest.graph,
        "scheme": manifest.scheme,
        **({"task": manifest.task.to_dict()} if manifest.task else {}),
        "n_parameters": bundle.config.n_parameters,
        "n_bytes": bundle.n_bytes,
        "files": {name: record["size"] for name, record in manifest.files.items()},
    }


def calibration_line(figures: CalibrationFigures) -> str:
    """Return what a temperature changes, in one line."""
    return (
        f"temperature {figures.temperature:.4g}: calibration error {figures.ece_before:.4f} "
        f"before, {figures.ece_after:.4f} after; log loss {figures.log_loss_before:.4f} before, "
        f"{figures.log_loss_after:.4f} after"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    return f"{value:.2g}" if _is_number(value) else "-"


def _whole(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"
