"""Is something slower than it was? Its time is divided by that of a reference that runs beside it,
and never looked at alone: how fast a machine is, and what else it does, cancels.

Work and reference alternate in pieces of a millisecond or two, each run once before it is timed, so
that both find their own memory in the caches. Time is the thread's own CPU time, in which the turns
of other processes do not count; so both must run in the calling thread, and what only waits is not
seen. The lower quartiles of many pieces are divided: with another process beside it a processor has
slow and fast spells, longer than a piece. What looks like a loss is measured again, as noise passes
and a loss stays.

Measured on two cores, decoding over its reference: 1.11 to 1.15 in a quiet machine, 1.17 to
1.26 (one of eight: 1.36) beside ten busy processes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

PIECES = 150  # of work and of reference in one measurement
ATTEMPTS = 4
# of speed. What must be found is 0.25; between them lies what is left of the noise
ALLOWED_LOSS = 0.20

Work = Callable[[], None]


@dataclass(frozen=True)
class Pair:
    """A piece of work and its reference, each of a millisecond or two. `prepare` runs before the
    work and is not timed.
    """

    name: str
    work: Work
    reference: Work
    prepare: Work = lambda: None


@dataclass(frozen=True)
class Verdict:
    """What came out. `ratios` holds one result for each attempt: seconds of the work over those of
    the reference.
    """

    name: str
    stored: float
    ratios: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The part of the speed that is gone, by the best attempt; negative where it
        became faster.
        """
        return 1 - self.stored / min(self.ratios)

    @property
    def is_loss(self) -> bool:
        """True if every attempt said so."""
        return self.loss > ALLOWED_LOSS

    def __str__(self) -> str:
        found = ", ".join(f"{ratio:.3f}" for ratio in self.ratios)
        return (
            f"{self.name}: {self.loss:+.0%} of the speed lost; {found} of the reference's time, "
            f"stored {self.stored:.3f}"
        )


def measure_ratio(pair: Pair, pieces: int = PIECES) -> float:
    """Seconds of the work over those of its reference."""
    work, reference = [], []
    for _ in range(pieces):
        pair.reference()
        reference.append(_seconds(pair.reference))
        pair.prepare()
        pair.work()
        work.append(_seconds(pair.work))
    return statistics.quantiles(work, n=4)[0] / statistics.quantiles(reference, n=4)[0]


def judge(pair: Pair, stored: float, pieces: int = PIECES) -> Verdict:
    """Measure until an attempt shows no loss, at most ATTEMPTS times."""
    ratios: list[float] = []
    while not ratios or (
        len(ratios) < ATTEMPTS and Verdict(pair.name, stored, tuple(ratios)).is_loss
    ):
        ratios.append(measure_ratio(pair, pieces))
    return Verdict(pair.name, stored, tuple(ratios))


def _seconds(work: Work) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started
