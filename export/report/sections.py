"""The sections of a report that show what the models do: samples, tokens, layers, weights, and how
formats were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from gpt_edge.export.report.data import BundleReport, Sample, Variant
from gpt_edge.export.report.format import HEAT_TOP, heat, is_number, short, shown
from gpt_edge.export.report.html import Content, Html, join, table, tag, text
from gpt_edge.export.report.plots import N_COLOURS, Line, Mark, legend, lines, scatter, short_power

HEAT_SPAN = 1e-2  # of the largest figure of a table: what has the palest colour
SHOWN_FORMATS = 2  # whose sensitivities are seen at once; others are folded away
HEAT_OF_TOKENS = 0.001  # nats from which a token of a text is coloured


def samples(report: BundleReport) -> Iterator[Html]:
    if not any(variant.samples for variant in report.variants):
        return
    yield tag("h2", "Samples, side by side")
    words = f"Greedy continuations; the prompts are {report.prompts}."
    if report.reference is not None:
        first = tag("mark", "Outlined", class_="first")
        yield tag("p", f"{words} Marked is what fp32 does not write. ", first,
                  " is the first token that differs: what follows it continues another text, so "
                  "only the first place "
                  "tells of the model.")  # fmt: skip
    else:
        yield tag("p", words)
    for index, sample in enumerate(report.main.samples):
        yield tag("h3", "“", tag("span", sample.prompt, class_="words"), "”")
        cards = [
            _card(variant, variant.samples[index]) for variant in report.variants if variant.samples
        ]
        yield tag("div", *cards, class_="samples")


def _card(variant: Variant, sample: Sample) -> Html:
    pieces: list[Content] = []
    for i, (piece, differs) in enumerate(zip(sample.pieces, sample.differs, strict=True)):
        if i == sample.parted:
            title = (
                f"fp32 prefers another token by {sample.margin:.2g} of a logit"
                if sample.margin is not None
                else None
            )
            pieces.append(tag("mark", piece, class_="first", title=title))
        else:
            pieces.append(tag("mark", piece) if differs else text(piece))
    note = ""
    if sample.parted is not None:
        margin = (
            f", where fp32's choice leads by {sample.margin:.2g}"
            if sample.margin is not None
            else ""
        )
        note = f" · parts after {sample.parted} tokens{margin}"
    elif variant.degradation is not None:
        note = f" · the same {len(sample.ids)} tokens"
    shown = join(pieces) if pieces else tag("i", "(nothing: the text ends at once)")
    return tag(
        "div", tag("h4", variant.label + note), tag("div", shown, class_="words"), class_="sample"
    )


def tokens(report: BundleReport) -> Iterator[Html]:
    if report.tokens is None:
        return
    yield tag("h2", "Token by token")
    yield tag("p", "A passage that this bundle and fp32 both read. The redder a token, the further apart the two predictions "
              f"of it: KL from {HEAT_OF_TOKENS} nats, fullest at {HEAT_TOP:g}.")  # fmt: skip
    pieces = [
        tag("span", piece, style=heat(kl, HEAT_OF_TOKENS), title=f"KL {kl:.2g}")
        if kl >= HEAT_OF_TOKENS
        else text(piece)
        for piece, kl in zip(report.tokens.pieces, report.tokens.kl, strict=True)
    ]
    yield tag("div", tag("div", *pieces, class_="words"), class_="sample")
    n_seen = sum(kl >= HEAT_OF_TOKENS for kl in report.tokens.kl)
    yield tag("p", f"{n_seen} of {len(pieces)} tokens are coloured; the largest KL is {max(report.tokens.kl):.2g}.",
              class_="soft")  # fmt: skip


def layers(report: BundleReport) -> Iterator[Html]:
    found = [(style, variant) for style, variant in styled(report) if variant.layers]
    if not found:
        return
    yield tag("h2", "Error, layer by layer")
    yield tag("p", "What each layer leaves behind beside what fp32 leaves there: the root mean square of the difference, as a "
              "share of the value's own. Both read the same passage, each on its own values, so an "
              "error stays in "
              "everything behind it.")  # fmt: skip
    ends = _layer_ends(found[0][1])
    series = [
        Line(variant.label, tuple(_at(variant, place) for place in ends.values()), style)
        for style, variant in found
    ]
    yield legend([(line.label, line.style) for line in series])
    yield lines(
        series,
        list(ends),
        "Difference from fp32 after each layer",
        "layer",
        "share of the value; lower is better",
    )
    places = [parting.operator for parting in found[0][1].layers]
    rows = [
        [str(place), *(short(_at(variant, str(place))) for _, variant in found)] for place in places
    ]
    yield tag("details", tag("summary", f"Every operator ({len(places)} places)"),
              table(("place", *(variant.label for _, variant in found)), rows))  # fmt: skip


def _layer_ends(variant: Variant) -> dict[str, str]:
    """Short names of the places shown in the plot, and the places: the embedding, the last of each
    layer, the head.
    """
    ends: dict[str, str] = {}
    for parting in variant.layers:
        place = parting.operator
        name = (
            str(place.layer)
            if place.layer is not None
            else {"embedding": "in", "lm_head": "out"}.get(place.name)
        )
        if name is not None:
            ends[name] = str(place)
    return ends


def _at(variant: Variant, place: str) -> float | None:
    return next(
        (parting.relative for parting in variant.layers if str(parting.operator) == place), None
    )


def sensitivity(report: BundleReport) -> Iterator[Html]:
    if not report.sensitivity:
        return
    yield tag("h2", "Sensitivity")
    yield tag("p", "The mean KL that rounding one weight alone costs, everything else in fp32; "
              f"{report.sensitivity_origin}.")  # fmt: skip
    forms = list(dict.fromkeys(form for values in report.sensitivity.values() for form in values))
    tables = [tag("h3", form) + _by_layer(report.sensitivity, form) for form in forms]
    yield Html("".join(tables[:SHOWN_FORMATS]))
    if len(tables) > SHOWN_FORMATS:
        yield tag("details", tag("summary", "Other formats"), Html("".join(tables[SHOWN_FORMATS:])))


def _by_layer(found: Mapping[str, Mapping[str, float]], form: str) -> Html:
    """One row for each layer, one column for each of its weights; tables outside the layers in rows
    of their own.
    """
    values = {name: of_name[form] for name, of_name in found.items() if form in of_name}
    top = max((value for value in values.values() if math.isfinite(value)), default=1.0)
    parts = list(
        dict.fromkeys(
            name.split(".", 2)[2]
            for name in values
            if name.startswith("h.") and name.count(".") > 1
        )
    )
    layers = list(
        dict.fromkeys(".".join(name.split(".")[:2]) for name in values if name.startswith("h."))
    )
    rows: list[Sequence[Content]] = [
        [layer, *(_heat_cell(values.get(f"{layer}.{part}"), top) for part in parts)]
        for layer in layers
    ]
    outside = [
        [name, _heat_cell(value, top)]
        for name, value in values.items()
        if not name.startswith("h.")
    ]
    rows = [[*row, *("" for _ in parts[1:])] for row in outside] + rows
    return table(
        ("", *(part.removesuffix(".weight") for part in parts or [""])), rows, class_="heat"
    )


def _heat_cell(value: float | None, top: float) -> Html:
    if value is None:
        return tag("td", "–")
    return tag("td", short_power(value, 1), style=heat(value, top * HEAT_SPAN, top))


def search(report: BundleReport) -> Iterator[Html]:
    """The assignments that `quantize` measured for a budget, where the manifest has them."""
    described = report.bundle.manifest.provenance.get("quantization")
    budget = described.get("budget") if isinstance(described, Mapping) else None
    points = budget.get("points") if isinstance(budget, Mapping) else None
    good = [point for point in points if _is_point(point)] if isinstance(points, list) else []
    if not good or not isinstance(budget, Mapping):
        return
    yield tag("h2", "How the formats were chosen")
    limits = budget.get("limits")
    said = (
        ", ".join(f"{name} {shown(value)}" for name, value in limits.items())
        if isinstance(limits, Mapping)
        else "–"
    )
    yield tag(
        "p",
        f"gpt-edge quantize measured these assignments for a budget of {said}, on "
        f"{shown(budget.get('text'))}.",
    )
    marks = [
        Mark(str(p["label"]), p["n_bytes"] / 1e6, max(p["mean_kl"], 1e-9), 1 if p.get("ok") is True else 5,
             p["label"] == budget.get("best"))
        for p in good
    ]  # fmt: skip
    yield scatter(
        marks, "Size against loss of every assignment", "MB of rounded weights", "mean KL, nats"
    )
    yield legend([("keeps the budget", 1), ("loses too much", 5)])


def _is_point(point: object) -> bool:
    return (
        isinstance(point, Mapping)
        and is_number(point.get("n_bytes"))
        and is_number(point.get("mean_kl"))
    )


def styled(report: BundleReport) -> list[tuple[int, Variant]]:
    return [(index % N_COLOURS, variant) for index, variant in enumerate(report.variants)]
