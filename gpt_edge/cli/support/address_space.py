"""A limit of the address space (`ulimit -v`): where there is too little for a large library, it is
refused before it is imported. numpy's OpenBLAS and torch would end the process by themselves.
"""

from __future__ import annotations

import os
import sys

THREAD = 41_000_000  # bytes of address space for each further thread of numpy
# What importing numpy 2.4 takes on x86-64 with one thread; what the smallest training and the
# smallest export take from where they import torch and onnxscript.
ROOM = {"numpy": 85_000_000, "torch": 800_000_000, "onnxscript": 350_000_000}


def address_limit() -> int | None:
    """Bytes of address space that this process may take; None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def watch_imports() -> None:
    """Where the address space is limited, look for room when a large library is imported."""
    if address_limit() is not None:
        sys.meta_path.insert(0, Room())


class Room:
    """Of sys.meta_path: finds nothing, and raises MemoryError where a library has no room."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Try the room of a library that is about to be imported."""
        if name not in ROOM:
            return
        import mmap

        n_bytes = ROOM[name]
        if name == "numpy":
            n_threads = int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count() or 1)
            n_bytes += (n_threads - 1) * THREAD
        try:
            mmap.mmap(-1, n_bytes).close()
        except OSError as error:
            raise MemoryError from error
