"""Figures of a report as text and colour. Those of a manifest are untrusted: a value that is not a
number is shown unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

HEAT_TOP = 1.0  # nats: the darkest colour of a token


def size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def short(value: object) -> str:
    return f"{value:.2g}" if is_number(value) else "–"


def percent(value: object) -> str:
    return f"{100 * value:.2f} %" if is_number(value) else "–"  # type: ignore[operator]


def shown(value: object) -> str:
    """Any JSON value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    return "–" if value is None else str(value)


def heat(kl: float, floor: float, top: float = HEAT_TOP) -> str:
    """A background whose strength shows a KL, from floor to top on a logarithmic scale."""
    if not (math.isfinite(kl) and floor > 0):
        fraction = 0.0 if math.isfinite(kl) else 1.0
    else:
        fraction = min(1.0, max(0.0, math.log(max(kl, floor) / floor) / math.log(top / floor)))
    return f"background: rgba(var(--heat), {0.08 + 0.62 * fraction:.2f})"
