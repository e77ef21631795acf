"""The goals of a 124M bundle beside its peers, each as a figure, what was wanted, and whether it
holds. Each kind of CPU has goals of its own.

Only what the samples can tell: a goal whose settings or peers were not measured does not appear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from speed_figures import BASELINE, Figures, Setting, best_peer, roofline

BATCH = 1.3  # × best peer, all rows together
READY_SECONDS = 0.4
DISK_MB = 145.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The goals on one kind of CPU; what is empty or None is no goal there."""

    decode: Mapping[tuple[int, int], float]  # × best peer, by bits and prompt
    first_token: Mapping[tuple[int, int], float]  # × the earliest peer's, by threads and prompt
    first_token_of: str | None = None  # the peer that counts for it; None: the earliest of 8 bits
    first_token_ms: Mapping[int, float] = field(default_factory=dict)  # two threads, by prompt
    optimum: float | None = None  # decode × what a user does today
    roofline: Mapping[int, float] = field(default_factory=dict)  # share of it, by threads
    rss_of_bundle: float | None = None  # peak RSS × the bundle
    rss_mb: float | None = None


AVX512 = Wanted(
    decode={(8, 32): 1.5, (8, 512): 1.4, (4, 32): 1.3, (4, 512): 1.3},
    first_token={(2, 32): 15 / 18, (2, 512): 0.9},
    optimum=3.0,
    roofline={1: 0.8, 2: 0.6},
    rss_of_bundle=1.3,
)
WANTED = {
    "avx512": AVX512,
    "amx": AVX512,
    "avx2": Wanted(
        decode={(8, 32): 1.5, (8, 512): 1.5, (4, 32): 1.4, (4, 512): 1.4},
        first_token={(1, 512): 0.8, (2, 512): 0.8},
        first_token_of="ct2-int8",
        first_token_ms={32: 40.0},
        rss_mb=230.0,
    ),
}


def wanted_on(kind: str) -> Wanted:
    """The goals on a kind of CPU as `speed_machine.cpu_kind` names it; AVX2's for those that have
    none.
    """
    return WANTED.get(kind, WANTED["avx2"])


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal of one bundle."""

    engine: str
    what: str
    found: str
    wanted: str
    holds: bool


def goals(
    table: Mapping[Setting, Sequence[Figures]], gb_s: Mapping[int, float], wanted: Wanted
) -> list[Goal]:
    """Every goal that the medians can answer, of the bundles that ran with gpt-edge's operators, or
    of all where none did. gb_s: the median bandwidth by threads.
    """
    found = []
    ours = [figures for engines in table.values() for figures in engines if figures.is_ours]
    is_native = any(figures.is_native for figures in ours)
    for setting, engines in table.items():
        for figures in engines:
            if figures.is_ours and figures.is_native == is_native and figures.bits is not None:
                found += list(_speed(figures, setting, engines, gb_s.get(setting[1]), wanted))
                found += list(_first_token(figures, setting, engines, wanted))
                found += list(_size(figures, setting, engines, wanted))
    return sorted(found, key=lambda goal: goal.engine)


def goals_table(found: Sequence[Goal]) -> str:
    """As Markdown; a goal that is missed says so in bold."""
    lines = ["| bundle | measure | measured | goal | met |", "|---|---|---|---|---|"]
    for goal in found:
        cells = (goal.engine, goal.what, goal.found, goal.wanted, "yes" if goal.holds else "**no**")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _where(setting: Setting) -> str:
    batch, threads, prompt = setting
    return f"t{threads} p{prompt}" if batch == 1 else f"batch {batch}, t{threads} p{prompt}"


def _speed(
    ours: Figures,
    setting: Setting,
    engines: Sequence[Figures],
    gb_s: float | None,
    wanted: Wanted,
) -> Iterator[Goal]:
    batch, threads, prompt = setting
    where = _where(setting)
    best = best_peer(engines, ours.bits)
    factor = BATCH if ours.bits == 8 else None
    if batch == 1:
        factor = wanted.decode.get((ours.bits or 0, prompt))
    if best and factor:
        needed = _of_roofline(ours, setting, factor * best.decode, gb_s)
        yield _at_least(
            ours, f"decode {where}, × {best.engine}", ours.decode / best.decode, factor, needed
        )
    if batch != 1 or ours.bits != 8:
        return
    baseline = next((peer for peer in engines if peer.engine == BASELINE), None)
    if baseline and wanted.optimum:
        needed = _of_roofline(ours, setting, wanted.optimum * baseline.decode, gb_s)
        ratio = ours.decode / baseline.decode
        yield _at_least(ours, f"decode {where}, × {BASELINE}", ratio, wanted.optimum, needed)
    if gb_s is not None and threads in wanted.roofline:
        share = roofline(ours, setting, gb_s)
        limit = wanted.roofline[threads]
        yield Goal(
            ours.engine, f"roofline {where}", f"{share:.0%}", f"≥ {limit:.0%}", share >= limit
        )


def _first_token(
    ours: Figures, setting: Setting, engines: Sequence[Figures], wanted: Wanted
) -> Iterator[Goal]:
    batch, threads, prompt = setting
    if batch != 1 or ours.bits != 8:
        return
    where = _where(setting)
    first = best_peer(engines, 8, first_token=True)
    if wanted.first_token_of:
        first = next((peer for peer in engines if peer.engine == wanted.first_token_of), None)
    if first and (factor := wanted.first_token.get((threads, prompt))):
        name = f"first token {where}, ms ({first.engine}: {first.first_token_ms:.1f})"
        yield _at_most(ours, name, ours.first_token_ms, factor * first.first_token_ms, ".1f")
    if threads == 2 and prompt in wanted.first_token_ms:
        limit = wanted.first_token_ms[prompt]
        yield _at_most(ours, f"first token {where}, ms", ours.first_token_ms, limit, ".1f")


def _size(
    ours: Figures, setting: Setting, engines: Sequence[Figures], wanted: Wanted
) -> Iterator[Goal]:
    """Once, at batch 1, two threads and the longest prompt: the memory of everything that was run
    before.
    """
    batch, threads, prompt = setting
    if batch != 1 or threads != 2 or ours.bits != 8 or prompt != 512:
        return
    yield _at_most(ours, "ready after, s", ours.load_seconds, READY_SECONDS, ".2f")
    if wanted.rss_of_bundle:
        what = f"peak RSS, MB, against {wanted.rss_of_bundle} × the bundle"
        yield _at_most(ours, what, ours.peak_rss_mb, wanted.rss_of_bundle * ours.disk_mb, ".0f")
    if wanted.rss_mb:
        yield _at_most(ours, "peak RSS, MB", ours.peak_rss_mb, wanted.rss_mb, ".0f")
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
