"""Nothing is sent: README's first command, a classifier, the server and an export do their work in
a network that holds only this machine's loopback, and Python is not asked for another address.

Where the system makes no such networks, the addresses alone are watched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.packaging.test_wheel import first_command
from tests.support.warm_process import PATIENCE

WITHOUT_NETWORK = str(REPO / "scripts" / "no_network.sh")
# What Python connects to, listens on and looks up, a line for each at the end.
WATCH = """
import json, os, shlex, signal, socket, sys, threading, time, urllib.request
asked = set()
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        asked.add(str(arguments[1][0]) if isinstance(arguments[1], tuple) else str(arguments[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.add(str(arguments[0]))
sys.addaudithook(watch)
from gpt_edge.cli import main
"""
TELL = "\nprint(json.dumps(sorted(asked)), file=sys.stderr)\n"
RUN = """
assert main(shlex.split(sys.argv[1])[1:]) == 0
assert main(["classify", "sentiment-6m-int8", "A wonderful film."]) == 0
"""
SERVE = """
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
def ask():
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as answer:
                print(json.load(answer)["object"])
                break
        except OSError:
            time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask, daemon=True).start()
assert main(["serve", "--port", str(port)]) == 0
"""
EXPORT = """
assert main(["export", sys.argv[1], sys.argv[2]]) == 0
"""
BLOCKED = """
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print(error.errno)
"""


def can_be_cut_off() -> bool:
    try:
        done = subprocess.run([WITHOUT_NETWORK, "true"], capture_output=True, timeout=PATIENCE)
    except OSError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def prefix() -> list[str]:
    return [WITHOUT_NETWORK] if can_be_cut_off() else []


def run(
    prefix: list[str], code: str, *arguments: str | Path
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a program; returns what it wrote, and the addresses that it asked for."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", WATCH + code + TELL, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads(done.stderr.splitlines()[-1])


def test_generate_and_classify_ask_for_no_address(prefix: list[str]) -> None:
    _, _, command = first_command().partition(" && ")
    done, asked = run(prefix, RUN, command)
    assert len(done.stdout.split()) > 20
    assert "positive" in done.stdout
    assert asked == []


def test_the_server_asks_for_the_loopback_alone(prefix: list[str]) -> None:
    pytest.importorskip("starlette")
    done, asked = run(prefix, SERVE)
    assert "list" in done.stdout
    assert asked == ["127.0.0.1"]


def test_the_watch_sees_an_address_and_the_block_blocks(prefix: list[str]) -> None:
    if not prefix:
        pytest.skip("this system makes no network of its own for a process")
    done, asked = run(prefix, BLOCKED)
    assert asked == ["192.0.2.1"]
    assert done.stdout == "101\n"  # ENETUNREACH


@pytest.mark.slow
def test_an_export_asks_for_no_address(prefix: list[str], tmp_path: Path) -> None:
    import torch

    from gpt_edge.config import GPTConfig
    from gpt_edge.reference.checkpoint import save_checkpoint
    from gpt_edge.reference.model import GPT
    from gpt_edge.tokenizer import source_from_ranks
    from gpt_edge.tokenizer.formats.rank_file import format_ranks

    words = source_from_ranks(format_ranks([bytes([byte]) for byte in range(256)]))
    n_words = words.spec.vocab_size
    config = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ctx=32, vocab_size=n_words)
    torch.manual_seed(1)
    save_checkpoint(tmp_path / "tiny", config, GPT(config).state_dict(), words, {})
    _, asked = run(prefix, EXPORT, tmp_path / "tiny", tmp_path / "out")
    assert asked == []
    assert (tmp_path / "out" / "manifest.json").is_file()
