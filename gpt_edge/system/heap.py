"""Returns freed memory to the system: glibc keeps what a library frees for its next allocation."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Give unused pages of the heap back, where the C library can; takes a millisecond or two."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    trim(0)
