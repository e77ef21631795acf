"""The goals of a 124M bundle beside its peers, each as a figure, what was wanted, and whether it
holds.

Only what the samples can tell: a goal whose settings or peers were not measured does not appear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from speed_figures import BASELINE, Figures, Setting, best_peer, roofline

# × best peer, by bits and prompt
DECODE = {(8, 32): 1.5, (8, 512): 1.4, (4, 32): 1.3, (4, 512): 1.3}
OPTIMUM = 3.0  # × what a user does today
ROOFLINE = {1: 0.8, 2: 0.6}  # by threads
FIRST_TOKEN = {32: 15 / 18, 512: 0.9}  # × best int8 peer, two threads, by prompt
BATCH = 1.3  # × best peer, all rows together
READY_SECONDS = 0.4
RSS = 1.3  # × the bundle
DISK_MB = 145.0


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal of one bundle."""

    engine: str
    what: str
    found: str
    wanted: str
    holds: bool


def goals(table: Mapping[Setting, Sequence[Figures]], gb_s: Mapping[int, float]) -> list[Goal]:
    """Every goal that the medians can answer. gb_s: the median bandwidth by threads."""
    found = []
    for setting, engines in table.items():
        for ours in engines:
            if ours.is_ours and ours.bits is not None:
                found += list(_speed(ours, setting, engines, gb_s.get(setting[1])))
                found += list(_size(ours, setting, engines))
    return sorted(found, key=lambda goal: goal.engine)


def goals_table(found: Sequence[Goal]) -> str:
    """As Markdown; a goal that is missed says so in bold."""
    lines = ["| bundle | measure | measured | goal | met |", "|---|---|---|---|---|"]
    for goal in found:
        cells = (goal.engine, goal.what, goal.found, goal.wanted, "yes" if goal.holds else "**no**")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _speed(
    ours: Figures, setting: Setting, engines: Sequence[Figures], gb_s: float | None
) -> Iterator[Goal]:
    batch, threads, prompt = setting
    where = f"t{threads} p{prompt}" if batch == 1 else f"batch {batch}, t{threads} p{prompt}"
    best = best_peer(engines, ours.bits)
    factor = (
        DECODE.get((ours.bits or 0, prompt)) if batch == 1 else BATCH if ours.bits == 8 else None
    )
    if best and factor:
        needed = _of_roofline(ours, setting, factor * best.decode, gb_s)
        yield _at_least(
            ours, f"decode {where}, × {best.engine}", ours.decode / best.decode, factor, needed
        )
    if batch != 1 or ours.bits != 8:
        return
    baseline = next((peer for peer in engines if peer.engine == BASELINE), None)
    if baseline:
        needed = _of_roofline(ours, setting, OPTIMUM * baseline.decode, gb_s)
        yield _at_least(
            ours, f"decode {where}, × {BASELINE}", ours.decode / baseline.decode, OPTIMUM, needed
        )
    if gb_s is not None and threads in ROOFLINE:
        share = roofline(ours, setting, gb_s)
        limit = ROOFLINE[threads]
        yield Goal(
            ours.engine, f"roofline {where}", f"{share:.0%}", f"≥ {limit:.0%}", share >= limit
        )
    first = best_peer(engines, 8, first_token=True)
    if first and threads == 2 and prompt in FIRST_TOKEN:
        name = f"first token {where}, ms ({first.engine}: {first.first_token_ms:.1f})"
        yield _at_most(
            ours, name, ours.first_token_ms, FIRST_TOKEN[prompt] * first.first_token_ms, ".1f"
        )


def _size(ours: Figures, setting: Setting, engines: Sequence[Figures]) -> Iterator[Goal]:
    """Once, at batch 1, two threads and the longest prompt: the memory of everything that was run
    before.
    """
    batch, threads, prompt = setting
    if batch != 1 or threads != 2 or ours.bits != 8 or prompt != 512:
        return
    yield _at_most(ours, "ready after, s", ours.load_seconds, READY_SECONDS, ".2f")
    yield _at_most(
        ours, "peak RSS, MB, against 1.3 × the bundle", ours.peak_rss_mb, RSS * ours.disk_mb, ".0f"
    )
    peers = [peer for peer in engines if not peer.is_ours and peer.bits == 8]
    if peers:
        least = min(peers, key=lambda peer: peer.peak_rss_mb)
        name = f"peak RSS, MB, against every int8 peer's ({least.engine})"
        yield _at_most(ours, name, ours.peak_rss_mb, least.peak_rss_mb, ".0f")
    yield _at_most(ours, "disk, MB", ours.disk_mb, DISK_MB, ".0f")


def _of_roofline(ours: Figures, setting: Setting, decode: float, gb_s: float | None) -> str:
    """What share of the bandwidth so many tokens/s would take, in words; nothing for batches, which
    share their reads.
    """
    if gb_s is None or setting[0] != 1:
        return ""
    return f" ({roofline(replace(ours, decode=decode), setting, gb_s):.0%} of the roofline)"


def _at_least(ours: Figures, what: str, found: float, limit: float, needed: str) -> Goal:
    return Goal(ours.engine, what, f"{found:.2f}", f"≥ {limit:g}{needed}", found >= limit)


def _at_most(ours: Figures, what: str, found: float, limit: float, spec: str) -> Goal:
    return Goal(ours.engine, what, format(found, spec), f"≤ {limit:{spec}}", found <= limit)
