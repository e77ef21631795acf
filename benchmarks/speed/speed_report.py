"""The figures of `speed_figures.py` as Markdown and as a plot: what is written depends on the
samples and on nothing else.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from speed_figures import (
    BASELINE,
    DISTURBED,
    Figures,
    Sample,
    Setting,
    bandwidths,
    best_peer,
    disturbance,
    roofline,
)


def setting_table(setting: Setting, engines: Sequence[Figures], gb_s: float | None) -> str:
    """One setting as a Markdown table, ours in bold."""
    lines = [
        "| engine | decode tok/s | min–max | × best peer | × Optimum | of roofline | prefill tok/s "
        "| first token ms | "
        "ready s | peak RSS MB | disk MB | rounds |",
        "|---|" + "---|" * 11,
    ]
    baseline = next((found for found in engines if found.engine == BASELINE), None)
    for found in engines:
        best = best_peer(engines, found.bits)
        has_roof = gb_s is not None and setting[0] == 1 and found.bits is not None
        cells = (
            f"**{found.engine}**" if found.is_ours else found.engine,
            f"{found.decode:.1f}",
            f"{found.low:.1f}–{found.high:.1f}",
            f"{found.decode / best.decode:.2f}" if best else "",
            f"{found.decode / baseline.decode:.2f}" if baseline else "",
            f"{roofline(found, setting, gb_s):.0%}" if has_roof and gb_s is not None else "",
            f"{found.prefill:.0f}",
            f"{found.first_token_ms:.1f}",
            f"{found.load_seconds:.2f}",
            f"{found.peak_rss_mb:.0f}",
            f"{found.disk_mb:.0f}",
            f"{found.n_kept} of {found.n_rounds}" + (", disturbed" if found.is_disturbed else ""),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def agreement_table(samples: Sequence[Sample]) -> str:
    """How many of the first greedy tokens are those that most engines choose: a check of wiring,
    not of quality.
    """
    asked = sorted({(s["batch"], s["prompt_tokens"]) for s in samples})
    usual: dict[tuple[int, int, int], list[int]] = {}
    for batch, prompt, repeats in {(s["batch"], s["prompt_tokens"], s["repeats"]) for s in samples}:
        same = [
            s
            for s in samples
            if (s["batch"], s["prompt_tokens"], s["repeats"]) == (batch, prompt, repeats)
        ]
        votes = {(s["peer"], tuple(s["head_ids"])) for s in same}
        usual[batch, prompt, repeats] = list(
            Counter(ids for _, ids in sorted(votes)).most_common(1)[0][0]
        )
    lines = [
        "| engine | "
        + " | ".join(f"batch {batch}, {prompt} tokens" for batch, prompt in asked)
        + " |"
    ]
    lines.append("|---|" + "---|" * len(asked))
    for name in sorted({s["peer"] for s in samples}):
        cells = []
        for batch, prompt in asked:
            equal = [
                _equal_prefix(s["head_ids"], usual[batch, prompt, s["repeats"]])
                for s in samples
                if (s["peer"], s["batch"], s["prompt_tokens"]) == (name, batch, prompt)
            ]
            most = max((len(ids) for (b, p, _), ids in usual.items() if (b, p) == (batch, prompt)))
            cells.append(f"{min(equal)} of {most}" if equal else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _equal_prefix(ids: Sequence[int], others: Sequence[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b),
        min(len(ids), len(others)),
    )


def noise_lines(samples: Sequence[Sample], table: Mapping[Setting, Sequence[Figures]]) -> list[str]:
    """What the machine did meanwhile."""
    several = [found for engines in table.values() for found in engines if found.n_kept > 1]
    spreads = [(found.high - found.low) / found.decode for found in several]
    by = Counter(disturbance(sample) for sample in samples)
    spread = "- One round only: the spread is not known."
    if spreads:
        spread = (
            "- Fastest less slowest round, as a fraction of the median: "
            f"{statistics.median(spreads):.0%} for the median engine and setting, "
            f"{max(spreads):.0%} for the worst."
        )
    lines = [
        spread,
        f"- Of {len(samples)} samples {by['process']} met another process that used {DISTURBED} "
        "cores or more, and from "
        f"{by['host']} the host of this virtual machine took as much; their rounds are left out "
        "for all engines.",
    ]
    for threads, (middle, low, high) in bandwidths(samples).items():
        lines.append(
            f"- Reading 120 MB with {threads} thread{'s' * (threads > 1)}: {middle:.1f} GB/s "
            f"({low:.1f}–{high:.1f})."
        )
    return lines


def plot(path: Path, table: Mapping[Setting, Sequence[Figures]]) -> None:
    """Write a PNG: decode tokens/s above, time to the first token below, a column per setting, ours
    in colour.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(table), figsize=(3.4 * len(table), 6.4), squeeze=False, layout="constrained"
    )
    for column, ((batch, threads, prompt), engines) in enumerate(table.items()):
        slowest_first = list(reversed(engines))
        names = [found.engine for found in slowest_first]
        colours = ["#d1495b" if found.is_ours else "#8d99ae" for found in slowest_first]
        speeds = [found.decode for found in slowest_first]
        reach = [
            [found.decode - found.low for found in slowest_first],
            [found.high - found.decode for found in slowest_first],
        ]
        axes[0, column].barh(
            names, speeds, xerr=reach, color=colours, error_kw={"lw": 0.8, "ecolor": "#333333"}
        )
        axes[0, column].set_title(
            f"batch {batch}, {threads} thread{'s' * (threads > 1)}, prompt {prompt}", fontsize=9
        )
        axes[0, column].set_xlabel("decode tokens/s", fontsize=8)
        axes[1, column].barh(
            names, [found.first_token_ms for found in slowest_first], color=colours
        )
        axes[1, column].set_xlabel("first token, ms", fontsize=8)
        for row in (0, 1):
            axes[row, column].tick_params(labelsize=7)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
