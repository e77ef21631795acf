"""Samples of peers.py as Markdown and as a plot. Pure: what is written depends on the samples and on nothing else.

A sample is one JSON line of the harness's drive.py: the runner's figures with `peer`, `foreign_cores` (what other
processes used meanwhile) and `canary_gb_s` (read bandwidth just before). Every figure is a median over rounds; rounds
that another process disturbed are left out where undisturbed ones exist, as drive.py does it.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Sample = Mapping[str, Any]
Setting = tuple[int, int, int]  # batch, threads, tokens of the prompt

OURS = "gpt-edge"  # what run_gpt_edge.py calls its engine
BASELINE = "optimum-int8"  # what a user does today
BITS_OF = {  # bits per weight of the harness's peers; of a bundle it is its scheme that tells
    "ov-int8": 8,
    "ov-int8-bf16": 8,
    "ov-int8-optimum": 8,
    "llama-q8_0": 8,
    "ct2-int8": 8,
    "ort-oldtool-int8": 8,
    "genai-int8": 8,
    "optimum-int8": 8,
    "llama-q4_0": 4,
}
WANTED = {
    *("peer", "engine", "version", "precision", "threads", "batch", "prompt_tokens", "new_tokens", "repeats", "when"),
    *("load_s", "first_token_s", "prefill_tok_s", "decode_tok_s", "peak_rss_mb", "disk_bytes", "head_ids"),
    "foreign_cores",
}
DISTURBED = 0.15  # cores; drive.py's limit
WEIGHT_BYTES = {8: 124e6, 4: 70e6}  # that a token has to read: 123.7M weights and their scales
KV_BYTES = 73_728  # that a token has to read for each earlier one: 12 layers x 2 x 768 in fp32


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of one engine at one setting. `low` and `high` are the slowest and fastest round's decode tokens/s."""

    engine: str
    bits: int | None  # None: unknown, so it is compared with nothing
    is_ours: bool
    decode: float  # tokens/s, all rows together
    low: float
    high: float
    first_token_ms: float
    prefill: float  # tokens/s
    load_seconds: float
    peak_rss_mb: float
    disk_mb: float
    new_tokens: int
    n_kept: int
    n_rounds: int
    is_disturbed: bool  # every round was: a figure to look at, not to quote


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file. Raises ValueError naming the line that is none, or the engine that changed in between."""
    samples: list[Sample] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            sample = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(sample, dict) or (missing := sorted(WANTED - sample.keys())):
            what = f"lacks {', '.join(missing)}" if isinstance(sample, dict) else "is no object"
            raise ValueError(f"{path}, line {number} is no sample of drive.py: it {what}")
        samples.append(sample)
    if not samples:
        raise ValueError(f"{path} holds no samples")
    if len(lengths := {sample["new_tokens"] for sample in samples}) > 1:
        raise ValueError(f"{path} mixes runs of {sorted(lengths)} new tokens; start a new file")
    for name in {sample["peer"] for sample in samples}:
        kinds = {(s["version"], s["precision"], s["disk_bytes"]) for s in samples if s["peer"] == name}
        if len(kinds) > 1:
            raise ValueError(f"{path} mixes {len(kinds)} states of {name}: {sorted(kinds)}; start a new file")
    return samples


def undisturbed(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that no other process disturbed, or all if there are none."""
    return [sample for sample in samples if sample["foreign_cores"] < DISTURBED] or samples


def medians(samples: Iterable[Sample]) -> dict[Setting, list[Figures]]:
    """By setting, the fastest engine first."""
    groups: dict[Setting, dict[str, list[Sample]]] = {}
    for sample in samples:
        setting = sample["batch"], sample["threads"], sample["prompt_tokens"]
        groups.setdefault(setting, {}).setdefault(sample["peer"], []).append(sample)
    return {
        setting: sorted((_figures(name, rounds) for name, rounds in engines.items()), key=lambda found: -found.decode)
        for setting, engines in sorted(groups.items())
    }


def _figures(name: str, rounds: Sequence[Sample]) -> Figures:
    kept = undisturbed(rounds)

    def median(key: str) -> float:
        return float(statistics.median(sample[key] for sample in kept))

    speeds = [sample["decode_tok_s"] for sample in kept]
    is_ours = rounds[0]["engine"] == OURS
    scheme_bits = {"int8": 8, "int4": 4}.get(rounds[0]["precision"].partition("-")[0])
    return Figures(
        engine=name,
        bits=scheme_bits if is_ours else BITS_OF.get(name),
        is_ours=is_ours,
        decode=median("decode_tok_s"),
        low=min(speeds),
        high=max(speeds),
        first_token_ms=1e3 * median("first_token_s"),
        prefill=median("prefill_tok_s"),
        load_seconds=median("load_s"),
        peak_rss_mb=median("peak_rss_mb"),
        disk_mb=median("disk_bytes") / 1e6,
        new_tokens=rounds[0]["new_tokens"],
        n_kept=len(kept),
        n_rounds=len(rounds),
        is_disturbed=kept[0]["foreign_cores"] >= DISTURBED,
    )


def bandwidths(samples: Iterable[Sample]) -> dict[int, tuple[float, float, float]]:
    """GB/s read of 120 MB by number of threads: median, lowest, highest; empty without a canary."""
    found: dict[int, list[float]] = {}
    for sample in samples:
        if sample.get("canary_gb_s") is not None:
            found.setdefault(sample["threads"], []).append(sample["canary_gb_s"])
    return {threads: (statistics.median(all_), min(all_), max(all_)) for threads, all_ in sorted(found.items())}


def roofline(found: Figures, setting: Setting, gb_s: float) -> float:
    """The share of what the bandwidth allows: weights once a token, and fp32 keys and values of what came before."""
    assert found.bits is not None
    context = setting[2] + found.new_tokens / 2  # on average
    return found.decode * (WEIGHT_BYTES[found.bits] + KV_BYTES * context) / (gb_s * 1e9)


def best_peer(engines: Iterable[Figures], bits: int | None, *, first_token: bool = False) -> Figures | None:
    """The peer with the most tokens/s, or with the earliest first token, among those with as many bits per weight."""
    peers = [found for found in engines if not found.is_ours and bits is not None and found.bits == bits]
    if first_token:
        return min(peers, key=lambda found: found.first_token_ms, default=None)
    return max(peers, key=lambda found: found.decode, default=None)


def setting_table(setting: Setting, engines: Sequence[Figures], gb_s: float | None) -> str:
    """One setting as a Markdown table, ours in bold."""
    lines = [
        "| engine | decode tok/s | min–max | × best peer | × Optimum | of roofline | prefill tok/s | first token ms | "
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
    """How many of the first greedy tokens are those that most engines choose: a check of wiring, not of quality."""
    asked = sorted({(s["batch"], s["prompt_tokens"]) for s in samples})
    usual: dict[tuple[int, int, int], list[int]] = {}
    for batch, prompt, repeats in {(s["batch"], s["prompt_tokens"], s["repeats"]) for s in samples}:
        same = [s for s in samples if (s["batch"], s["prompt_tokens"], s["repeats"]) == (batch, prompt, repeats)]
        votes = {(s["peer"], tuple(s["head_ids"])) for s in same}
        usual[batch, prompt, repeats] = list(Counter(ids for _, ids in sorted(votes)).most_common(1)[0][0])
    lines = ["| engine | " + " | ".join(f"batch {batch}, {prompt} tokens" for batch, prompt in asked) + " |"]
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
    return next((n for n, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), min(len(ids), len(others)))


def noise_lines(samples: Sequence[Sample], table: Mapping[Setting, Sequence[Figures]]) -> list[str]:
    """What the machine did meanwhile."""
    several = [found for engines in table.values() for found in engines if found.n_kept > 1]
    spreads = [(found.high - found.low) / found.decode for found in several]
    n_disturbed = sum(sample["foreign_cores"] >= DISTURBED for sample in samples)
    spread = "- One round only: the spread is not known."
    if spreads:
        spread = (
            "- Fastest less slowest round, as a share of the median: "
            f"{statistics.median(spreads):.0%} for the median engine and setting, {max(spreads):.0%} for the worst."
        )
    lines = [
        spread,
        f"- {n_disturbed} of {len(samples)} samples met another process that used {DISTURBED} cores or more; "
        f"the busiest used {max(sample['foreign_cores'] for sample in samples):.2f}.",
    ]
    for threads, (middle, low, high) in bandwidths(samples).items():
        lines.append(
            f"- Reading 120 MB with {threads} thread{'s' * (threads > 1)}: {middle:.1f} GB/s ({low:.1f}–{high:.1f})."
        )
    return lines


def plot(path: Path, table: Mapping[Setting, Sequence[Figures]]) -> None:
    """Write a PNG: decode tokens/s above, time to the first token below, a column per setting, ours in colour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(table), figsize=(3.4 * len(table), 6.4), squeeze=False, layout="constrained")
    for column, ((batch, threads, prompt), engines) in enumerate(table.items()):
        slowest_first = list(reversed(engines))
        names = [found.engine for found in slowest_first]
        colours = ["#d1495b" if found.is_ours else "#8d99ae" for found in slowest_first]
        speeds = [found.decode for found in slowest_first]
        reach = [
            [found.decode - found.low for found in slowest_first],
            [found.high - found.decode for found in slowest_first],
        ]
        axes[0, column].barh(names, speeds, xerr=reach, color=colours, error_kw={"lw": 0.8, "ecolor": "#333333"})
        axes[0, column].set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)}, prompt {prompt}", fontsize=9)
        axes[0, column].set_xlabel("decode tokens/s", fontsize=8)
        axes[1, column].barh(names, [found.first_token_ms for found in slowest_first], color=colours)
        axes[1, column].set_xlabel("first token, ms", fontsize=8)
        for row in (0, 1):
            axes[row, column].tick_params(labelsize=7)
            axes[row, column].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
