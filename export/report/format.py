"""Figures of a report as text and colour. Those of a manifest are somebody else's: what is no
number is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

HEAT_TOP = 1.0  # nats: of the fullest colour, for a text


def size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def short(value: object) -> str:
    return f"{value:.2g}" if is_number(value) else "–"


def percent(value: object) -> str:
    return f"{100 * value:.2f} %" if is_number(value) else "–"  # type: ignore[operator]


def shown(value: object) -> str:
    """Anything that JSON can hold, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    return "–" if value is None else str(value)


def heat(kl: float, floor: float, top: float = HEAT_TOP) -> str:
    """A background that says how large a KL is, from floor to top on a logarithmic scale."""
    if not (math.isfinite(kl) and floor > 0):
        share = 0.0 if math.isfinite(kl) else 1.0
    else:
        share = min(1.0, max(0.0, math.log(max(kl, floor) / floor) / math.log(top / floor)))
    return f"background: rgba(var(--heat), {0.08 + 0.62 * share:.2f})"
