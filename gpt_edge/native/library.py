"""The library of operators: compiled by the machine's own C compiler for its own CPU, kept in the
user's cache folder.

Nothing is downloaded. The file's name is a hash of the sources, the compiler's options and the
CPU's features, so a library of another version, or of another machine that shares the home folder,
is never loaded.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpt_edge.errors import GPTEdgeError, MissingDependencyError
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error

# 0: never use the library; a path: use that one; unset: use it once it is built
SETTING = "GPT_EDGE_NATIVE"
WITHOUT = "0"
WITHOUT_HINT = "everything works without them, with onnxruntime's operators"
# which library: None as the setting says, False none, True the installed one, or a path
Native = bool | Path | None
SOURCES = Path(__file__).parent / "kernels"
# names of Linux's /proc/cpuinfo
WANTED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
# No contraction: a sum after a product is rounded twice, as onnxruntime's operators do it.
# nodelete: onnxruntime unloads the library with its session, and the memory that the operators keep
# for their next call would be lost each time. hidden: a function called `fail` elsewhere in the
# process is not taken for ours.
OPTIONS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wl,-z,nodelete",
)
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 300


def why_unsupported() -> str | None:
    """Why this machine cannot run the operators, in words; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return (
            f"the operators are written for Linux on x86-64, this is {platform.system()} on "
            f"{platform.machine()}"
        )
    missing = [name for name in WANTED if name not in cpu_flags()]
    if missing:
        return f"the operators want a CPU with AVX-512 VNNI, this one lacks {', '.join(missing)}"
    return None


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the CPU can do, in Linux's words; empty where Linux does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def sources() -> list[Path]:
    """The C files and headers, sorted."""
    return sorted(path for path in SOURCES.rglob("*") if path.suffix in (".c", ".h"))


@functools.cache
def library_path() -> Path:
    """Where this version's library for this CPU belongs, whether it is there or not. Raises
    GPTEdgeError without a home.
    """
    digest = hashlib.sha256(" ".join([*OPTIONS, *sorted(cpu_flags())]).encode())
    for path in sources():
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError as error:
        raise GPTEdgeError(
            "this user has no home folder", hint="name a cache folder in XDG_CACHE_HOME"
        ) from error
    return folder / "gpt-edge" / f"operators-{digest.hexdigest()[:16]}.so"


def find_library(native: Native = None) -> Path | None:
    """The library to load; None runs the graph with onnxruntime's operators.

    native: None takes GPT_EDGE_NATIVE's, else the one that `gpt-edge native build` installed, if
    this machine can run it; False takes none; True the installed one; a path that one.
    Raises GPTEdgeError for a path, here or in the setting, where there is no file, and where True
    or a path names what is not installed or cannot run here.
    """
    if native is False:
        return None
    if native is None:
        return _library_by_setting(os.environ.get(SETTING, ""))
    reason = why_unsupported()
    if reason is not None:
        raise GPTEdgeError(reason, hint=WITHOUT_HINT)
    if native is not True:
        if not native.is_file():
            raise GPTEdgeError(f"there is no library of custom operators at {native}")
        return native.absolute()
    installed = _installed_library()
    if installed is None:
        raise GPTEdgeError(
            "no library of custom operators is installed", hint="gpt-edge native build"
        )
    return installed


def _library_by_setting(setting: str) -> Path | None:
    if setting == WITHOUT:
        return None
    if not setting:
        return _installed_library()
    path = Path(setting)
    if not path.is_file():
        raise GPTEdgeError(
            f"{SETTING} must be 0 or a library's path, and there is no file {path}",
            hint="unset it, or build one",
        )
    return path.absolute() if why_unsupported() is None else None


def _installed_library() -> Path | None:
    try:
        path = library_path()
        return path if path.is_file() and why_unsupported() is None and is_own(path) else None
    except (OSError, GPTEdgeError):  # a folder that may not be read, or no home
        return None


def is_own(path: Path) -> bool:
    """Could nobody but this user, or root, have written the file and its folder?"""
    return all(
        status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for status in (path.stat(), path.parent.stat())
    )


def compile_library(target: Path, options: Sequence[str] = ()) -> None:
    """Compile the operators to `target`, atomically; takes some seconds. options: for the
    compiler, at the end.

    Raises GPTEdgeError on a machine that cannot run them and for what the compiler refuses,
    MissingDependencyError without a compiler, OutputError.
    """
    reason = why_unsupported()
    if reason is not None:
        raise GPTEdgeError(reason, hint=WITHOUT_HINT)
    compiler = os.environ.get("CC") or next(
        (name for name in COMPILERS if shutil.which(name)), None
    )
    if compiler is None:
        raise MissingDependencyError(
            "a C compiler is required, and there is no cc, gcc or clang",
            hint="apt install gcc, or name one in CC",
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "operators.so"
        files = [str(path) for path in sources() if path.suffix == ".c"]
        command = [*compiler.split(), *OPTIONS, *options, *files, "-o", str(made), "-lm"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GPTEdgeError(f"{compiler} could not be run: {error}"[:300]) from error
        if done.returncode != 0:
            said = next(
                (line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()
            )
            raise GPTEdgeError(
                f"{compiler} could not compile the operators: {said[:250]}",
                hint="gcc 11 or clang 14 or newer is required",
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise output_error(error, target.parent) from error
        atomic_write(target, made.read_bytes())
