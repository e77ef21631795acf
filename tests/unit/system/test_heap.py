"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from gpt_edge.system.heap import return_freed_memory


def resident() -> int:
    """Anonymous resident memory, bytes."""
    with open("/proc/self/status", encoding="ascii") as stream:
        line = next(line for line in stream if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_library_freed_is_no_longer_resident() -> None:
    libc: Any = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library is not glibc")
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    size = 64 << 10  # below the threshold above which malloc maps a block of its own
    blocks = [libc.malloc(size) for _ in range(512)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        libc.free(block)
    before = resident()
    return_freed_memory()
    assert before - resident() > 256 * size
    libc.free(blocks[-1])


def test_a_system_without_glibc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        """A C library without malloc_trim."""

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Empty())
    return_freed_memory()
