"""A BundleReport as one HTML page: self-contained, without scripts, readable offline, on a phone
and in dark mode.

All content goes through `html.tag`, which escapes. The page's own policy forbids every request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_edge.errors import OutputError
from gpt_edge.export.report.data import REFERENCE, BundleReport, Variant
from gpt_edge.export.report.format import percent, shown, size
from gpt_edge.export.report.html import Content, Html, table, tag
from gpt_edge.export.report.plots import Mark, scatter, short_power
from gpt_edge.export.report.sections import layers, samples, search, sensitivity, styled, tokens
from gpt_edge.export.report.style import CSS
from gpt_edge.schemes import FP32
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.version import __version__

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_target(path: Path) -> None:
    """Raise OutputError if `write_page` could not write to `path`, before minutes of measuring."""
    if path.is_dir():
        raise OutputError(
            f"{path} is a folder, a file was expected",
            hint="give a name such as report.html with -o",
        )
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.absolute().parent}")


def write_page(report: BundleReport, path: Path) -> int:
    """Write the page to `path` atomically and return its size in bytes. Raises OutputError as
    `atomic_write`.
    """
    content = page(report).encode("utf-8")
    atomic_write(path, content)
    return len(content)


def page(report: BundleReport) -> str:
    """The whole document."""
    name = report.bundle.manifest.name
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", f"{name}: report"),
        tag("style", Html(CSS)),
    )
    body = tag("body", *_sections(report))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _sections(report: BundleReport) -> Iterator[Html]:
    yield _header(report)
    yield from _quality(report)
    yield from samples(report)
    yield from tokens(report)
    yield from layers(report)
    yield from sensitivity(report)
    yield from search(report)
    yield from _parity(report)
    yield from _facts(report)
    if report.missing:
        yield tag("h2", "What is not on this page")
        yield tag("ul", *(tag("li", reason) for reason in report.missing))
    yield tag(
        "footer",
        f"Created by gpt-edge report, version {__version__}. The page is self-contained and makes "
        "no network requests.",
    )


def _header(report: BundleReport) -> Html:
    bundle, main = report.bundle, report.main
    config = bundle.config
    description = (
        f"A language model of {config.n_parameters:,} parameters: {config.n_layer} layers, "
        f"{config.n_head} heads, width {config.n_embd}, a context of {config.n_ctx:,} tokens. "
        f"Weights: {bundle.scheme}; graph: {bundle.graph}."
    )
    tiles = [(size(main.n_bytes), f"graph and weights{_share(report)}")]
    if main.degradation is not None:
        tiles += [
            (f"{100 * main.degradation.top1:.2f} %", "same next token as fp32"),
            (short_power(main.degradation.mean_kl, 1), "mean KL from fp32, nats"),
            (f"{1 + main.degradation.ppl_increase:.4f}", "perplexity, fp32 is 1"),
        ]
    elif main.label == REFERENCE:
        tiles.append((FP32.name, "not quantized: the reference of this page"))
    if (verdict := _verdict(bundle.manifest.parity)) is not None:
        tiles.append((verdict, "verification at export"))
    scores = [
        (name, value) for name, value in bundle.manifest.quality.items() if isinstance(value, float)
    ]
    tiles += [(shown(value), name.replace("_", " ")) for name, value in scores[:3]]
    return tag(
        "header",
        tag("p", "gpt-edge report", class_="soft"),
        tag("h1", bundle.manifest.name),
        tag("p", description),
        tag("div", *(_tile(value, caption) for value, caption in tiles), class_="tiles"),
    )


def _tile(value: str, caption: str) -> Html:
    return tag("div", tag("b", value), tag("span", caption), class_="tile")


def _share(report: BundleReport) -> str:
    reference = next((variant for variant in report.variants if variant.label == REFERENCE), None)
    if reference is None or reference.is_main:
        return ""
    return f", {report.main.n_bytes / reference.n_bytes:.0%} of fp32"


def _verdict(parity: Mapping[str, Any]) -> str | None:
    """How many comparisons of the manifest passed; None without comparisons."""
    sections = [section for section in parity.values() if isinstance(section, Mapping)]
    comparisons = [values for section in sections for values in section.values()]
    results = [values.get("ok") for values in comparisons if isinstance(values, Mapping)]
    if not results:
        return None
    n_failed = sum(ok is not True for ok in results)
    if n_failed:
        return f"{n_failed} of {len(results)} failed"
    return f"{len(results)} of {len(results)} passed"


def _quality(report: BundleReport) -> Iterator[Html]:
    yield tag("h2", "Size and loss")
    has_loss = any(variant.degradation for variant in report.variants)
    if has_loss:
        yield tag(
            "p",
            f"Against {report.reference}, on {report.n_tokens:,} tokens of {report.text}. "
            "Perplexity is the ratio to that of fp32. KL is the mean Kullback–Leibler divergence "
            "from fp32 in nats per token. Same token is the fraction of positions at which both "
            "models rank the same next token first.",
        )
    headings = ("", "size", "mean KL", "same token", "perplexity", "of fp32", "KL ± s.e.")
    yield table(
        headings if has_loss else headings[:2],
        [_row(v, report)[: 7 if has_loss else 2] for v in report.variants],
    )
    built = [variant.label for variant in report.variants if variant.is_built]
    if built:
        yield tag(
            "p",
            f"{' and '.join(built)}: quantized for this page, rounded to the nearest level without "
            "calibration. Size is that of graph and weights.",
            class_="soft",
        )
    marks = [
        Mark(
            variant.label,
            variant.n_bytes / 1e6,
            max(variant.degradation.mean_kl, 1e-9),
            style,
            variant.is_main,
        )
        for style, variant in styled(report)
        if variant.degradation is not None and math.isfinite(variant.degradation.mean_kl)
    ]
    if marks:
        yield scatter(
            marks,
            "Size against loss",
            "MB of graph and weights",
            "mean KL from fp32, nats; lower is better",
        )
    if report.torch is not None:
        yield tag(
            "p",
            "The fp32 graph compared with torch, on the tokens of verification: largest difference "
            f"of a logit {shown(report.torch.get('max_difference'))}, mean KL "
            f"{shown(report.torch.get('mean_kl'))}, same token "
            f"{percent(report.torch.get('top1'))}.",
            class_="soft",
        )


def _row(variant: Variant, report: BundleReport) -> list[Content]:
    fp32 = next((other.n_bytes for other in report.variants if other.label == REFERENCE), None)
    degradation = variant.degradation
    share = f"{variant.n_bytes / fp32:.0%}" if fp32 else "–"
    label = tag("b", variant.label) if variant.is_main else variant.label
    if degradation is None:
        return [
            label,
            size(variant.n_bytes),
            "–",
            "–",
            "1" if variant.label == REFERENCE else "–",
            share,
            "–",
        ]
    return [
        label,
        size(variant.n_bytes),
        short_power(degradation.mean_kl, 2),
        f"{100 * degradation.top1:.2f} %",
        f"{1 + degradation.ppl_increase:.5f}",
        share,
        short_power(degradation.kl_error, 0),
    ]


def _parity(report: BundleReport) -> Iterator[Html]:
    figures = report.bundle.manifest.parity
    if not figures:
        return
    yield tag("h2", "Verification at export")
    yield tag(
        "p",
        "From the manifest. Each line compares two ways of computing the same logits. “Paths” are "
        "execution paths of one graph: the whole prompt at once, single steps, chunks, a batch, "
        "rewinding.",
    )
    rows: list[Sequence[Content]] = []
    for section, comparisons in figures.items():
        for name, values in comparisons.items() if isinstance(comparisons, Mapping) else ():
            if isinstance(values, Mapping):
                rows.append([f"{section}: {name}", *_parity_cells(values)])
    yield table(("comparison", "rows", "max |Δlogit|", "mean KL", "same token", ""), rows)


def _parity_cells(values: Mapping[str, Any]) -> list[Content]:
    ok = values.get("ok") is True
    verdict = tag("span", "passed", class_="good") if ok else tag("span", "FAILED", class_="wrong")
    if "equal_tokens" in values:
        return [
            "",
            "",
            "",
            f"{shown(values['equal_tokens'])} of {shown(values.get('tokens'))}",
            verdict,
        ]
    return [
        shown(values.get("rows")),
        shown(values.get("max_difference")),
        shown(values.get("mean_kl")),
        percent(values.get("top1")),
        verdict,
    ]


def _facts(report: BundleReport) -> Iterator[Html]:
    manifest = report.bundle.manifest
    yield tag("h2", "The bundle")
    facts: list[tuple[str, Content]] = [
        ("name", manifest.name),
        (
            "kind",
            f"{manifest.kind}, {manifest.graph} graph, {manifest.scheme}, format version "
            f"{manifest.format_version}",
        ),
        *((name, shown(value)) for name, value in manifest.config.to_dict().items()),
        ("tokenizer", _tokenizer(manifest.tokenizer)),
        *(
            (f"provenance: {name}", shown(value))
            for name, value in manifest.provenance.items()
            if name != "quantization"
        ),
        *((f"quality: {name}", shown(value)) for name, value in manifest.quality.items()),
    ]
    yield table(("", ""), facts, class_="left")
    yield tag("h3", f"Files, {size(report.bundle.n_bytes)} in all")
    rows = [
        (name, f"{record['size']:,}", record["sha256"])
        for name, record in sorted(manifest.files.items())
    ]
    yield table(("file", "bytes", "SHA-256"), rows)


def _tokenizer(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return "none: the bundle takes and returns ids"
    return f"{shown(values.get('kind'))}, {shown(values.get('vocab_size'))} tokens"
