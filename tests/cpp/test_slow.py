"""What takes minutes: other shapes and schemes, sanitizers, another CPU, and the commands of the
README.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from tests.conftest import REPO
from tests.support.cpp_library import SOURCES, CppLibrary, onnxruntime_library
from tests.support.cpp_texts import check_texts
from tests.support.pages import Page

pytestmark = pytest.mark.slow
GOLDEN = REPO / "tests" / "golden"
EMBEDDED = REPO / "models" / DEFAULT_BUNDLE
SCHEMES = ("fp32", "int8", "int8-block", "int4")
SHAPES = ("gpt1", "gpt2", "gpt3")


@pytest.mark.parametrize("scheme", [*SCHEMES, "portable"])
def test_the_story_model_generates_pythons_text_in_every_scheme(
    scheme: str, story_bundles: dict[str, Path], cpp: CppLibrary
) -> None:
    with gpt_edge.load(story_bundles[scheme], threads=2, native=False) as python:
        check_texts(python, story_bundles[scheme], cpp, threads=2)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_onnxruntimes_own_format_generates_the_bundles_text(
    scheme: str, story_bundles: dict[str, Path], cpp: CppLibrary, tmp_path: Path
) -> None:
    from gpt_edge.export.ort.folder import export_ort

    export_ort(story_bundles[scheme], tmp_path / "ort")
    with gpt_edge.load(story_bundles[scheme], threads=2, native=False) as python:
        check_texts(python, tmp_path / "ort", cpp, threads=2)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_generates_pythons_ids(
    shape: str, scheme: str, cpp: CppLibrary, tmp_path: Path, shared_traces: None
) -> None:
    """GPT-1's norms behind each block, GPT-3's bands; random models have no tokenizer."""
    from gpt_edge.export.pipeline.export import export_bundle
    from gpt_edge.runtime.session import Session
    from tests.support.models import TINY, save_random

    save_random(tmp_path / "checkpoint", TINY[shape])
    bundle, _ = export_bundle(
        tmp_path / "checkpoint", tmp_path / "bundle", scheme=scheme, tokenizer="none"
    )
    session = Session(bundle, native=False)
    for start in range(5):
        ids = [(7 * i + start) % session.config.vocab_size for i in range(5 + start)]
        cache, expected = session.new_cache(), []
        logits = session.forward([ids], cache)[0, -1]
        while len(expected) < 45:
            expected.append(int(logits.argmax()))
            logits = session.decode([expected[-1]], cache)[0]
        with cpp.open(tmp_path / "bundle") as model:
            assert list(model.generate(ids, max_new_tokens=45).ids) == expected


def test_every_quick_test_passes_with_sanitizers() -> None:
    """Memory that is read or written outside its bounds, or after it was freed, and undefined
    behaviour end the process.
    """
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True)
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    preloaded = " ".join(found.stdout.strip() for found in libraries)
    if "/" not in libraries[0].stdout:
        pytest.skip("libasan is not here")
    flags = "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    environment = {
        **os.environ,
        "GPT_EDGE_CPP_FLAGS": flags,
        "LD_PRELOAD": preloaded,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
    }
    command = [sys.executable, "-m", "pytest", "-n0", "-m", "not slow", "tests/cpp"]
    command += ["--timeout", "3000"]
    done = subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_program_leaks_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program"
    flags = [
        "-std=c++17",
        "-O1",
        "-g1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    files = [str(SOURCES / name) for name in ("gpt_edge.cpp", "gpt_edge_generate.cpp")]
    subprocess.run(["g++", *flags, *files, "-o", str(program), "-ldl", "-pthread"], check=True)
    (tmp_path / "quiet").write_text("leak:libonnxruntime\n")
    environment = {
        "GPT_EDGE_ONNXRUNTIME": str(onnxruntime_library()),
        "LSAN_OPTIONS": f"suppressions={tmp_path / 'quiet'}:print_suppressions=0",
    }
    for bundle, code in ((EMBEDDED, 0), (GOLDEN / "tiny-portable", 0), (GOLDEN, 1)):
        command = [str(program), str(bundle), "Once", "--max-new-tokens", "20", "--seed", "3"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert b"LeakSanitizer" not in done.stderr


def test_the_commands_of_the_readme_do_what_it_shows(tmp_path: Path) -> None:
    """In a copy of the folders that a checkout has, as the build lies inside."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not here")
    page = Page(SOURCES / "README.md")
    shutil.copytree(SOURCES, tmp_path / "examples" / "cpp")
    (tmp_path / "models").symlink_to(REPO / "models")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPO)}
    for block in page.blocks("sh"):
        done = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
    assert "a little girl named Lily" in done.stdout
    own = {**environment, "GPT_EDGE_ONNXRUNTIME": str(onnxruntime_library())}
    for kind, compiler in (("cpp", "g++ -std=c++17 -x c++"), ("c", "cc -std=c99 -x c")):
        [program] = page.blocks(kind)
        (tmp_path / "program").write_text(program)
        link = "-x none -Iexamples/cpp -Lbuild/cpp -lgpt_edge -Wl,-rpath,build/cpp -o run"
        command = f"{compiler} -Wall -Werror program {link} && ./run"
        done = subprocess.run(
            ["bash", "-euc", command], cwd=tmp_path, env=own, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(", there was a"), done.stdout


def test_an_arm_cpu_generates_the_same_ids() -> None:
    """Where scripts/arm64.sh has made its root."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    work = Path(os.environ.get("GPT_EDGE_ARM64") or Path(cache) / "gpt-edge" / "arm64")
    if not (work / "root").is_dir() or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip(f"scripts/arm64.sh has made nothing in {work}, or no cross compiler")
    environment = {**os.environ, "PYTHON": sys.executable, "GPT_EDGE_ARM64": str(work)}
    done = subprocess.run(
        [str(REPO / "scripts" / "cpp_arm64.sh")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
