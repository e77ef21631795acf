"""The runtime needs numpy, onnxruntime and tiktoken: no torch, no network, and no time before it
says something.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle, builtin_bundles
from tests.conftest import REPO
from tests.support.warm_process import PATIENCE

BUNDLES = [str(REPO / "tests" / "golden" / name) for name in ("tiny-edge", "tiny-portable")] + list(
    builtin_bundles()
)
TRAINING = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "optimum",
    "transformers",
    "safetensors",
    "tokenizers",
)
# asyncio: 80 ms of the start of a program that does not use it
BLOCK_IMPORTS = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*TRAINING, "asyncio")}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
"""
BLOCK_NETWORK = """
import socket
def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for: {arguments}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
class NoSocket(socket.socket):
    def __init__(self, *arguments, **options):
        refuse("a socket")
socket.socket = NoSocket
"""
RUN = "\nfrom gpt_edge.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def asked(bundle: str) -> tuple[str, ...]:
    """A command for what the bundle is made for: it writes, or it labels."""
    if Bundle.open(bundle).task is not None:
        return "classify", bundle, "Once upon a time", "--json"
    return "generate", "Once upon a time", "-m", bundle, "-n", "8", "--json"


def check_answer(bundle: str, done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    answer, task = json.loads(done.stdout), Bundle.open(bundle).task
    if task is not None:
        assert answer["label"] in task.labels
    else:
        assert answer["completion_tokens"] == 8


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_answers_where_no_training_package_can_be_imported(bundle: str) -> None:
    check_answer(bundle, python(BLOCK_IMPORTS + RUN, *asked(bundle)))


@pytest.mark.parametrize("package", TRAINING)
def test_the_block_blocks(package: str) -> None:
    assert "is blocked" in python(f"{BLOCK_IMPORTS}\nimport {package}").stderr


@pytest.mark.parametrize("bundle", BUNDLES)
def test_answers_where_no_socket_can_be_made(bundle: str, tmp_path: Path) -> None:
    """Also from a current folder and a cache that are empty."""
    code = (
        f"import os, sys\nos.environ['TIKTOKEN_CACHE_DIR'] = {str(tmp_path)!r}\n"
        + BLOCK_NETWORK
        + RUN
    )
    check_answer(bundle, python(code, *asked(bundle), cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_block_of_the_network_blocks() -> None:
    code = BLOCK_NETWORK + "import urllib.request\nurllib.request.urlopen('http://localhost')"
    assert "the network was asked for" in python(code).stderr


def test_there_is_an_embedded_default() -> None:
    assert DEFAULT_BUNDLE in BUNDLES


NOT_FOR_HELP = ("torch", "onnxruntime", "numpy", "tiktoken", "onnx", "transformers", "optimum")


@pytest.mark.parametrize(
    "code", ["import gpt_edge", "from gpt_edge.cli import main; main(['--help'])"]
)
def test_importing_and_help_load_nothing_heavy(code: str) -> None:
    report = (
        f"\nimport sys; print([name for name in {NOT_FOR_HELP} if name in sys.modules], "
        "file=sys.stderr)"
    )
    assert python(code + report).stderr == "[]\n"


@pytest.mark.parametrize(
    "code", ["import gpt_edge", "from gpt_edge.cli import main; main(['--help'])"]
)
def test_importing_and_help_take_less_than_half_a_second(code: str) -> None:
    """CPU time, as a machine that does something else as well would make any clock lie; the best of
    three.
    """
    best = min(_cpu_seconds(code) for _ in range(3))
    assert best < 0.5


def _cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert python(code).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_telemetry_of_onnxruntime_is_off_before_it_is_imported() -> None:
    code = "import gpt_edge.runtime.session, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
