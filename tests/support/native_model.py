"""The built-in story model with the custom operators, opened once; tests skip where there are
none.
"""

from __future__ import annotations

import functools

import pytest

from gpt_edge.generate.generator import Generator
from gpt_edge.generate.load import load
from gpt_edge.native.library import bodies, installed_library


@functools.cache
def open_native() -> Generator:
    """A generator with one thread."""
    library = installed_library()
    if library is None or not bodies(library):
        pytest.skip("no operators are installed, or none for this CPU")
    return load(native=library, threads=1)
