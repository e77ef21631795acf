"""Compiles the library of operators with the machine's own C compiler. Nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpt_edge.errors import GPTEdgeError, MissingDependencyError
from gpt_edge.native.library import sources
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error

# as in pyproject.toml. No contraction: a sum after a product is rounded twice, as onnxruntime's
# operators do it. hidden: a function called `fail` elsewhere in the process is not taken for ours.
# g0: Python's own options ask for debug information, 5 MB of it.
OPTIONS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0")
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 600


def compile_library(target: Path, options: Sequence[str] = ()) -> None:
    """Put the operators at `target`, atomically; otherwise as `compiled_library`. Raises
    OutputError.
    """
    content = compiled_library(options)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise output_error(error, target.parent) from error
    atomic_write(target, content)


def compiled_library(options: Sequence[str] = ()) -> bytes:
    """Compile the operators; takes half a minute. options: for the compiler, at the end.

    Raises GPTEdgeError for what the compiler refuses, MissingDependencyError without a compiler.
    """
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
        command = [*compiler.split(), *OPTIONS, "-fPIC", "-shared", *options, *files]
        try:
            done = subprocess.run(
                [*command, "-o", str(made), "-lm"],
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
                hint="gcc 12 or clang 16 or newer is required",
            )
        return made.read_bytes()
