"""The sections of a report about the models' behaviour: samples, tokens, layers, weights, and how
formats were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from gpt_edge.export.report.data import BundleReport, Sample, Variant
from gpt_edge.export.report.format import HEAT_TOP, heat, is_number, short, shown
from gpt_edge.export.report.html import Content, Html, join, table, tag, text
from gpt_edge.export.report.plots import N_COLOURS, Line, Mark, legend, lines, scatter, short_power

HEAT_SPAN = 1e-2  # fraction of a table's largest figure that has the palest colour
SHOWN_FORMATS = 2  # tables of sensitivities that are open; others are folded
HEAT_OF_TOKENS = 0.001  # nats; a token of a text is coloured from here


def samples(report: BundleReport) -> Iterator[Html]:
    if not any(variant.samples for variant in report.variants):
        return
    yield tag("h2", "Samples, side by side")
    intro = f"Greedy continuations; the prompts are {report.prompts}."
    if report.reference is not None:
        first = tag("mark", "Outlined", class_="first")
        yield tag(
            "p",
            f"{intro} Tokens that fp32 does not generate are marked. ",
            first,
            " is the first token that differs. The tokens after it continue another text, so only "
            "the first difference says something about the model.",
        )
    else:
        yield tag("p", intro)
    for index, sample in enumerate(report.main.samples):
        yield tag("h3", "“", tag("span", sample.prompt, class_="words"), "”")
        cards = [
            _card(variant, variant.samples[index]) for variant in report.variants if variant.samples
        ]
        yield tag("div", *cards, class_="samples")


def _card(variant: Variant, sample: Sample) -> Html:
    pieces: list[Content] = []
    for i, (piece, differs) in enumerate(zip(sample.pieces, sample.differs, strict=True)):
        if i == sample.diverges_at:
            title = (
                f"fp32 prefers another token by {sample.margin:.2g} of a logit"
                if sample.margin is not None
                else None
            )
            pieces.append(tag("mark", piece, class_="first", title=title))
        else:
            pieces.append(tag("mark", piece) if differs else text(piece))
    note = ""
    if sample.diverges_at is not None:
        margin = (
            f", where fp32's choice leads by {sample.margin:.2g}"
            if sample.margin is not None
            else ""
        )
        note = f" · diverges after {sample.diverges_at} tokens{margin}"
    elif variant.degradation is not None:
        note = f" · the same {len(sample.ids)} tokens"
    shown = join(pieces) if pieces else tag("i", "(empty: the model ends the text at once)")
    return tag(
        "div", tag("h4", variant.label + note), tag("div", shown, class_="words"), class_="sample"
    )


def tokens(report: BundleReport) -> Iterator[Html]:
    if report.tokens is None:
        return
    yield tag("h2", "Token by token")
    yield tag(
        "p",
        "A passage that this bundle and fp32 both process. The redder a token, the larger the KL "
        f"divergence of the two predictions: coloured from {HEAT_OF_TOKENS} nats, darkest at "
        f"{HEAT_TOP:g}.",
    )
    pieces = [
        tag("span", piece, style=heat(kl, HEAT_OF_TOKENS), title=f"KL {kl:.2g}")
        if kl >= HEAT_OF_TOKENS
        else text(piece)
        for piece, kl in zip(report.tokens.pieces, report.tokens.kl, strict=True)
    ]
    yield tag("div", tag("div", *pieces, class_="words"), class_="sample")
    n_coloured = sum(kl >= HEAT_OF_TOKENS for kl in report.tokens.kl)
    yield tag(
        "p",
        f"{n_coloured} of {len(pieces)} tokens are coloured; the largest KL is "
        f"{max(report.tokens.kl):.2g}.",
        class_="soft",
    )


def layers(report: BundleReport) -> Iterator[Html]:
    compared = [(style, variant) for style, variant in styled(report) if variant.layers]
    if not compared:
        return
    yield tag("h2", "Error, layer by layer")
    yield tag(
        "p",
        "The output of each layer compared with that of fp32: the root mean square of the "
        "difference, as a fraction of that of the output. Both process the same passage, each with "
        "its own values, so an error carries over to all later layers.",
    )
    ends = _layer_ends(compared[0][1])
    series = [
        Line(
            variant.label,
            tuple(_relative_error(variant, operator) for operator in ends.values()),
            style,
        )
        for style, variant in compared
    ]
    yield legend([(line.label, line.style) for line in series])
    yield lines(
        series,
        list(ends),
        "Difference from fp32 after each layer",
        "layer",
        "fraction of the output; lower is better",
    )
    operators = [str(divergence.operator) for divergence in compared[0][1].layers]
    rows = [
        [operator, *(short(_relative_error(variant, operator)) for _, variant in compared)]
        for operator in operators
    ]
    headings = ("operator", *(variant.label for _, variant in compared))
    yield tag(
        "details",
        tag("summary", f"Every operator ({len(operators)})"),
        table(headings, rows),
    )


def _layer_ends(variant: Variant) -> dict[str, str]:
    """Short names of the operators in the plot, and the operators: the embedding, the last one of
    each layer, the head.
    """
    ends: dict[str, str] = {}
    for divergence in variant.layers:
        operator = divergence.operator
        name = (
            str(operator.layer)
            if operator.layer is not None
            else {"embedding": "in", "lm_head": "out"}.get(operator.name)
        )
        if name is not None:
            ends[name] = str(operator)
    return ends


def _relative_error(variant: Variant, operator: str) -> float | None:
    for divergence in variant.layers:
        if str(divergence.operator) == operator:
            return divergence.relative
    return None


def sensitivity(report: BundleReport) -> Iterator[Html]:
    if not report.sensitivity:
        return
    yield tag("h2", "Sensitivity")
    yield tag(
        "p",
        "The mean KL of quantizing one weight alone, with everything else in fp32; "
        f"{report.sensitivity_origin}.",
    )
    forms = list(dict.fromkeys(form for values in report.sensitivity.values() for form in values))
    tables = [tag("h3", form) + _by_layer(report.sensitivity, form) for form in forms]
    yield Html("".join(tables[:SHOWN_FORMATS]))
    if len(tables) > SHOWN_FORMATS:
        yield tag("details", tag("summary", "Other formats"), Html("".join(tables[SHOWN_FORMATS:])))


def _by_layer(sensitivity: Mapping[str, Mapping[str, float]], form: str) -> Html:
    """One row for each layer, one column for each of its weights; tables outside the layers in rows
    of their own.
    """
    values = {name: of_name[form] for name, of_name in sensitivity.items() if form in of_name}
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
    """The assignments that `quantize` measured for a budget, if the manifest has them."""
    record = report.bundle.manifest.provenance.get("quantization")
    budget = record.get("budget") if isinstance(record, Mapping) else None
    points = budget.get("points") if isinstance(budget, Mapping) else None
    good = [point for point in points if _is_point(point)] if isinstance(points, list) else []
    if not good or not isinstance(budget, Mapping):
        return
    yield tag("h2", "How the formats were chosen")
    limits = budget.get("limits")
    budget_text = (
        ", ".join(f"{name} {shown(value)}" for name, value in limits.items())
        if isinstance(limits, Mapping)
        else "–"
    )
    yield tag(
        "p",
        f"gpt-edge quantize measured these assignments for a budget of {budget_text}, on "
        f"{shown(budget.get('text'))}.",
    )
    marks = [
        Mark(
            label=str(point["label"]),
            x=point["n_bytes"] / 1e6,
            y=max(point["mean_kl"], 1e-9),
            style=1 if point.get("ok") is True else 5,
            is_main=point["label"] == budget.get("best"),
        )
        for point in good
    ]
    yield scatter(
        marks, "Size against loss of every assignment", "MB of quantized weights", "mean KL, nats"
    )
    yield legend([("meets the budget", 1), ("exceeds the budget", 5)])


def _is_point(point: object) -> bool:
    return (
        isinstance(point, Mapping)
        and is_number(point.get("n_bytes"))
        and is_number(point.get("mean_kl"))
    )


def styled(report: BundleReport) -> list[tuple[int, Variant]]:
    return [(index % N_COLOURS, variant) for index, variant in enumerate(report.variants)]
