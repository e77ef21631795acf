"""The C++ library with custom operators: the graph has the bytes of Python's, and the text is
Python's with them. Takes minutes.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.errors import GPTEdgeError
from gpt_edge.native.compile import compile_library as compile_operators
from gpt_edge.native.library import body_in_use
from gpt_edge.native.rewrite import rewrite
from gpt_edge.onnx_contract import cache_head_size
from tests.conftest import REPO
from tests.support.cpp_library import SOURCES, CppLibrary
from tests.support.cpp_texts import check_texts

pytestmark = pytest.mark.slow
GOLDEN = REPO / "tests" / "golden"
EMBEDDED = REPO / "models" / DEFAULT_BUNDLE
SCHEMES = ("fp32", "int8", "int8-block", "int4")


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of custom operators, compiled."""
    library = tmp_path_factory.mktemp("operators") / "operators.so"
    compile_operators(library)
    try:
        body_in_use(library)
    except GPTEdgeError as error:
        pytest.skip(str(error))
    return library


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_custom_operators_the_text_is_pythons_with_them(
    scheme: str, story_bundles: dict[str, Path], operators: Path, cpp: CppLibrary
) -> None:
    folder = story_bundles[scheme]
    with cpp.open(folder, operators=operators) as model:
        assert cpp.c.gpt_edge_uses_operators(model.handle) == 1
    with gpt_edge.load(folder, threads=2, native=operators) as python:
        check_texts(python, folder, cpp, threads=2, operators=operators)


@pytest.fixture(scope="module")
def rewriter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that puts custom operators into a graph, with sanitizers."""
    program = tmp_path_factory.mktemp("rewriter") / "rewrite_graph"
    flags = ["-std=c++17", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = REPO / "tests" / "cpp" / "rewrite_graph.cpp"
    subprocess.run(["g++", *flags, f"-I{SOURCES}", str(source), "-o", str(program)], check=True)
    return program


def rewritten(rewriter: Path, data: bytes, folder: Path, *settings: int) -> bytes | None:
    (folder / "in").write_bytes(data)
    words = [str(folder / "in"), str(folder / "out"), *map(str, settings)]
    done = subprocess.run([rewriter, *words], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return (folder / "out").read_bytes() if done.returncode == 0 else None


def test_the_graph_with_custom_operators_has_pythons_bytes(rewriter: Path, tmp_path: Path) -> None:
    n_rewritten = 0
    for path in sorted([*GOLDEN.glob("*/model.onnx"), *(REPO / "models").glob("*/model.onnx")]):
        config = Bundle.open(path.parent, check=False).config
        for threads, size in ((1, cache_head_size(config, "edge")), (3, 64), (2, 500)):
            expected = rewrite(path.read_bytes(), threads, size, half_cache=threads > 1)
            made = rewritten(rewriter, path.read_bytes(), tmp_path, threads, size, threads > 1)
            assert made == (None if expected is None else expected.model), path
            n_rewritten += made is not None
    assert n_rewritten > 15


def test_a_corrupt_graph_is_rewritten_or_left_alone(rewriter: Path, tmp_path: Path) -> None:
    source = random.Random(4)
    data = (EMBEDDED / "model.onnx").read_bytes()
    for _ in range(150):
        changed = bytearray(data[: source.randrange(len(data))] if source.random() < 0.2 else data)
        for _ in range(source.randrange(1, 6)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        rewritten(rewriter, bytes(changed), tmp_path, 2, 64, 1)
