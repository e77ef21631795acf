"""The time of a token by operator, from onnxruntime's profiler.

The profiler writes every operator of every run to a file, which is read and deleted. It adds up to
15 microseconds per operator, most of it between operators: as much as a small operator takes. A
report therefore shows the time without the profiler as well.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.bench.figures import Engine, ProfileRow
from gpt_edge.bench.measure import clocked_runs
from gpt_edge.bench.plan import Case
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime.session import Session

MAX_STEPS = 64  # profiled tokens: a file of some MB
BESIDES = "(between operators)"
MICROSECONDS = 1e-6

Event = dict[str, Any]


def profile(bundle: Bundle, engine: Engine, cases: Iterable[Case]) -> list[ProfileRow]:
    """Run each case of batch 1 once, after a warm-up, and return the time of its operators, the
    slowest first.

    Operators that compute the logits are counted separately, as "MatMul (head)". Calls and seconds
    are per prompt or per token.
    """
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="gpt-edge-") as folder:
            session = Session(bundle, threads=engine.threads, profile=Path(folder) / "profile")
            n_units, n_runs = _run(session, case)
            events = json.loads(session.end_profile().read_text("utf-8"))
        rows += _rows(engine, case, events, n_runs, n_units, bundle.config.vocab_size)
    return rows


def _run(session: Session, case: Case) -> tuple[int, int]:
    """Run the case twice. Return the prompts or tokens of the second time, and its runs of the
    graph.
    """
    n_tokens = case.n_tokens if case.kind == "prefill" else min(case.n_tokens, MAX_STEPS)
    random = np.random.default_rng(0)
    n_runs = 0
    for _ in range(2):  # the first warms up
        cache = session.new_cache()
        if case.n_past:
            session.forward(random.integers(0, session.config.vocab_size, (1, case.n_past)), cache)
        ids = random.integers(0, session.config.vocab_size, (1, n_tokens))
        with clocked_runs(session) as runs:
            if case.kind == "prefill":
                session.forward(ids, cache)
            else:
                for id in ids[0].tolist():
                    session.decode([id], cache)
        n_runs = len(runs)
    return (1 if case.kind == "prefill" else n_tokens), n_runs


def _rows(
    engine: Engine, case: Case, events: Sequence[Event], n_runs: int, n_units: int, vocab_size: int
) -> list[ProfileRow]:
    """Return the sums over the last `n_runs` runs of the graph, divided by `n_units`."""
    runs = sorted((event for event in events if event.get("name") == "model_run"), key=_start)[
        -n_runs:
    ]
    started = _start(runs[0])
    total = sum(event["dur"] for event in runs)
    calls: dict[str, int] = defaultdict(int)
    times: dict[str, float] = defaultdict(float)
    for event in events:
        if (
            event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and _start(event) >= started
        ):
            operator = _operator(event, vocab_size)
            calls[operator] += 1
            times[operator] += event["dur"]
    calls[BESIDES], times[BESIDES] = n_runs, max(0.0, total - sum(times.values()))
    return [
        ProfileRow(
            engine,
            case.name,
            name,
            calls[name] / n_units,
            times[name] / n_units * MICROSECONDS,
            times[name] / total,
        )
        for name in sorted(times, key=lambda name: -times[name])
    ]


def _start(event: Event) -> int:
    return int(event["ts"])


def _operator(event: Event, vocab_size: int) -> str:
    """Return the operator's name; an output as wide as the vocabulary marks the head."""
    details = event.get("args", {})
    name = str(details.get("op_name", "?"))
    shapes = [shape for output in details.get("output_type_shape", ()) for shape in output.values()]
    return f"{name} (head)" if any(shape and shape[-1] == vocab_size for shape in shapes) else name
