"""Keeps what a forked child inherited from being destroyed there.

onnxruntime's destructor joins threads that fork did not copy, and the child crashes or hangs
(microsoft/onnxruntime PR 31961). A child cannot use the inherited session anyway, so it is never
freed there. Knows nothing of onnxruntime.
"""

from __future__ import annotations

import ctypes
import os
import weakref

from gpt_edge.errors import GPTEdgeError

_kept: weakref.WeakSet[object] = weakref.WeakSet()


def keep_in_child(value: object) -> None:
    """Never destroy `value` in a process that is forked from this one, not even when the child
    ends.
    """
    _kept.add(value)


def check_process(pid: int, thing: str = "this model") -> None:
    """Raise GPTEdgeError in another process than `pid`, which opened `thing`: a fork has none of
    its threads.
    """
    if os.getpid() != pid:
        raise GPTEdgeError(
            f"{thing} was opened in process {pid} and cannot be used in its fork {os.getpid()}",
            hint="open the bundle after the fork, or start processes with multiprocessing's spawn",
        )


def _after_fork() -> None:
    for value in list(_kept):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
