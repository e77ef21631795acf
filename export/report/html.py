"""HTML by construction: everything that is not Html is escaped on insertion, so no text is markup.

A model can generate `<script>`, and a manifest may hold any text: both are shown without effect.
Knows nothing of reports.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

VOID = {"meta", "br", "hr"}
# C0 but \n and \t, DEL, C1, halves of surrogate pairs, and what turns the direction of the text
# around it
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class Html(str):
    """Text that is HTML already and is not escaped."""

    __slots__ = ()


Content = str | int | float | None


def text(value: Content) -> Html:
    """A value as HTML: escaped unless it is Html, control characters as `\\x1b`; "" for None."""
    if isinstance(value, Html):
        return value
    plain = ACTING.sub(_escape, "" if value is None else str(value))
    return Html(html.escape(plain, quote=True))


def tag(name: str, /, *children: Content, **attributes: Content) -> Html:
    """`<name attributes>children</name>`. `class_` is class, other underscores are hyphens; None
    leaves one out.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(children)}</{name}>")


def join(children: Iterable[Content]) -> Html:
    """Concatenate."""
    return Html("".join(map(text, children)))


def table(
    headings: Sequence[Content], rows: Iterable[Sequence[Content]], class_: str | None = None
) -> Html:
    """A table that scrolls on its own on a narrow screen. Every row has as many cells as there are
    headings.
    """
    head = tag("thead", tag("tr", *(tag("th", heading, scope="col") for heading in headings)))
    body = tag(
        "tbody",
        *(tag("tr", tag("th", row[0], scope="row"), *(map(_cell, row[1:]))) for row in rows),
    )
    return tag("div", tag("table", head, body, class_=class_), class_="scroll")


def _cell(value: Content) -> Html:
    return value if isinstance(value, Html) and value.startswith("<td") else tag("td", value)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
