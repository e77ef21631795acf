"""How many threads to use: the CPUs this process may run on, less what its control group holds
back.

A container with half a CPU on a 64-core machine must not start 64 threads. Linux's affinity and
cgroup files (v2 `cpu.max`, v1 `cpu.cfs_quota_us`) are read; elsewhere the CPU count decides. Knows
nothing of onnxruntime.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MAX_DEFAULT_THREADS = 16  # a small GPT's matrices do not feed more
MAX_THREADS = 256  # onnxruntime starts as many as it is told to, and the machine stands still


def check_threads(threads: int, name: str = "threads") -> None:
    """Raise ValueError, which says `name`, unless `threads` is a whole number from 1 to 256."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_THREADS}, got {threads!r}")


def default_threads() -> int:
    """At least 1: the smallest of physical cores this process may use, the cgroup's quota rounded
    down, and 16.
    """
    cpus = available_cpus()
    limit = cgroup_cpus(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    cores = physical_cores(cpus, Path("/sys/devices/system/cpu"))
    return max(1, min(cores, MAX_DEFAULT_THREADS, cores if limit is None else int(limit)))


def available_cpus() -> frozenset[int]:
    """The CPU numbers this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cpus: frozenset[int], topology: Path) -> int:
    """Cores behind `cpus`: two hyperthreads share one set of arithmetic units, and a second thread
    there only gets in the way of matrix products. Counts `cpus` themselves where the topology
    cannot be read.
    """
    cores = set()
    for cpu in cpus:
        try:
            cores.add((topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            return len(cpus)
    return len(cores)


def big_cores(
    cpus: frozenset[int] | None = None, topology: Path = Path("/sys/devices/system/cpu")
) -> tuple[int, ...]:
    """The fastest of `cpus` (by default those of this process), in order, where they differ; empty
    where all are alike or the system does not say (`cpu_capacity`, Linux on Arm).
    """
    capacities: dict[int, int] = {}
    for cpu in available_cpus() if cpus is None else cpus:
        try:
            capacities[cpu] = int((topology / f"cpu{cpu}" / "cpu_capacity").read_text())
        except (OSError, ValueError):
            return ()
    if len(set(capacities.values())) < 2:
        return ()
    # A phone has one core that is a little faster than the other big ones.
    enough = 0.7 * max(capacities.values())
    return tuple(sorted(cpu for cpu, capacity in capacities.items() if capacity >= enough))


def cgroup_cpus(membership: Path, root: Path) -> float | None:
    """The CPU time per second that the control groups of this process allow; None without a limit.

    A limit of any group above counts too. Unreadable or unknown files are no limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = [limit for line in lines for limit in _limits(line, root)]
    return min(limits, default=None)


def _limits(line: str, root: Path) -> Iterator[float]:
    """Limits along one line of /proc/self/cgroup, `hierarchy:controllers:path`; version 2 has no
    controllers.
    """
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if controllers and "cpu" not in controllers.split(","):
        return
    top = root / controllers if controllers else root
    group = top / path.lstrip("/")
    for folder in (group, *group.parents):
        limit = _quota_v1(folder) if controllers else _quota_v2(folder)
        if limit is not None:
            yield limit
        if folder == top:
            break


def _quota_v2(folder: Path) -> float | None:
    return _ratio(*_fields(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float | None:
    return _ratio(*_fields(folder / "cpu.cfs_quota_us"), *_fields(folder / "cpu.cfs_period_us"))


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _ratio(*fields: str) -> float | None:
    """Quota by period, both in microseconds; "max" and -1 are no limit."""
    if len(fields) != 2 or not all(field.isdecimal() for field in fields) or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])
