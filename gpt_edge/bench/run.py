"""The rounds: several bundles in alternation, so that a slow moment of the machine affects all of
them.

The numbers of threads follow one another, because each needs its own sessions. Each round runs the
cases in the same order. The bundles of a case run one right after the other, in an order that
reverses from round to round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gpt_edge.bench.bandwidth import ReadProbe
from gpt_edge.bench.energy import find_counters, joules_per_token
from gpt_edge.bench.figures import (
    BenchReport,
    EnergyRow,
    Engine,
    LoopRow,
    ProfileRow,
    SpeedRow,
    Spread,
    StartRow,
    spread,
)
from gpt_edge.bench.machine import describe_machine
from gpt_edge.bench.measure import GREEDY, TOP_K_PARAMS, Model
from gpt_edge.bench.plan import Case, Plan
from gpt_edge.bench.process import Start, start_process
from gpt_edge.bench.profile import profile
from gpt_edge.bundle.bundle import Bundle

PROBES = 3  # of the bandwidth in each round
FALLBACK_BUFFER = 100_000_000  # bytes, where the size of the weights is not known

Progress = Callable[[str], None]


def bench(
    bundles: Sequence[Bundle],
    plan: Plan,
    *,
    with_profile: bool = False,
    with_energy: bool = False,
    progress: Progress = lambda stage: None,
) -> BenchReport:
    """Measure every bundle by the plan; ratios are to the first one. progress: called with the name
    of each stage.

    Raises, before any work, ValueError without a bundle and ContextLengthError for a case that does
    not fit.
    """
    if not bundles:
        raise ValueError("at least one bundle is required")
    labels = _labels(bundles)
    for bundle, label in zip(bundles, labels, strict=True):
        plan.check_fits(label, bundle.config.n_ctx)
    speed: list[SpeedRow] = []
    start: list[StartRow] = []
    loop: list[LoopRow] = []
    profiles: list[ProfileRow] = []
    energy: list[EnergyRow] = []
    counters = find_counters() if with_energy else ()
    for threads in plan.threads:
        start += _measure_start(bundles, labels, threads, plan, progress)
        progress(f"loading with {threads} threads")
        speeds, loops = _measure_speed(
            [Model(bundle, label, threads) for bundle, label in zip(bundles, labels, strict=True)],
            plan,
            progress,
        )
        speed += speeds
        loop += loops
        for bundle, label in zip(bundles, labels, strict=True) if with_profile else ():
            progress(f"profiling {label} with {threads} threads")
            engine = Engine(label, bundle.scheme, bundle.graph, threads)
            profiles += profile(bundle, engine, [case for case in plan.cases() if case.batch == 1])
        for bundle, label in zip(bundles, labels, strict=True):
            if counters and not isinstance(counters, str):
                progress(f"energy of {label} with {threads} threads")
                engine = Engine(label, bundle.scheme, bundle.graph, threads)
                energy.append(EnergyRow(engine, joules_per_token(bundle, threads, counters)))
    return BenchReport(
        describe_machine(),
        plan,
        tuple(speed),
        tuple(start),
        tuple(loop),
        tuple(profiles),
        tuple(energy),
        counters if isinstance(counters, str) else "",
    )


def _labels(bundles: Sequence[Bundle]) -> list[str]:
    """Return distinct names. The same bundle may be given twice: the ratio then shows the noise."""
    labels: list[str] = []
    seen: Counter[str] = Counter()
    for bundle in bundles:
        name = bundle.manifest.name
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return labels


def _in_turn(n: int, n_round: int) -> Sequence[int]:
    return range(n) if n_round % 2 == 0 else range(n - 1, -1, -1)


def _measure_speed(
    models: Sequence[Model], plan: Plan, progress: Progress
) -> tuple[list[SpeedRow], list[LoopRow]]:
    """Measure all models at one number of threads."""
    cases = plan.cases()
    threads = models[0].engine.threads
    seconds: dict[tuple[int, Case], list[float]] = {
        (index, case): [] for index in range(len(models)) for case in cases
    }
    greedy: list[list[float]] = [[] for _ in models]
    top_k: list[list[float]] = [[] for _ in models]
    bandwidth = [0.0 for _ in models]
    probes = [ReadProbe(model.weight_bytes or FALLBACK_BUFFER, threads) for model in models]
    for n_round in range(-plan.warmup, plan.repetitions):
        title = f"round {n_round + 1} of {plan.repetitions}" if n_round >= 0 else "warm-up"
        for case in cases:
            for index in _in_turn(len(models), n_round):
                progress(f"{title}, {threads} threads: {case.name}, {models[index].engine.bundle}")
                elapsed = models[index].time(case)
                if n_round >= 0:
                    seconds[index, case].append(elapsed)
        for index in _in_turn(len(models), n_round) if n_round >= 0 else ():
            bandwidth[index] = max(
                bandwidth[index], *(probes[index].measure() for _ in range(PROBES))
            )
            if plan.new_tokens:
                greedy[index].append(models[index].loop_seconds(GREEDY))
                top_k[index].append(models[index].loop_seconds(TOP_K_PARAMS))
    speeds = [
        _speed_row(
            model,
            case,
            spread(seconds[index, case]),
            bandwidth[index],
            spread(seconds[0, case]),
            index == 0,
        )
        for case in cases
        for index, model in enumerate(models)
    ]
    loops = [
        LoopRow(
            model.engine,
            spread(greedy[index]),
            spread(top_k[index]),
            bandwidth[index],
            probes[index].n_bytes,
        )
        for index, model in enumerate(models)
        if plan.new_tokens
    ]
    return speeds, loops


def _speed_row(
    model: Model, case: Case, seconds: Spread, bandwidth: float, first: Spread, is_first: bool
) -> SpeedRow:
    speed = seconds.per(case.n_tokens * case.batch)
    n_bytes = model.bytes_per_token(case)
    return SpeedRow(
        engine=model.engine,
        batch=case.batch,
        test=case.name,
        depth=case.depth,
        n_tokens=case.n_tokens,
        tokens_per_second=speed,
        seconds=seconds,
        bytes_per_token=n_bytes,
        roofline_share=None if n_bytes is None else speed.median * n_bytes / bandwidth,
        ratio=None if is_first else first.over(seconds),
    )


def _measure_start(
    bundles: Sequence[Bundle], labels: Sequence[str], threads: int, plan: Plan, progress: Progress
) -> list[StartRow]:
    """Start a process for each bundle and round, and a first one that brings the files into the
    page cache.
    """
    n_prompt, n_context = plan.first_prompt, plan.n_context
    starts_of: list[list[Start]] = [[] for _ in bundles]
    for n_round in range(-1, plan.repetitions):
        for index in _in_turn(len(bundles), n_round):
            progress(f"starting {labels[index]} with {threads} threads")
            start = start_process(bundles[index], threads, n_prompt, n_context)
            if n_round >= 0:
                starts_of[index].append(start)
    rows: list[StartRow] = []
    for bundle, label, starts in zip(bundles, labels, starts_of, strict=True):
        ready = spread(start.ready for start in starts)
        peaks = [start.peak for start in starts if start.peak is not None]
        rows.append(
            StartRow(
                engine=Engine(label, bundle.scheme, bundle.graph, threads),
                ready_seconds=ready,
                interpreter_seconds=spread(start.interpreter for start in starts),
                imports_seconds=spread(start.imports for start in starts),
                model_seconds=spread(start.model for start in starts),
                first_token_seconds=spread(start.first_token for start in starts),
                prompt_tokens=n_prompt,
                peak_bytes=spread(peaks) if peaks else None,
                context_tokens=n_context,
                ratio=rows[0].ready_seconds.over(ready) if rows else None,
            )
        )
    return rows
