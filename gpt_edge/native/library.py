"""Which library of operators is used, and which of its bodies.

`pip install` builds the library into the package; `gpt-edge native build` builds it again, into the
user's cache folder. It holds a body for each set of instructions and takes the best that the CPU
has when a session opens. All bodies give the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import stat
import warnings
from pathlib import Path

from gpt_edge.errors import GPTEdgeError

# 0: never use the library; a path: use that one; unset: use what is installed
SETTING = "GPT_EDGE_NATIVE"
WITHOUT = "0"
# a body's name: use that one; unset: the best that the CPU has
BODY_SETTING = "GPT_EDGE_ISA"
WITHOUT_HINT = "everything works without them, with onnxruntime's operators"
# which library: None as the setting says, False none, True the installed one, or a path
Native = bool | Path | None
SOURCES = Path(__file__).parent / "kernels"
PLAIN = "scalar"  # the body in plain C, which defines the others and is slower than onnxruntime


def sources() -> list[Path]:
    """The C files and headers, sorted."""
    return sorted(path for path in SOURCES.rglob("*") if path.suffix in (".c", ".h"))


def cache_folder() -> Path:
    """The user's folder for what this machine has built or found out. Raises GPTEdgeError without
    a home.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError as error:
        raise GPTEdgeError(
            "this user has no home folder", hint="name a cache folder in XDG_CACHE_HOME"
        ) from error
    return folder / "gpt-edge"


@functools.cache
def built_path() -> Path:
    """Where `gpt-edge native build` puts the library, whether it is there or not: named by a hash
    of the sources, so that one of another version is never loaded. Raises GPTEdgeError without a
    home.
    """
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return cache_folder() / f"operators-{digest.hexdigest()[:16]}.so"


def packaged_path() -> Path | None:
    """The library that was built with the package, None if there was no compiler."""
    folder = Path(__file__).parent
    names = sorted(folder.glob("_operators*.so")) + sorted(folder.glob("_operators*.pyd"))
    return names[0] if names else None


def bodies(library: Path) -> list[str]:
    """The bodies of a library that this CPU runs, best first, without plain C. Raises GPTEdgeError
    for a file that is no library.
    """
    try:
        # ctypes keeps it loaded: onnxruntime unloads a library with its session, and the memory
        # that the operators keep for their next call would be lost
        loaded = ctypes.CDLL(str(library))
        names = ctypes.create_string_buffer(256)
        length = loaded.gpt_edge_bodies(names, len(names))
    except (OSError, AttributeError) as error:
        raise GPTEdgeError(
            f"the operators in {library} cannot be loaded: {error}"[:300],
            hint="gpt-edge native build builds it again, GPT_EDGE_NATIVE=0 goes without it",
        ) from error
    return [name for name in names.raw[:length].decode().split() if name != PLAIN]


def body_in_use(library: Path) -> str:
    """The body that sessions take: what GPT_EDGE_ISA names, else the best. Raises GPTEdgeError for
    a name that this CPU does not run, and for a CPU that runs none.
    """
    names = bodies(library)
    wanted = os.environ.get(BODY_SETTING, "")
    if wanted and wanted not in (*names, PLAIN):
        raise GPTEdgeError(
            f"{BODY_SETTING} is {wanted[:40]!r}, and this CPU runs {', '.join(names) or 'none'}",
            hint=f"unset {BODY_SETTING} to take the best",
        )
    if not wanted and not names:
        raise GPTEdgeError("the operators have no body for this CPU", hint=WITHOUT_HINT)
    return wanted or names[0]


def find_library(native: Native = None) -> Path | None:
    """The library to load; None runs the graph with onnxruntime's operators.

    native: None takes GPT_EDGE_NATIVE's, else the one that is installed, if this CPU runs it and
    it has proved itself here (`self_check.py`); False takes none; True the installed one; a path
    that one. Raises GPTEdgeError for a path, here or in the setting, where there is no library,
    for True where none is installed, and for a CPU or a GPT_EDGE_ISA that has no body.
    """
    if native is False:
        return None
    if native is None:
        setting = os.environ.get(SETTING, "")
        if setting == WITHOUT:
            return None
        if not setting:
            return _proven_library()
        native = Path(setting)
        if not native.is_file():
            raise GPTEdgeError(
                f"{SETTING} must be 0 or a library's path, and there is no file {native}",
                hint="unset it, or build one",
            )
    library = installed_library() if native is True else native.absolute()
    if library is None:
        raise GPTEdgeError(
            "no library of custom operators is installed", hint="gpt-edge native build"
        )
    if not library.is_file():
        raise GPTEdgeError(f"there is no library of custom operators at {library}")
    body_in_use(library)
    return library


def installed_library() -> Path | None:
    """What `gpt-edge native build` built, else what came with the package. None without both."""
    try:
        path = built_path()
        if path.is_file() and is_own(path):
            return path
    except (OSError, GPTEdgeError):  # a folder that may not be read, or no home
        pass
    return packaged_path()


def _proven_library() -> Path | None:
    from gpt_edge.native.self_check import is_proven

    library = installed_library()
    if library is None:
        return None
    try:
        body = body_in_use(library)
    except GPTEdgeError:
        if os.environ.get(BODY_SETTING):  # somebody asked for it
            raise
        return None
    if not is_proven(library, body):
        warnings.warn(
            f"the operators in {library} fail their self-check on this CPU ({body}); "
            "onnxruntime's are used, which are slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library


def is_own(path: Path) -> bool:
    """Could nobody but this user, or root, have written the file and its folder?"""
    return all(
        status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for status in (path.stat(), path.parent.stat())
    )
