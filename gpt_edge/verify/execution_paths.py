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
from gpt_edge.verify.parity import Agreement, Probe, Runner, compare, probe_logits

Effort = Literal["export", "verify", "full"]

CHUNKS: dict[Effort, tuple[int, ...]] = {  # tokens at a time; step by step is a chunk of one
    "export": (7, 37),
    "verify": (7, 37, 64, 128),
    "full": (7, 37, 64, 128, 512),
}
N_SPLIT = 24  # tokens of the prompt that is split everywhere, but for the effort "full"
N_LAST_STEPS = 16  # tokens of a full context that are read one by one


def execution_paths(
    session: Runner, probe_list: Sequence[Probe], effort: Effort = "export"
) -> Iterator[tuple[str, Agreement]]:
    """Name of each path, and how it agrees with the whole prompt at once.

    "export": step by step, two sizes of chunks, a ragged batch, rewinding. "verify": also larger
    chunks, every split of a small prompt, and a context processed to its last token. "full": every
    split of the whole prompts, the context token by token and in every size of chunks.
    """
    short = [p for p in probe_list if p.first_row == 0]
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
    yield from _full_context(session, [p for p in probe_list if p.first_row], effort)


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
    """Prompts that fill the context, of which only the last rows are compared."""
    if not probe_list:
        return
    whole = [probe_logits(session, p) for p in probe_list]
    yield "full context", compare(probe_list, whole, [_last_steps(session, p) for p in probe_list])
    if effort == "full":
        for chunk in (1, *CHUNKS[effort]):
            chunked = [probe_logits(session, p, chunk) for p in probe_list]
            yield f"full context, chunks of {chunk}", compare(probe_list, whole, chunked)


def _last_steps(session: Runner, probe: Probe) -> FloatArray:
    """Chunks up to the last N_LAST_STEPS tokens, then one at a time."""
    cache = session.new_cache()
    n_tokens = probe.ids.size
    steps_from = max(probe.first_row, n_tokens - N_LAST_STEPS)
    starts = [*range(0, steps_from, CHUNKS["verify"][-1]), *range(steps_from, n_tokens)]
    rows = []
    for start, stop in zip(starts, [*starts[1:], n_tokens], strict=True):
        logits = session.forward(probe.ids[None, start:stop], cache, "all")
        rows.append(logits[0][max(0, probe.first_row - start) :].copy())
    return np.concatenate(rows)


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
                rows_compared.append(Probe(f"{probe.name}, split at {split}", ids, split + row))
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
    run = [Probe(probe.name, probe.ids[: length + n_steps], length) for probe, length in pairs]
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
