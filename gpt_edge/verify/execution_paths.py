"""The ways a prompt can take through one model: whole, step by step, in chunks, in a batch, split,
rewound, to the brim.

Each must give the same logits as the whole prompt at once. How many are tried is the caller's
choice of an effort.
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


def paths(
    session: Runner, probe_list: Sequence[Probe], effort: Effort = "export"
) -> Iterator[tuple[str, Agreement]]:
    """Name of each way, and how it agrees with the whole prompt at once.

    "export": step by step, two sizes of chunks, a ragged batch, rewinding. "verify": also larger
    chunks, every split of a small prompt, and a context read to its last token. "full": every split
    of the whole prompts, the context token by token and in every size of chunks.
    """
    short = [p for p in probe_list if p.first_row == 0]
    whole = [probe_logits(session, p) for p in short]
    yield "step by step", compare(short, whole, [probe_logits(session, p, 1) for p in short])
    for chunk in CHUNKS[effort]:
        yield (
            f"chunks of {chunk}",
            compare(short, whole, [probe_logits(session, p, chunk) for p in short]),
        )
    if session.config.n_ctx > 1:
        two = [
            Probe(f"{p.name} {i}", p.ids[i * 3 :] if p.ids.size > 12 else p.ids)
            for p in short
            for i in range(2)
        ]
        cut, logits = answer_in_batch(session, two)
        yield "batch", compare(cut, [probe_logits(session, p) for p in cut], logits)
        yield "rewind", compare(short, whole, [_rewound(session, p) for p in short])
    if effort == "export":
        return
    if session.config.n_ctx > 1:
        yield (
            "every split",
            _split_everywhere(session, short, None if effort == "full" else N_SPLIT),
        )
    yield from _long(session, [p for p in probe_list if p.first_row], effort)


def _long(
    session: Runner, probe_list: Sequence[Probe], effort: Effort
) -> Iterator[tuple[str, Agreement]]:
    """Prompts that fill the context, of which only the last rows are compared."""
    if not probe_list:
        return
    whole = [probe_logits(session, p) for p in probe_list]
    yield "full context", compare(probe_list, whole, [_last_steps(session, p) for p in probe_list])
    if effort == "full":
        for chunk in (1, *CHUNKS[effort]):
            found = [probe_logits(session, p, chunk) for p in probe_list]
            yield f"full context, chunks of {chunk}", compare(probe_list, whole, found)


def _last_steps(session: Runner, probe: Probe) -> FloatArray:
    """Chunks up to the last N_LAST_STEPS tokens, then one at a time."""
    cache, steps_from = session.new_cache(), max(probe.first_row, probe.ids.size - N_LAST_STEPS)
    rows = []
    starts = [*range(0, steps_from, CHUNKS["verify"][-1]), *range(steps_from, probe.ids.size)]
    for start, stop in zip(starts, [*starts[1:], probe.ids.size], strict=True):
        logits = session.forward(probe.ids[None, start:stop], cache, "all")
        rows.append(logits[0][max(0, probe.first_row - start) :].copy())
    return np.concatenate(rows)


def _split_everywhere(session: Runner, probe_list: Sequence[Probe], limit: int | None) -> Agreement:
    """A prefix, then the rest, at every place: the rest's first, middle and last row against the
    whole's.
    """
    probes, wanted, found = [], [], []
    for probe in probe_list:
        ids = probe.ids[:limit]
        whole = probe_logits(session, Probe(probe.name, ids))
        for split in range(1, ids.size):
            cache = session.new_cache()
            session.forward(ids[None, :split], cache, "last")
            n_rest = ids.size - split
            rows = sorted({0, n_rest // 2, n_rest - 1})
            rest = session.forward(ids[None, split:], cache, rows)[0].copy()
            probes += [Probe(f"{probe.name}, split at {split}", ids, split + row) for row in rows]
            wanted += [whole[split + row : split + row + 1] for row in rows]
            found += [rest[index : index + 1] for index in range(len(rows))]
    return compare(probes, wanted, found)


def answer_in_batch(
    session: Runner, probe_list: Sequence[Probe], n_steps: int = 24
) -> tuple[list[Probe], list[FloatArray]]:
    """Several prompts of different lengths, continued together token by token.

    Returns the probes cut to what was run, and the logits of the rows that the batch computed.
    """
    longest = min(probe.ids.size for probe in probe_list)
    n_steps = min(n_steps, longest - 1)
    lengths = [max(1, longest - n_steps - 5 * i) for i in range(len(probe_list))]
    batch = session.new_cache(len(probe_list))
    for row, (probe, length) in enumerate(zip(probe_list, lengths, strict=True)):
        session.forward(probe.ids[None, :length], batch, "last", row=row)
    steps = []
    for step in range(n_steps):
        ids = np.array(
            [[p.ids[n + step]] for p, n in zip(probe_list, lengths, strict=True)], np.int64
        )
        steps.append(session.forward(ids, batch, "last")[:, 0].copy())
    cut = [Probe(p.name, p.ids[: n + n_steps], n) for p, n in zip(probe_list, lengths, strict=True)]
    return cut, [np.stack([step[row] for step in steps]) for row in range(len(cut))]


def _rewound(session: Runner, probe: Probe) -> FloatArray:
    """Read the probe, go back to its middle, read something else, go back again, and read on."""
    cache, middle = session.new_cache(), probe.ids.size // 2
    first: FloatArray = session.forward(probe.ids[None], cache, "all")[0].copy()
    if middle == 0:
        return first
    cache.crop(middle)
    session.forward(probe.ids[None, ::-1][:, : min(5, middle)], cache, "last")
    cache.crop(middle)
    rest: FloatArray = session.forward(probe.ids[None, middle:], cache, "all")[0]
    return np.concatenate((first[:middle], rest))
