"""Tuning: how the runtime uses a machine. The default takes what is there; PHONE takes as little as
it can.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.system.threads import big_cores, default_threads

PREFILL_CHUNK = 256  # tokens; bounds the memory of a long prompt, and how long a cancellation waits


@dataclass(frozen=True, slots=True)
class Tuning:
    """max_threads: at most so many threads by default, and none on the small cores of a phone.
    is_spinning: whether a thread that waits within a run keeps its core busy for some microseconds.
    prefill_chunk: tokens of a prompt that are read at once.
    """

    max_threads: int | None = None
    is_spinning: bool = True
    prefill_chunk: int = PREFILL_CHUNK

    def threads(self) -> int:
        """How many threads where the caller says nothing."""
        if self.max_threads is None:
            return default_threads()
        n_big = len(big_cores()) or self.max_threads
        return min(default_threads(), self.max_threads, n_big)

    def worker_cores(self, threads: int) -> tuple[int, ...]:
        """The cores of all threads but the caller's own; none where the system has one kind of
        core, or decides better itself.
        """
        cores = big_cores() if self.max_threads is not None else ()
        return cores[1:threads] if len(cores) >= threads else ()


DEFAULT = Tuning()
# A chunk of 64 needs a quarter of the memory between layers, and is as fast on one or two cores.
PHONE = Tuning(max_threads=2, is_spinning=False, prefill_chunk=64)
TUNINGS = {"default": DEFAULT, "phone": PHONE}


def tuning_of(profile: str | None) -> Tuning:
    """The tuning of that name; None is the default. Raises ValueError for an unknown name."""
    if profile is None:
        return DEFAULT
    if not isinstance(profile, str) or profile not in TUNINGS:
        raise ValueError(f"profile must be one of {', '.join(TUNINGS)}, got {profile!r}")
    return TUNINGS[profile]
