"""What takes minutes: other shapes and schemes, custom operators, sanitizers, another CPU, and the
commands of the README.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.params import SamplingParams
from gpt_edge.native.compile import compile_library as compile_operators
from gpt_edge.native.library import body_in_use
from gpt_edge.native.rewrite import rewrite
from gpt_edge.onnx_contract import cache_head_size
from tests.conftest import REPO
from tests.support.cpp_library import SOURCES, CppLibrary, onnxruntime_library
from tests.support.pages import Page

pytestmark = pytest.mark.slow
GOLDEN = REPO / "tests" / "golden"
EMBEDDED = REPO / "models" / "tinystories-5m-int8"
SCHEMES = ("fp32", "int8", "int8-block", "int4")
SHAPES = ("gpt1", "gpt2", "gpt3")
PROMPTS = (
    *("Once upon a time", "The little dog", "Tom and Lily went", "One day, a big red", "She said"),
    *(
        "It was raining and",
        "In the forest there was",
        "Mom smiled. ",
        '"Hello',
        "A cat sat on the",
    ),
    *("The sun", "He was very sad because", "They played with", "The ball", "Ben had a toy"),
    *("Every night", "Look, ", "The bird flew to", "Why do you", "Once there was a king who"),
)


def check_texts(
    python: gpt_edge.Generator, folder: Path, cpp: CppLibrary, **options: object
) -> None:
    """Twenty prompts, greedy and sampled."""
    with cpp.open(folder, **options) as model:  # type: ignore[arg-type]
        for seed, prompt in enumerate(PROMPTS):
            for settings in ({}, {"top_k": 40, "temperature": 0.8, "seed": seed}):
                given = {"max_new_tokens": 40, **settings}
                expected = python.complete(prompt, SamplingParams(**given))  # type: ignore[arg-type]
                done = model.generate(prompt, **given)
                assert (done.ids, done.text) == (expected.ids, expected.text), prompt


@pytest.fixture(scope="module")
def story_bundles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of the built-in model in each scheme."""
    from gpt_edge.export.pipeline.export import export_bundle

    folder = tmp_path_factory.mktemp("stories")
    for scheme in SCHEMES:
        export_bundle(shared_data / "story-model", folder / scheme, scheme=scheme)
    export_bundle(shared_data / "story-model", folder / "portable", graph="portable", scheme="fp32")
    return {path.name: path for path in folder.iterdir()}


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
