"""The programs of examples/python: each command of their README runs and prints what it shows, and
each program does what it says.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

import gpt_edge
from tests.conftest import REPO
from tests.support.pages import Page, matches

EXAMPLES = REPO / "examples" / "python"
PAGE = Page(EXAMPLES / "README.md")
REVIEWS = 'review\n"Awful service, and cold food."\nThe staff was friendly.\n'
REQUESTS = [
    {"prompt": "The little dog", "seed": 3},
    {"prompt": "A cat", "temperature": 0, "max_new_tokens": 5},
    {"prompt": "", "max_new_tokens": 9},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs beside the files that the page's commands name."""
    folder = tmp_path_factory.mktemp("examples")
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "reviews.csv").write_text(REVIEWS)
    (folder / "prompts.jsonl").write_text("\n\n".join(map(json.dumps, REQUESTS)) + "\n")
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PATH": program}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("index", range(len(PAGE.examples())))
def test_a_command_prints_what_the_page_shows(folder: Path, index: int) -> None:
    example = PAGE.examples()[index]
    done = run(example.command, folder)
    assert done.returncode == 0, done.stderr
    assert matches(example.shown, done.stdout.splitlines()), done.stdout


def test_the_streamed_story_is_in_the_file_too(folder: Path) -> None:
    done = run('python stream_story.py "The sun" out.txt --seed 5 --tokens 30 --stop .', folder)
    text = (folder / "out.txt").read_text("utf-8")
    assert done.stdout == f"{text}\n"
    assert text.startswith("The sun")
    assert "." not in text
    assert "tokens/s" in done.stderr
    assert "seed 5" in done.stderr


def test_each_row_of_a_csv_gets_a_label_and_probabilities(folder: Path) -> None:
    done = run("python classify_csv.py reviews.csv out.csv --column review", folder)
    assert done.stderr == "2 rows, labels negative, positive\n"
    with (folder / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["negative", "positive"]
    for row in rows:
        assert float(row["negative"]) + float(row["positive"]) == pytest.approx(1, abs=2e-4)


def test_completions_are_repeatable_by_their_seeds(folder: Path) -> None:
    assert run("python complete_jsonl.py prompts.jsonl one.jsonl", folder).returncode == 0
    lines = [json.loads(line) for line in (folder / "one.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [request["prompt"] for request in REQUESTS]
    assert lines[0]["seed"] == 3
    assert lines[1]["seed"] is None  # greedy
    assert lines[2]["tokens"] <= 9
    with (folder / "again.jsonl").open("w") as file:
        for line, request in zip(lines, REQUESTS, strict=True):
            file.write(json.dumps({**request, "seed": line["seed"]}) + "\n")
    assert run("python complete_jsonl.py again.jsonl two.jsonl --batch 1", folder).returncode == 0
    assert (folder / "two.jsonl").read_text() == (folder / "one.jsonl").read_text()


def module(name: str) -> ModuleType:
    """A program, imported: nothing of it runs yet."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def tiny() -> gpt_edge.Generator:
    return gpt_edge.load(REPO / "tests" / "golden" / "tiny-edge", threads=1)


def test_a_window_gets_the_pieces_in_its_own_thread_and_stops_the_worker(
    tiny: gpt_edge.Generator,
) -> None:
    gui = module("gui_thread")
    shown: list[str] = []
    threads: set[int] = set()

    def show(piece: str) -> None:
        threads.add(threading.get_ident())
        shown.append(piece)

    story = gui.StoryThread(tiny, "the rain", 12)
    while story.poll(show):
        time.sleep(0.002)
    assert "".join(shown)
    assert threads == {threading.get_ident()}
    endless = gui.StoryThread(tiny, "the rain", 50)
    endless.stop()
    while endless.poll(show):
        time.sleep(0.002)
    failed = gui.StoryThread(tiny, "x" * 999)
    shown.clear()
    while failed.poll(show):
        time.sleep(0.002)
    assert "context of 64" in shown[0]


def test_clients_of_the_asyncio_server_are_served_at_once(tiny: gpt_edge.Generator) -> None:
    program = module("asyncio_handler")

    async def ask(port: int, prompt: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(prompt.encode() + b"\n")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer.decode()

    async def talk() -> list[str]:
        server = await program.serve(tiny, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, leaving = await asyncio.open_connection("127.0.0.1", port)
            leaving.write(b"the rain\n")  # and goes away without reading
            leaving.close()
            return await asyncio.gather(*(ask(port, text) for text in ("the", "x" * 999)))

    answer, refusal = asyncio.run(talk())
    assert answer == tiny.complete("the", max_new_tokens=program.MAX_NEW_TOKENS).text + "\n"
    assert refusal.startswith("error: the prompt has 999 ")


def test_a_worker_thread_answers_in_order_and_cancels_what_waits(
    tiny: gpt_edge.Generator,
) -> None:
    program = module("worker_thread")
    params = gpt_edge.SamplingParams(max_new_tokens=5)
    with program.Worker(tiny, params) as worker:
        futures = [worker.submit(prompt) for prompt in ("a", "b", "x" * 999)]
        expected = [tiny.complete(prompt, params).text for prompt in ("a", "b")]
        assert [future.result().text for future in futures[:2]] == expected
        with pytest.raises(gpt_edge.ContextLengthError):
            futures[2].result()
    gate = threading.Event()
    with program.Worker(Held(tiny, gate), params) as worker:
        futures = [worker.submit("a"), worker.submit("b")]
        threading.Timer(0.05, gate.set).start()
    assert futures[1].cancelled()
    assert futures[0].cancelled() or futures[0].result().finish_reason == "cancelled"


class Held:
    """A model whose first answer waits until the gate opens."""

    def __init__(self, model: gpt_edge.Generator, gate: threading.Event) -> None:
        self.model, self.gate = model, gate

    def complete(self, *arguments: object, **settings: object) -> gpt_edge.Completion:
        assert self.gate.wait(10)
        return self.model.complete(*arguments, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python stream_story.py x out.txt --bundle nowhere", "error: nowhere"),
        ("python classify_csv.py reviews.csv out.csv --column text", "has no column 'text'"),
        ("python classify_csv.py none.csv out.csv --column text", "none.csv"),
        ("python complete_jsonl.py reviews.csv out.jsonl", "reviews.csv, line 1: not JSON"),
    ],
)
def test_a_mistake_ends_in_one_line(folder: Path, command: str, message: str) -> None:
    done = run(command, folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
