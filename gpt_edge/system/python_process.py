"""Another Python process with this one's packages: for work whose memory, time or crash must be its
own.
"""

from __future__ import annotations

import os
import sys


def python_command(*arguments: str) -> list[str]:
    """The command line; -P, so that a file called numpy.py in the current folder is not
    imported.
    """
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """This process's environment, and its search path, which -P and installations in place would
    lose.
    """
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}
