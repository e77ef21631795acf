"""The plots of a report as inline SVG: sharp at any size, light or dark with the page, without a
library.

They are 400 units wide, so that on a phone their text is as large as the page's. Colours are the
page's classes s0, s1, ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpt_edge.export.report.html import Html, tag

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # room for the labels
LEAST = 1e-12  # of a logarithmic axis
N_COLOURS = 6
DOT, CHARACTER = 6, 6.3  # radius of the largest point; width of a letter, about
_Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its name. style: 0 to 5, the colour."""

    label: str
    x: float
    y: float
    style: int = 0
    is_main: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Values over the positions 0, 1, ...; None for a missing value."""

    label: str
    values: tuple[float | None, ...]
    style: int = 0


def scatter(marks: Sequence[Mark], title: str, x_label: str, y_label: str) -> Html:
    """Points on a linear x axis from 0 and a logarithmic y axis."""
    y = _LogAxis([mark.y for mark in marks])
    top = _round_up(max(mark.x for mark in marks) * 1.15)
    x_at = _Linear(0.0, top)
    parts = [
        *y.grid(),
        *(_x_tick(x_at(value), f"{value:g}") for value in (0, top / 4, top / 2, top * 3 / 4, top)),
    ]
    centres = [(x_at(mark.x), y(mark.y)) for mark in marks]
    taken = [(x - DOT, height - DOT, x + DOT, height + DOT) for x, height in centres]
    for mark, (x, height) in zip(marks, centres, strict=True):
        parts.append(
            tag(
                "circle",
                cx=_n(x),
                cy=_n(height),
                r=DOT if mark.is_main else 4,
                class_=f"dot s{mark.style}",
            )
        )
    for mark, (x, height) in zip(marks, centres, strict=True):
        left, baseline = _free_position(x, height, len(mark.label) * CHARACTER, taken)
        parts.append(
            tag(
                "text",
                mark.label,
                x=_n(left),
                y=_n(baseline),
                class_="strong" if mark.is_main else None,
            )
        )
    return _frame(parts, title, x_label, y_label)


def lines(
    series: Sequence[Line], names: Sequence[str], title: str, x_label: str, y_label: str
) -> Html:
    """One line for each series over named positions, logarithmic y axis; values of 0 and below are
    left out.
    """
    y = _LogAxis(
        [value for line in series for value in line.values if value is not None and value > 0]
    )
    x_at = _Linear(0.0, max(1.0, len(names) - 1))
    step = max(1, math.ceil(len(names) / 8))
    parts = [*y.grid(), *(_x_tick(x_at(i), name) for i, name in enumerate(names) if i % step == 0)]
    for line in series:
        points = [(x_at(i), y(v)) for i, v in enumerate(line.values) if v is not None and v > 0]
        path = " ".join(f"{_n(x)},{_n(height)}" for x, height in points)
        parts.append(tag("polyline", points=path, class_=f"line s{line.style}"))
        parts += [
            tag("circle", cx=_n(x), cy=_n(height), r=2.5, class_=f"dot s{line.style}")
            for x, height in points
        ]
    return _frame(parts, title, x_label, y_label)


def legend(names: Sequence[tuple[str, int]]) -> Html:
    """Names with the colours of their lines."""
    return tag(
        "p",
        *(tag("span", tag("i", class_=f"key s{style}"), name) for name, style in names),
        class_="legend",
    )


def _free_position(x: float, y: float, width: float, taken: list[_Box]) -> tuple[float, float]:
    """Left end and baseline of a label beside a point, where it covers no other; adds its box to
    `taken`.
    """
    right = x + DOT + 3
    left = x - DOT - 3 - width
    middle = min(max(x - width / 2, LEFT), WIDTH - RIGHT - width)
    candidates = [
        (right, y + 4),
        (left, y + 4),
        (middle, y - 10),
        (middle, y + 18),
        (left, y - 10),
        (right, y + 18),
    ]
    candidates += [(middle, y - 10 - 13 * step) for step in range(1, 8)]
    fitting = [
        (start, baseline)
        for start, baseline in candidates
        if start >= LEFT and start + width <= WIDTH and baseline > TOP
    ]
    boxes = [(start, baseline - 10, start + width, baseline + 3) for start, baseline in fitting]
    free = next(
        (i for i, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)), 0
    )
    if not fitting:
        return LEFT, y
    taken.append(boxes[free])
    return fitting[free]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class _Linear:
    """From a value to a horizontal coordinate."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._span = low, (high - low) or 1.0

    def __call__(self, value: float) -> float:
        return LEFT + (value - self._low) / self._span * (WIDTH - LEFT - RIGHT)


class _LogAxis:
    """From a value to a vertical coordinate, whole decades at both ends."""

    def __init__(self, values: Sequence[float]) -> None:
        logs = [math.log10(max(value, LEAST)) for value in values if math.isfinite(value)] or [0.0]
        self._low, self._high = math.floor(min(logs)), math.ceil(max(logs))
        if self._low == self._high:
            self._high += 1

    def __call__(self, value: float) -> float:
        finite = value if math.isfinite(value) else 10.0**self._high
        fraction = (math.log10(max(finite, LEAST)) - self._low) / (self._high - self._low)
        return HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM)

    def grid(self) -> list[Html]:
        """A line and a number for each decade; about six of them if there are many."""
        step = max(1, math.ceil((self._high - self._low) / 6))
        parts = []
        for power in range(self._low, self._high + 1, step):
            height = self(10.0**power)
            parts.append(
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_n(height), y2=_n(height), class_="grid")
            )
            value = 10.0**power
            label = f"{value:g}" if -3 < power < 4 else short_power(value, 0)
            parts.append(tag("text", label, x=LEFT - 5, y=_n(height + 4), text_anchor="end"))
        return parts


def _x_tick(x: float, name: str) -> Html:
    return tag("text", name, x=_n(x), y=HEIGHT - BOTTOM + 15, text_anchor="middle")


def _frame(parts: Sequence[Html], title: str, x_label: str, y_label: str) -> Html:
    axes = [
        tag(
            "line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"
        ),
        tag(
            "text",
            x_label,
            x=(LEFT + WIDTH - RIGHT) // 2,
            y=HEIGHT - 6,
            text_anchor="middle",
            class_="name",
        ),
    ]
    drawing = tag(
        "svg", tag("title", title), *parts, *axes, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img"
    )
    return tag("figure", tag("figcaption", f"{title} ({y_label})"), drawing)


def short_power(value: float, digits: int) -> str:
    """2.8e-4 where Python writes 2.8e-04."""
    mantissa, _, power = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten: quarters of it are short numbers."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 4, 8, 12) if step * unit >= value)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
