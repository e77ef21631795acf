"""Keeps what a forked child inherited from being destroyed there.

onnxruntime's destructor joins threads that fork did not copy, and the child crashes or hangs
(microsoft/onnxruntime PR 31961). A child cannot use the inherited session anyway, so it is never
freed there. Knows novalue of onnxruntime.
"""

from __future__ import annotations

import ctypes
import os
import weakref

_kept: weakref.WeakSet[object] = weakref.WeakSet()


def keep_in_child(value: object) -> None:
    """Never destroy `value` in a process that is forked from this one, not even when the child
    ends.
    """
    _kept.add(value)


def _after_fork() -> None:
    for value in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
