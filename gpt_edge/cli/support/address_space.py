"""A limit of the address space (`ulimit -v`), and numpy where there is too little: its OpenBLAS
would end the process by itself, with a line of its own.
"""

from __future__ import annotations

import os
import sys

# bytes of address space that importing numpy 2.4 takes on x86-64, and each further thread of it
LIBRARIES, THREAD = 85_000_000, 41_000_000


def address_limit() -> int | None:
    """Bytes of address space that this process may take; None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def watch_numpy() -> None:
    """Where the address space is limited, look for room when numpy is imported."""
    if address_limit() is not None and "numpy" not in sys.modules:
        sys.meta_path.insert(0, NumpyRoom())


class NumpyRoom:
    """Of sys.meta_path: finds nothing, and raises MemoryError where numpy has no room."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Try the room once numpy is imported."""
        if name == "numpy":
            import mmap

            n_threads = int(os.environ.get("OPENBLAS_NUM_THREADS") or os.cpu_count() or 1)
            try:
                mmap.mmap(-1, LIBRARIES + (n_threads - 1) * THREAD).close()
            except OSError as error:
                raise MemoryError from error
