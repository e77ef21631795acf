"""`diff`: where two models diverge, by how much, and at which tokens of a text."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
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

    from gpt_edge.export.verify.divergence import Divergence
    from gpt_edge.tokenizer import Tokenizer
    from gpt_edge.verify.token_diff import Difference

# KL divergence in nats from which a token is marked, its style on a terminal, its braces elsewhere
LEVELS = (
    (1.0, "bold white on red", "{{{", "}}}"),
    (0.1, "bold red", "{{", "}}"),
    (0.01, "yellow", "{", "}"),
)
MAX_FLIPS = 8  # lines
MAX_TEXT_BYTES = 1 << 20  # far more than a context holds
LEGEND = "the text, each token by the KL divergence of its prediction:"


@dataclass(frozen=True, slots=True)
class OperatorComparison:
    """How far the values of the two models differ after each operator."""

    divergences: list[Divergence]
    note: str = ""  # why there are none
    # the first operator whose difference rounding does not explain; "": none; None: not known
    fault: str | None = None


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
        a = open_model(first)
        b = open_model(second, other=a.config)
        names = str(a.path), str(b.path)
        check_same_vocabulary(a.config, b.config, names)
        if a.tokenizer and b.tokenizer:
            check_same_tokens(a.tokenizer, b.tokenizer, names)
        tokenizer = a.tokenizer or b.tokenizer
        ids = probe_ids(_read(text), tokenizer, a.config, min(a.config.n_ctx, b.config.n_ctx))
        progress("comparing the logits")
        difference = compare_models(a.scorer(name=names[0]), b.scorer(name=names[1]), ids)
        progress("comparing the operators")
        operators = _compare_operators(a, b, ids, progress)
    if as_json:
        console.say_json(_as_json(names, difference, operators, tokenizer))
        return
    console.say(_summary(names, difference))
    console.say("\n" + _operator_table(operators))
    if tokenizer is not None:
        console.say(f"\n{_legend()}")
        _print_tokens(difference, tokenizer)
    if difference.flips:
        console.say("\n" + _flip_table(difference, tokenizer))


def _read(text: str | None) -> str | None:
    """Return the content of the file `text`, else `text` itself."""
    if text is None:
        return None
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        is_file = False
    if not is_file:
        return text
    with Path(text).open("rb") as file:
        return file.read(MAX_TEXT_BYTES).decode("utf-8", "replace")


def _compare_operators(
    a: OpenModel, b: OpenModel, ids: Any, progress: Callable[[str], None]
) -> OperatorComparison:
    try:
        require("gpt_edge.export.verify.divergence", "export")
    except MissingDependencyError as error:
        return OperatorComparison([], f"to compare operators: {error.hint}")
    from gpt_edge.export.verify.divergence import is_comparable, layer_divergences

    if not is_comparable(a.config, b.config):
        note = "the models have different shapes: only their logits can be compared"
        return OperatorComparison([], note)
    for opened in (a, b):
        if getattr(opened.model, "is_optimum_export", False):
            note = f"{opened.path} is an Optimum export: its operators cannot be compared"
            return OperatorComparison([], note)
    return OperatorComparison(
        layer_divergences(a.model, b.model, ids), fault=_fault(a, b, progress)
    )


def _fault(a: OpenModel, b: OpenModel, progress: Callable[[str], None]) -> str | None:
    """Return OperatorComparison.fault, which is known only for a bundle and its checkpoint."""
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.export.verify.localize import localize

    bundles = [opened.model for opened in (a, b) if isinstance(opened.model, Bundle)]
    others = [opened.model for opened in (a, b) if not isinstance(opened.model, Bundle)]
    if len(bundles) != 1 or bundles[0].config != others[0].config:
        return None
    first = localize(bundles[0], others[0], progress=progress).first
    return str(first) if first is not None else ""


def _as_json(
    names: tuple[str, str],
    difference: Difference,
    operators: OperatorComparison,
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    first = _first(operators.divergences)
    return {
        "a": names[0],
        "b": names[1],
        **difference.to_dict(),
        "text": None if tokenizer is None else tokenizer.decode(difference.ids),
        "first": None if first is None else first.to_dict(),
        "places": [divergence.to_dict() for divergence in operators.divergences],
        "beyond_rounding": operators.fault or None,
        "note": operators.note or None,
    }


def _first(divergences: list[Divergence]) -> Divergence | None:
    if not divergences:
        return None
    from gpt_edge.export.verify.divergence import first_divergence

    return first_divergence(divergences)


def _summary(names: tuple[str, str], difference: Difference) -> str:
    values = difference.to_dict()
    kl = (
        f"mean {difference.mean_kl:.3g}, 99 % {values['p99_kl']:.3g}, "
        f"max {values['max_kl']:.3g} nats"
    )
    rows = [
        ("A", names[0]),
        ("B", names[1]),
        ("tokens", f"{len(difference.ids):,}"),
        ("max |Δlogit|", f"{difference.max_difference:.3g}"),
        ("KL(A‖B)", kl),
        ("same token", f"{difference.top1:.2%}, {len(difference.flips):,} token flips"),
    ]
    return "\n".join(f"{name:<14}{console.visible(value)}" for name, value in rows)


def _operator_table(operators: OperatorComparison) -> str:
    """The first divergence, and how the difference grows: one line for the end of each layer."""
    divergences = operators.divergences
    if not divergences:
        return operators.note
    first = _first(divergences)
    if first is None:
        return "the models do not diverge: every operator gives the same, up to the order of sums"
    ends = [
        divergence
        for divergence in divergences
        if divergence.operator.layer is None or _is_end_of_layer(divergence, divergences)
    ]
    rows = [("  after", "difference")]
    rows += [(f"  {end.operator}", f"{end.relative:.2g}") for end in ends]
    lines = [
        f"the models diverge first at {first.operator}, by {first.relative:.2g} of the value's "
        "root mean square",
        columns(rows),
    ]
    if operators.fault:
        lines.append(console.visible(f"rounding does not explain this: {operators.fault}"))
    elif operators.fault is not None:
        lines.append("rounding explains every difference")
    return "\n".join(lines)


def _is_end_of_layer(divergence: Divergence, divergences: list[Divergence]) -> bool:
    layer = [other for other in divergences if other.operator.layer == divergence.operator.layer]
    return layer[-1] is divergence


def _legend() -> str:
    if _has_colours():
        return f"{LEGEND} yellow from 0.01 nats, red 0.1, on red 1"
    return f"{LEGEND} {{from 0.01 nats}}, {{{{0.1}}}}, {{{{{{1}}}}}}"


def _has_colours() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _pieces(difference: Difference, tokenizer: Tokenizer) -> list[tuple[str, float]]:
    """Text and KL divergence of each token; nothing predicts the first one."""
    detokenizer = tokenizer.detokenizer()
    texts = [detokenizer.push(id) for id in difference.ids]
    texts[-1] += detokenizer.flush()
    return [
        (console.visible(text, keep="\n\t"), kl)
        for text, kl in zip(texts, (0.0, *difference.kl), strict=False)
    ]


def _print_tokens(difference: Difference, tokenizer: Tokenizer) -> None:
    pieces = _pieces(difference, tokenizer)
    if _has_colours():
        from rich.console import Console

        Console(highlight=False, markup=False).print(_coloured(pieces))
        return
    console.say(_marked(pieces))


def _marked(pieces: list[tuple[str, float]]) -> str:
    marked = []
    for text, kl in pieces:
        braces = [level[2:] for level in LEVELS if kl >= level[0]]
        opening, closing = braces[0] if braces else ("", "")
        marked.append(f"{opening}{text}{closing}")
    return "".join(marked)


def _coloured(pieces: list[tuple[str, float]]) -> Text:
    from rich.text import Text

    styled = Text()
    for text, kl in pieces:
        styles = [style for limit, style, _, _ in LEVELS if kl >= limit]
        styled.append(text, styles[0] if styles else "")
    return styled


def _flip_table(difference: Difference, tokenizer: Tokenizer | None) -> str:
    """The token flips with the largest KL divergence, and what each model predicts there."""
    worst = sorted(difference.flips, key=lambda flip: -flip.kl)[:MAX_FLIPS]

    def shown(id: int) -> str:
        return str(id) if tokenizer is None else console.visible(repr(tokenizer.decode([id])))

    rows = [("token flips", "after", "A", "margin", "B", "margin", "KL")]
    for flip in worst:
        a, b = map(shown, flip.tokens)
        margins = [f"{margin:.2g}" for margin in flip.margins]
        after = shown(difference.ids[flip.row])
        row = (f"  token {flip.row}", after, a, margins[0], b, margins[1], f"{flip.kl:.2g}")
        rows.append(row)
    more = len(difference.flips) - len(worst)
    return columns(rows) + (f"\n  and {more:,} more" if more else "")
