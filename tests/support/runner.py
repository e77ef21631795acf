"""Run the command line in this process, as a terminal would: arguments in, exit code and both
outputs back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gpt_edge.cli import main

# a process builds its commands once: it takes a tenth of a second, and there are hundreds of calls
typer.main.get_command = functools.cache(typer.main.get_command)

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from gpt_edge.cli import main; sys.exit(main())",
]  # in a process of its own

# the same for commands that export, sharing what torch traces; torch is loaded first
EXPORT_COMMAND = [
    sys.executable,
    "-c",
    "import sys; from tests.support.traces import share_traces; share_traces(); "
    "from gpt_edge.cli import main; sys.exit(main())",
]


@dataclass(frozen=True)
class Result:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        assert self.out.count("\n") == 1, self.out
        values: dict[str, Any] = json.loads(self.out)
        return values

    @property
    def errors(self) -> list[str]:
        """Lines of standard error that say what is wrong; hints are no errors."""
        return [line for line in self.err.splitlines() if not line.startswith("hint: ")]


def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """`gpt-edge ARGUMENTS` with standard input that is no terminal."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        streams = [
            io.TextIOWrapper(stream, "utf-8", newline="\n", write_through=True)
            for stream in (out, err)
        ]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            code = main([str(argument) for argument in arguments])
        return Result(code, out.getvalue().decode(), err.getvalue().decode())


def done(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """`run`, for a command that must end well and quietly."""
    result = run(*arguments, stdin=stdin)
    assert (result.code, result.err) == (0, ""), result
    return result


def listing(folder: Path) -> dict[str, str]:
    """Every name below `folder`, with what it is: nothing was written where two listings
    are equal.
    """
    found = {}
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(place) / name
            data = (
                os.readlink(path)
                if path.is_symlink()
                else path.read_bytes().hex()
                if path.is_file()
                else "folder"
            )
            found[str(path.relative_to(folder))] = hashlib.sha256(data.encode()).hexdigest()
    return found
