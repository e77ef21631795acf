"""`eval` as typed: a bundle, a checkpoint, two against each other, LAMBADA, wrong inputs, and a
kill in the middle.
"""

from __future__ import annotations

import gzip
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from tests.conftest import REPO
from tests.packaging.test_runtime_alone import BLOCK_IMPORTS, RUN, python
from tests.support.runner import Result, done, listing, run

STORIES = ["The dog and the cat went to the river.", "Then there was an old hat, and it was red."]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt.gz"
    path.write_bytes(gzip.compress("\n<|endoftext|>\n".join(STORIES * 3).encode()))
    return path


@pytest.fixture(scope="session")
def portable() -> Path:
    return REPO / "tests" / "golden" / "tiny-portable"


def test_a_bundle_is_scored_and_the_table_says_how_it_was_read(
    tiny_edge: Path, corpus: Path
) -> None:
    lines = done("eval", tiny_edge, corpus, "--window", "32").out.splitlines()
    assert lines[0].startswith("stories.txt.gz: 6 documents, ")
    assert lines[0].endswith("bytes; window 32, stride 16")
    names = ("loss", "perplexity", "word perplexity", "bits per byte", "next-token accuracy")
    assert [line for line in lines[3:] if line.startswith(names)] == lines[3:]
    assert len(lines) == 8
    assert " ± " in lines[3]


def test_json_holds_every_figure_and_its_error(tiny_edge: Path, corpus: Path) -> None:
    values = done("eval", tiny_edge, corpus, "--limit", "4", "--threads", "1", "--json").json
    assert values["model"] == {"name": "tiny-edge", "threads": 1, "n_ctx": 64}
    text = values["text"]
    assert (text["n_documents"], text["window"], text["stride"]) == (4, 64, 32)
    assert text["n_bytes"] == 2 * sum(map(len, STORIES))
    score = text["model"]
    assert score["perplexity"]["value"] == pytest.approx(math.exp(score["loss"]["value"]))
    assert score["bits_per_byte"] == pytest.approx(
        score["loss"]["value"] * text["n_tokens"] / math.log(2) / text["n_bytes"]
    )
    assert text["against"] is text["comparison"] is text["noise_floor"] is None
    assert "lambada" not in values


def test_two_bundles_of_one_model_say_the_same_and_the_noise_floor_is_beside(
    tiny_edge: Path, portable: Path, corpus: Path
) -> None:
    text = done("eval", tiny_edge, corpus, "--against", portable, "--json").json["text"]
    comparison, floor = text["comparison"], text["noise_floor"]
    assert comparison["mean_kl"]["value"] < 1e-9
    assert comparison["top1"]["value"] == 1
    assert set(comparison["kl_quantiles"]) == {"0.5", "0.9", "0.95", "0.99", "0.999"}
    assert floor["mean_kl"]["value"] < 1e-9
    assert len(set(text["noise_threads"])) == 2
    table = done("eval", tiny_edge, corpus, "--against", portable, "--no-noise-floor").out
    assert "99.9 % KL" in table
    assert "RMS Δp" in table
    assert "noise floor" not in table


def test_a_checkpoint_runs_in_torch_and_is_what_its_bundle_is_held_against(
    exported: tuple[Path, Result], checkpoint: Path, corpus: Path
) -> None:
    values = done("eval", exported[0], corpus, "--against", checkpoint, "--json").json
    assert values["against"]["name"] == "tiny in torch"
    assert 0 < values["text"]["comparison"]["mean_kl"]["value"] < 0.01
    alone = done("eval", checkpoint, corpus, "--json").json
    assert alone["text"]["model"] == values["text"]["against"]


def test_lambada_alone_or_beside_a_text(tiny_edge: Path, corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": story.rstrip(".")}) + "\n" for story in STORIES))
    values = done("eval", tiny_edge, "--lambada", path, "--json").json
    assert values["lambada"]["model"]["n_passages"] == 2
    assert "text" not in values
    table = done("eval", tiny_edge, corpus, "--lambada", path, "--against", tiny_edge).out
    assert "LAMBADA, 2 passages" in table
    assert "stop words filtered" in table
    assert "99 % KL" in table


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["TEXT", "--stride", "0"], 2, "stride must be from 1 to the window of 64, got 0"),
        (
            ["TEXT", "--window", "8", "--stride", "9"],
            2,
            "stride must be from 1 to the window of 8, got 9",
        ),
        (["TEXT", "--window", "65"], 2, "window must be at most the context of 64, got 65"),
        (["TEXT", "--limit", "0"], 2, "limit must be at least 1"),
        (["TEXT", "--threads", "0"], 2, "threads must be"),
        (["TEXT", "--separator", ""], 2, "separator"),
        ([], 2, "give a TEXT to score"),
        (["no/such.txt"], 1, "no/such.txt: no such file"),
        (["TEXT", "--against", "no/such/model"], 1, "no/such/model is not there"),
        (
            ["TEXT", "--against", DEFAULT_BUNDLE],
            1,
            f"vocabulary of 277 tokens and {DEFAULT_BUNDLE} of 4096",
        ),
        (["TEXT", "--tokenizer", "nothing"], 1, "no tokenizer 'nothing'"),
        (["TEXT", "--resume", "no/such/folder/state"], 1, "no/such/folder/state"),
        (["--lambada", "no/such.jsonl"], 1, "no/such.jsonl: no such file"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], code: int, message: str, tiny_edge: Path, corpus: Path
) -> None:
    before = listing(corpus.parent)
    result = run(
        "eval", tiny_edge, *(corpus if argument == "TEXT" else argument for argument in arguments)
    )
    assert (result.code, result.out, len(result.errors)) == (code, "", 1), result
    assert message in result.err
    assert listing(corpus.parent) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", b"caf\xe9", "is not UTF-8: byte 3 is 0xe9"),
        ("empty.txt", b"\n", "holds no text"),
        ("lines.jsonl", b'{"text": "a b"}\n{"txt": "c"}\n', "line 2 has no text under 'text'"),
    ],
)
def test_a_wrong_text_is_one_line(
    name: str, content: bytes, message: str, tiny_edge: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run("eval", tiny_edge, tmp_path / name, "--json")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert name in result.err
    assert message in result.err


def test_a_bundle_without_a_tokenizer_says_how_to_give_one(
    tiny_edge: Path, tmp_path: Path, corpus: Path
) -> None:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.bundle.writer import new_bundle
    from gpt_edge.system.atomic_files import write_file

    source = Bundle.open(tiny_edge)
    with new_bundle(tmp_path / "ids") as writer:
        for file in source.manifest.files:
            if file != "tokenizer.tiktoken":
                write_file(writer.path / file, (source.path / file).read_bytes())
        import dataclasses

        writer.finalize(dataclasses.replace(source.manifest, tokenizer=None))
    result = run("eval", tmp_path / "ids", corpus)
    assert (result.code, len(result.errors)) == (1, 1)
    assert "has no tokenizer" in result.err
    values = [
        done("eval", tmp_path / "ids", corpus, *more, "--json").json["text"]["model"]
        for more in (["--tokenizer", tiny_edge / "tokenizer.tiktoken"], ["--against", tiny_edge])
    ]
    assert values[0] == values[1]


# It saves its state after every window, and kills itself once sys.argv[1] windows are saved.
KILLED_EVAL = """
import os, signal, sys
from pathlib import Path
import gpt_edge.evaluate.state as state
from gpt_edge.cli import main
from tests.cli.test_eval_command import windows_in

n_windows, write = int(sys.argv.pop(1)), state.atomic_write

def write_and_die(path, *content):
    write(path, *content)
    if windows_in(Path(path)) >= n_windows:
        os.kill(os.getpid(), signal.SIGKILL)

state.SAVE_SECONDS, state.atomic_write = 0, write_and_die
sys.exit(main())
"""


def test_killed_in_the_middle_it_goes_on_and_prints_the_same_figures(
    tiny_edge: Path, portable: Path, tmp_path: Path
) -> None:
    path, state = tmp_path / "corpus.txt", tmp_path / "state.json"
    path.write_text("\n<|endoftext|>\n".join(STORIES * 50))
    command = ["eval", tiny_edge, path, "--against", portable, "--json"]
    expected = done(*command).out
    for n_windows in (1, 25):  # two kills
        process = subprocess.run(
            [
                sys.executable,
                "-c",
                KILLED_EVAL,
                str(n_windows),
                *map(str, command),
                "--resume",
                str(state),
            ],
            cwd=REPO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert process.returncode == -signal.SIGKILL
        assert n_windows <= windows_in(state) < 100
    assert done(*command, "--resume", state).out == expected
    assert done(*command, "--resume", state).out == expected  # all of it is in the file
    result = run(*command, "--resume", state, "--stride", "16")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert "belongs to another evaluation: its stride is 32, here it is 16" in result.err


def windows_in(state: Path) -> int:
    """How many windows the file says are done; it is whole at any moment."""
    if not state.exists():
        return 0
    sections = json.loads(state.read_bytes())["sections"]
    return sections["text"]["done"]["n_windows"] if sections.get("text", {}).get("done") else 0


def test_a_bundle_is_scored_where_no_training_package_can_be_imported(
    tiny_edge: Path, corpus: Path
) -> None:
    ended = python(
        BLOCK_IMPORTS + RUN,
        "eval",
        str(tiny_edge),
        str(corpus),
        "--against",
        str(tiny_edge),
        "--json",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["text"]["comparison"]["max_kl"] == 0
    imported = python(
        f"{BLOCK_IMPORTS}\nimport gpt_edge.evaluate; print('onnxruntime' in sys.modules)"
    )
    assert imported.stdout == "False\n"  # training scores in torch and has no use for it


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_embedded_model_on_real_stories_and_passages(shared_data: Path) -> None:
    """Its loss is that of the manifest, measured in torch fp32 while it was trained; LAMBADA is far
    from its stories.
    """
    from gpt_edge.bundle.bundle import Bundle

    quality = Bundle.open().manifest.quality
    text = done(
        "eval", DEFAULT_BUNDLE, shared_data / "tinystories" / "valid.txt.gz", "--json"
    ).json["text"]
    assert text["n_documents"] == quality["validation_documents"]
    assert text["model"]["loss"]["value"] == pytest.approx(quality["validation_loss"], rel=2e-3)
    assert text["model"]["bits_per_byte"] == pytest.approx(quality["bits_per_byte"], rel=2e-3)
    passages = shared_data / "lambada" / "lambada_test.jsonl"
    score = done("eval", DEFAULT_BUNDLE, "--lambada", passages, "--limit", "1000", "--json").json[
        "lambada"
    ]["model"]
    assert score["n_passages"] == 1000
    assert 0.02 < score["accuracy"]["value"] < score["last_token_accuracy"]["value"] < 0.6
    assert abs(score["accuracy"]["value"] - score["accuracy_filtered"]["value"]) < 0.05
