"""What a training step frees stays with the process, so that the next step finds it without a page
fault.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = 50_000_000  # bytes
FAULTS = """
import ctypes, resource, sys
from gpt_edge.training.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("another C library")
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for turn in range(4):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(int(sys.argv[2])))
    ctypes.memset(block, 1, int(sys.argv[2]))
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how, str(BLOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "another C library" in done.stderr:
        pytest.skip("not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is meant")
def test_a_block_that_comes_again_costs_no_page_faults() -> None:
    assert faults("kept") < 100 < faults("plain")
