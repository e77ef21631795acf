"""`diff`: where do two models part, by how much, and in which tokens of a text?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.open_model import MODEL_HELP, OpenModel, open_model
from gpt_edge.cli.support.options import JsonOption, complete_bundle
from gpt_edge.cli.support.tables import columns
from gpt_edge.errors import MissingDependencyError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from gpt_edge.export.verify.divergence import Parting
    from gpt_edge.tokenizer import Tokenizer
    from gpt_edge.verify.token_diff import Difference

# nats
LEVELS = (
    (1.0, "bold white on red", "{{{", "}}}"),
    (0.1, "bold red", "{{", "}}"),
    (0.01, "yellow", "{", "}"),
)
MAX_FLIPS, MAX_TEXT = 8, 1 << 20  # lines; bytes of a text, of which the context holds a part


def diff(
    first: Annotated[
        str, typer.Argument(metavar="A", help=MODEL_HELP, autocompletion=complete_bundle)
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="Model to compare with A, given in the same way.",
            autocompletion=complete_bundle,
        ),
    ],
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|STRING",
            help="Text to run both models on: a file, or the text itself; by default a built-in "
            "passage.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models operator by operator and token by token.

    Shows where the models diverge first, and by how much. Each token of the text is marked by the
    KL divergence of the two predictions, in nats: with colours on a terminal; with braces
    elsewhere, or if NO_COLOR is set.
    """
    from gpt_edge.evaluate import check_same_tokens
    from gpt_edge.verify.token_diff import check_same_vocabulary, compare_models, probe_ids

    with console.progress("loading the models") as progress:
        a, b = open_model(first), open_model(second)
        names = str(a.path), str(b.path)
        check_same_vocabulary(a.config, b.config, names)
        if a.tokenizer and b.tokenizer:
            check_same_tokens(a.tokenizer, b.tokenizer, names)
        words = a.tokenizer or b.tokenizer
        ids = probe_ids(_read(text), words, a.config, min(a.config.n_ctx, b.config.n_ctx))
        progress("comparing the logits")
        found = compare_models(a.scorer(name=names[0]), b.scorer(name=names[1]), ids)
        progress("comparing the operators")
        places, note, fault = _places(a, b, ids, progress)
    if as_json:
        console.say_json(_as_json(a, b, found, places, note, fault, words))
        return
    console.say(_summary(a, b, found))
    console.say("\n" + _place_table(places, note, fault))
    if words is not None:
        console.say(f"\n{_legend()}")
        _say_tokens(found, words)
    if found.flips:
        console.say("\n" + _flip_table(found, words))


def _read(text: str | None) -> str | None:
    """The text of a file of that name, else the string itself."""
    if text is None:
        return None
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        is_file = False
    if not is_file:
        return text
    with Path(text).open("rb") as file:
        return file.read(MAX_TEXT).decode("utf-8", "replace")


def _places(
    a: OpenModel, b: OpenModel, ids: Any, progress: Callable[[str], None]
) -> tuple[list[Parting], str, str | None]:
    """The difference at each operator, why there is none, and the first place that rounding does
    not explain.

    The last one is "" where there is no such place, None where that cannot be told.
    """
    try:
        require("gpt_edge.export.verify.divergence", "export")
    except MissingDependencyError as error:
        return [], f"operators are compared with {error.hint or 'the export extra'}", None
    from gpt_edge.export.verify.divergence import is_comparable, part

    if not is_comparable(a.config, b.config):
        return [], "the models have different shapes: only their logits can be compared", None
    for opened in (a, b):
        if getattr(opened.model, "is_optimum_export", False):
            return (
                [],
                f"{opened.path} was not written by gpt-edge: its operators cannot be told apart",
                None,
            )
    return part(a.model, b.model, ids), "", _fault(a, b, progress)


def _fault(a: OpenModel, b: OpenModel, progress: Callable[[str], None]) -> str | None:
    """Of a bundle and a checkpoint: the first place where more than rounding lies between them."""
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.export.verify.localize import locate

    bundles = [opened.model for opened in (a, b) if isinstance(opened.model, Bundle)]
    others = [opened.model for opened in (a, b) if not isinstance(opened.model, Bundle)]
    if len(bundles) != 1 or bundles[0].config != others[0].config:
        return None
    first = locate(bundles[0], others[0], progress=progress).first
    return str(first) if first is not None else ""


def _as_json(
    a: OpenModel,
    b: OpenModel,
    found: Difference,
    places: list[Parting],
    note: str,
    fault: str | None,
    words: Tokenizer | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {"a": str(a.path), "b": str(b.path), **found.to_dict()}
    values["text"] = None if words is None else words.decode(found.ids)
    first = _first(places)
    values["first"] = first.to_dict() if first is not None else None
    values["places"] = [parting.to_dict() for parting in places]
    return {**values, "beyond_rounding": fault or None, "note": note or None}


def _first(places: list[Parting]) -> Parting | None:
    if not places:
        return None
    from gpt_edge.export.verify.divergence import first_of

    return first_of(places)


def _summary(a: OpenModel, b: OpenModel, found: Difference) -> str:
    values = found.to_dict()
    rows = [
        ("A", str(a.path)),
        ("B", str(b.path)),
        ("tokens", f"{len(found.ids):,}"),
        ("max |Δlogit|", f"{found.max_difference:.3g}"),
        (
            "KL(A‖B)",
            f"mean {found.mean_kl:.3g}, 99 % {values['p99_kl']:.3g}, max {values['max_kl']:.3g} "
            "nats",
        ),
        ("same token", f"{found.top1:.2%}, {len(found.flips):,} flips"),
    ]
    return "\n".join(f"{name:<14}{console.visible(value)}" for name, value in rows)


def _place_table(places: list[Parting], note: str, fault: str | None) -> str:
    """The first place, and how the difference grows: one line for each layer's end."""
    if not places:
        return note
    first = _first(places)
    if first is None:
        return "the models do not part: every operator gives the same, but for the order of sums"
    lines = [
        f"they part first at {first.place}, by {first.relative:.2g} of the value's root mean square"
    ]
    ends = [found for found in places if found.place.layer is None or _is_end(found, places)]
    lines.append(
        columns([("  after", "difference"), *((f"  {p.place}", f"{p.relative:.2g}") for p in ends)])
    )
    if fault:
        lines.append(console.visible(f"more than rounding lies between them at {fault}"))
    elif fault is not None:
        lines.append("nothing but rounding lies between them")
    return "\n".join(lines)


def _is_end(found: Parting, places: list[Parting]) -> bool:
    """Whether a place is the last one of its layer."""
    return [p for p in places if p.place.layer == found.place.layer][-1] is found


def _legend() -> str:
    if _has_colours():
        return "the text, each token by the KL divergence of its prediction: yellow from 0.01 nats, red 0.1, on red 1"
    return "the text, each token by the KL divergence of its prediction: {from 0.01 nats}, {{0.1}}, {{{1}}}"


def _has_colours() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _pieces(found: Difference, words: Tokenizer) -> list[tuple[str, float]]:
    """Text and KL of each token; the first one is predicted by nothing."""
    detokenizer = words.detokenizer()
    texts = [detokenizer.push(id) for id in found.ids]
    texts[-1] += detokenizer.flush()
    return [
        (console.visible(text, keep="\n\t"), kl)
        for text, kl in zip(texts, (0.0, *found.kl), strict=False)
    ]


def _say_tokens(found: Difference, words: Tokenizer) -> None:
    pieces = _pieces(found, words)
    if _has_colours():
        from rich.console import Console

        Console(highlight=False, markup=False).print(_coloured(pieces))
        return
    console.say(_marked(pieces))


def _marked(pieces: list[tuple[str, float]]) -> str:
    parts = []
    for text, kl in pieces:
        _, _, opening, closing = next(
            (level for level in LEVELS if kl >= level[0]), (0, "", "", "")
        )
        parts.append(f"{opening}{text}{closing}")
    return "".join(parts)


def _coloured(pieces: list[tuple[str, float]]) -> Text:
    from rich.text import Text

    styled = Text()
    for text, kl in pieces:
        styled.append(text, next((style for limit, style, _, _ in LEVELS if kl >= limit), ""))
    return styled


def _flip_table(found: Difference, words: Tokenizer | None) -> str:
    """The flips with the largest KL, each with what both would write."""
    worst = sorted(found.flips, key=lambda flip: -flip.kl)[:MAX_FLIPS]

    def shown(id: int) -> str:
        return str(id) if words is None else console.visible(repr(words.decode([id])))

    rows = [("flips", "after", "A", "margin", "B", "margin", "KL")]
    for flip in worst:
        a, b = map(shown, flip.tokens)
        margins = [f"{margin:.2g}" for margin in flip.margins]
        rows.append(
            (
                f"  token {flip.row}",
                shown(found.ids[flip.row]),
                a,
                margins[0],
                b,
                margins[1],
                f"{flip.kl:.2g}",
            )
        )
    more = len(found.flips) - len(worst)
    return columns(rows) + (f"\n  and {more:,} more" if more else "")
