"""The default thread count: affinity, hyperthreads and control groups, on made-up file trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt_edge.system import threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("200000 100000\n", 2.0),
        ("50000 100000", 0.5),
        ("max 100000", None),
        ("nonsense", None),
        ("1 0", None),
        ("", None),
    ],
)
def test_a_version_2_quota_is_read(tmp_path: Path, content: str, expected: float | None) -> None:
    write(tmp_path / "membership", "0::/a/b\n")
    write(tmp_path / "root" / "a" / "b" / "cpu.max", content)
    assert threads.cgroup_cpus(tmp_path / "membership", tmp_path / "root") == expected


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    write(tmp_path / "membership", "0::/a/b/c\n")
    write(tmp_path / "root" / "a" / "cpu.max", "150000 100000")
    write(tmp_path / "root" / "a" / "b" / "c" / "cpu.max", "max 100000")
    write(tmp_path / "root" / "cpu.max", "400000 100000")
    write(tmp_path / "cpu.max", "1000 100000")  # outside the root
    assert threads.cgroup_cpus(tmp_path / "membership", tmp_path / "root") == 1.5


def test_a_version_1_quota_is_read_from_its_own_hierarchy(tmp_path: Path) -> None:
    write(tmp_path / "membership", "5:memory:/x\n4:cpu,cpuacct:/x\n0::/\n")
    write(tmp_path / "root" / "cpu,cpuacct" / "x" / "cpu.cfs_quota_us", "300000\n")
    write(tmp_path / "root" / "cpu,cpuacct" / "x" / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "root" / "cpu,cpuacct" / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "root" / "cpu,cpuacct" / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / "root" / "memory" / "x" / "cpu.max", "1 100000")
    assert threads.cgroup_cpus(tmp_path / "membership", tmp_path / "root") == 3.0


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert threads.cgroup_cpus(tmp_path / "none", tmp_path) is None


def test_hyperthreads_of_one_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        write(tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list", siblings)
    assert threads.physical_cores(frozenset({0, 1, 2, 3}), tmp_path) == 2
    assert threads.physical_cores(frozenset({0, 2}), tmp_path) == 1
    # 7 is unknown: count the numbers
    assert threads.physical_cores(frozenset({0, 7}), tmp_path) == 2


@pytest.mark.parametrize(
    ("cores", "limit", "expected"),
    [(8, None, 8), (8, 2.9, 2), (8, 0.5, 1), (1, 4.0, 1), (64, None, 16)],
)
def test_the_smallest_limit_decides(
    monkeypatch: pytest.MonkeyPatch, cores: int, limit: float | None, expected: int
) -> None:
    monkeypatch.setattr(threads, "physical_cores", lambda cpus, topology: cores)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda membership, root: limit)
    assert threads.default_threads() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_of_this_process_is_respected() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads.default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
