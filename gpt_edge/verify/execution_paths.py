"""The execution paths of a prompt through one model: at once, step by step, in chunks, in a batch,
split, rewound, and to the end of the context.

Each must give the logits of the whole prompt at once. How many are run is the caller's choice of an
effort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.verify.parity import (
    Agreement,
    Probe,
    Runner,
    compare,
    probe_logits,
    spread_rows,
    walk,
)

Effort = Literal["export", "verify", "full"]

CHUNKS: dict[Effort, tuple[int, ...]] = {  # tokens at a time; step by step is a chunk of one
    "export": (7, 37),
    "verify": (7, 37, 64, 128),
    "full": (7, 37, 64, 128, 512),
}
N_SPLIT = 24  # tokens of the prompt that is split everywhere, but for the effort "full"
# parameters times positions: single steps through the whole context take a second or two
MAX_WALK = 4_000_000_000
N_STEPS = 80  # of a context that is too long for single steps


def execution_paths(
    session: Runner, probe_list: Sequence[Probe], effort: Effort = "export"
) -> Iterator[tuple[str, Agreement]]:
    """Name of each path, and how it agrees with the whole prompt at once.

    "export": step by step, two sizes of chunks, a ragged batch, rewinding. "verify": also larger
    chunks, every split of a small prompt, and a context processed to its end, token by token where
    that takes no more than MAX_WALK, else with steps at places all over it. "full": every split of
    the whole prompts, the context token by token and in every size of chunks.
    """
    short = [p for p in probe_list if not p.fills_context]
    whole = [probe_logits(session, p) for p in short]
    yield "step by step", compare(short, whole, [probe_logits(session, p, 1) for p in short])
    for chunk in CHUNKS[effort]:
        chunked = [probe_logits(session, p, chunk) for p in short]
        yield f"chunks of {chunk}", compare(short, whole, chunked)
    can_split = session.config.n_ctx > 1
    if can_split:
        run, logits = batch_logits(session, _two_of_each(short))
        yield "batch", compare(run, [probe_logits(session, p) for p in run], logits)
        yield "rewind", compare(short, whole, [_rewound(session, p) for p in short])
    if effort == "export":
        return
    if can_split:
        limit = None if effort == "full" else N_SPLIT
        yield "every split", _split_everywhere(session, short, limit)
    yield from _full_context(session, [p for p in probe_list if p.fills_context], effort)


def _two_of_each(probe_list: Sequence[Probe]) -> list[Probe]:
    """Each probe twice, the second time without its first three tokens where it is long enough."""
    pairs = []
    for probe in probe_list:
        for number in range(2):
            ids = probe.ids[3 * number :] if probe.ids.size > 12 else probe.ids
            pairs.append(Probe(f"{probe.name} {number}", ids))
    return pairs


def _full_context(
    session: Runner, probe_list: Sequence[Probe], effort: Effort
) -> Iterator[tuple[str, Agreement]]:
    """Prompts that fill the context, with single steps behind a cache of every length."""
    if not probe_list:
        return
    config = session.config
    whole = [probe_logits(session, p) for p in probe_list]
    is_walked = config.n_parameters * config.n_ctx <= MAX_WALK
    stepped = [walk(session, p, _starts(p, all_steps=is_walked)) for p in probe_list]
    yield "full context", compare(probe_list, whole, stepped)
    if effort == "full":
        sizes = CHUNKS[effort] if is_walked else (1, *CHUNKS[effort])
        for chunk in sizes:
            chunked = [probe_logits(session, p, chunk) for p in probe_list]
            yield f"full context, chunks of {chunk}", compare(probe_list, whole, chunked)


def _starts(probe: Probe, *, all_steps: bool) -> list[int]:
    """Where the calls of a walk through the context begin: single steps over every compared window,
    all_steps: everywhere; chunks between them.
    """
    if all_steps:
        return list(range(probe.ids.size))
    rows = set(probe.compared_rows)
    if len(rows) == probe.ids.size:  # few steps of a context whose every row is compared
        rows = set(spread_rows(probe.ids.size, N_STEPS))
    starts = [0]
    for position in range(1, probe.ids.size):
        is_single = position in rows or position - 1 in rows
        if is_single or position - starts[-1] == CHUNKS["verify"][-1]:
            starts.append(position)
    return starts


def _split_everywhere(session: Runner, probe_list: Sequence[Probe], limit: int | None) -> Agreement:
    """A prefix, then the rest, split after every token: the first, middle and last row of the rest
    against those of the whole. limit: tokens of a probe; None takes all.
    """
    rows_compared: list[Probe] = []
    expected: list[FloatArray] = []
    actual: list[FloatArray] = []
    for probe in probe_list:
        ids = probe.ids[:limit]
        whole = probe_logits(session, Probe(probe.name, ids))
        for split in range(1, ids.size):
            cache = session.new_cache()
            session.forward(ids[None, :split], cache, "last")
            n_rest = ids.size - split
            rows = sorted({0, n_rest // 2, n_rest - 1})
            rest = session.forward(ids[None, split:], cache, rows)[0].copy()
            for index, row in enumerate(rows):
                rows_compared.append(Probe(f"{probe.name}, split at {split}", ids, (split + row,)))
                expected.append(whole[split + row : split + row + 1])
                actual.append(rest[index : index + 1])
    return compare(rows_compared, expected, actual)


def batch_logits(
    session: Runner, probe_list: Sequence[Probe], n_steps: int = 24
) -> tuple[list[Probe], list[FloatArray]]:
    """Run several prompts of different lengths, continued together token by token.

    Returns the probes truncated to what was run, and the logits of the rows that the batch
    computed.
    """
    longest = min(probe.ids.size for probe in probe_list)
    n_steps = min(n_steps, longest - 1)
    lengths = [max(1, longest - n_steps - 5 * i) for i in range(len(probe_list))]
    cache = session.new_cache(len(probe_list))
    for row, (probe, length) in enumerate(zip(probe_list, lengths, strict=True)):
        session.forward(probe.ids[None, :length], cache, "last", row=row)
    pairs = list(zip(probe_list, lengths, strict=True))
    steps = []
    for step in range(n_steps):
        ids = np.array([[probe.ids[length + step]] for probe, length in pairs], np.int64)
        steps.append(session.forward(ids, cache, "last")[:, 0].copy())
    run = [
        Probe(probe.name, probe.ids[: length + n_steps], tuple(range(length, length + n_steps)))
        for probe, length in pairs
    ]
    return run, [np.stack([step[row] for step in steps]) for row in range(len(run))]


def _rewound(session: Runner, probe: Probe) -> FloatArray:
    """Process the probe, go back to its middle, process other tokens, go back, and process the
    rest again.
    """
    cache = session.new_cache()
    middle = probe.ids.size // 2
    whole: FloatArray = session.forward(probe.ids[None], cache, "all")[0].copy()
    if middle == 0:
        return whole
    cache.crop(middle)
    session.forward(probe.ids[None, ::-1][:, : min(5, middle)], cache, "last")
    cache.crop(middle)
    rest: FloatArray = session.forward(probe.ids[None, middle:], cache, "all")[0]
    return np.concatenate((whole[:middle], rest))
