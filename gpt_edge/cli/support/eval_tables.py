"""The tables of `eval`: figures with their standard errors, the two models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt_edge.cli.support.console import visible
from gpt_edge.cli.support.tables import columns

if TYPE_CHECKING:
    from gpt_edge.evaluate import Comparison, Estimate, LambadaScore, TextReport, TextScore

Row = tuple[str, ...]


def text_table(names: Sequence[str], files: Sequence[str], report: TextReport) -> str:
    """The texts and the windows, the figures of each model, and the comparison of the two."""
    scores = [score for score in (report.model, report.base) if score is not None]
    heading = (
        f"{visible(', '.join(files))}: {report.n_documents:,} documents, {report.n_tokens:,} "
        "tokens, "
        f"{report.n_words:,} words, {report.n_bytes:,} bytes; window {report.window:,}, stride "
        f"{report.stride:,}"
    )
    rows: list[Row] = [("", *map(visible, names)), *_score_rows(scores)]
    tables = [heading, columns(rows)]
    comparisons: dict[str, Comparison] = {}
    if report.comparison is not None:
        comparisons[f"against {names[-1]}"] = report.comparison
    if report.noise_floor is not None:
        comparisons[_noise_title(report)] = report.noise_floor
    if comparisons:
        rows = [("", *map(visible, comparisons)), *_comparison_rows(list(comparisons.values()))]
        tables.append(columns(rows))
    return "\n\n".join(tables)


def lambada_table(names: Sequence[str], scores: Sequence[LambadaScore]) -> str:
    """The accuracy and the perplexity of last words, one column for each model."""
    rows: list[Row] = [
        (f"LAMBADA, {scores[0].n_passages:,} passages", *map(visible, names)),
        ("accuracy", *(_percent(score.accuracy) for score in scores)),
        ("accuracy, stop words filtered", *(_percent(score.accuracy_filtered) for score in scores)),
        ("perplexity", *(_estimate(score.perplexity) for score in scores)),
        ("last token, accuracy", *(_percent(score.last_token_accuracy) for score in scores)),
        ("last token, perplexity", *(_estimate(score.last_token_perplexity) for score in scores)),
    ]
    return columns(rows)


def _noise_title(report: TextReport) -> str:
    first, second = report.noise_threads or (0, 0)
    return f"noise floor: {first} and {second} threads"


def _score_rows(scores: Sequence[TextScore]) -> list[Row]:
    return [
        ("loss, nats per token", *(_estimate(score.loss) for score in scores)),
        ("perplexity", *(_estimate(score.perplexity) for score in scores)),
        ("word perplexity", *(_number(score.word_perplexity) for score in scores)),
        ("bits per byte", *(f"{score.bits_per_byte:.5f}" for score in scores)),
        ("next-token accuracy", *(_percent(score.accuracy) for score in scores)),
    ]


def _comparison_rows(comparisons: Sequence[Comparison]) -> list[Row]:
    return [
        ("perplexity ratio", *(_estimate(one.perplexity_ratio, 6) for one in comparisons)),
        ("mean KL, nats", *(_estimate(one.mean_kl, 3) for one in comparisons)),
        ("median KL", *(_number(one.median_kl, 3) for one in comparisons)),
        ("99 % KL", *(_number(one.kl_quantiles[0.99], 3) for one in comparisons)),
        ("99.9 % KL", *(_number(one.kl_quantiles[0.999], 3) for one in comparisons)),
        ("largest KL", *(_number(one.max_kl, 3) for one in comparisons)),
        ("same top token", *(_percent(one.top1) for one in comparisons)),
        ("mean Δp", *(_percent(one.mean_delta_p) for one in comparisons)),
        ("RMS Δp", *(_percent(one.rms_delta_p) for one in comparisons)),
    ]


def _number(value: float | None, digits: int = 5) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _estimate(value: Estimate | None, digits: int = 5) -> str:
    return "-" if value is None else f"{value.value:.{digits}g} ± {value.error:.2g}"


def _percent(value: Estimate) -> str:
    return f"{100 * value.value:.3f} ± {100 * value.error:.2g} %"
