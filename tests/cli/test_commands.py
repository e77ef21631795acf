"""`export`, `quantize`, `verify`, `inspect`, `train`, and what belongs to no command: the version,
help, completion.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from gpt_edge import onnx_contract, schemes
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle, builtin_bundles
from gpt_edge.bundle.reader import RENAMED, renamed_note
from gpt_edge.cli.app import COMMANDS, GROUPS, app_for
from gpt_edge.cli.support import options
from gpt_edge.cli.support.tables import parity_table, size
from gpt_edge.version import __version__
from tests.conftest import REPO
from tests.support.runner import COMMAND, Result, done, listing, run


def test_export_makes_a_bundle_and_prints_where_it_is_its_size_and_the_parity(
    exported: tuple[Path, Result],
) -> None:
    out, result = exported
    bundle = Bundle.open(out)
    values = result.json
    assert values["ok"] is True
    assert (values["bundle"], values["scheme"], values["graph"]) == (str(out), "int8", "edge")
    assert values["n_bytes"] == bundle.n_bytes == sum(values["files"].values())
    assert values["parity"] == bundle.manifest.parity
    assert set(values["parity"]) == {
        "torch against fp32",
        "fp32 paths",
        "torch against int8",
        "int8 paths",
    }


def test_export_does_not_replace_a_bundle_without_force(
    exported: tuple[Path, Result], checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported[0], tmp_path / "out")
    before = listing(tmp_path)
    result = run("export", checkpoint, tmp_path / "out")
    assert (result.code, len(result.errors)) == (1, 1)
    assert "--force" in result.err
    assert listing(tmp_path) == before


def test_quantize_prints_the_table_and_verify_and_inspect_take_what_it_made(
    tiny_edge: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiny-int4"
    lines = done("quantize", tiny_edge, out, "--scheme", "int4").out.splitlines()
    assert lines[0].startswith(f"{out}: int4, edge graph, ")
    assert "fp32 against int4" in lines
    assert "WRONG" not in "".join(lines)
    assert done("generate", "the", "-m", out, "-n", "4", "--json").json["completion_tokens"] == 4
    verified = done("verify", out, "--json").json
    assert verified["ok"] is True
    assert verified["faults"] == []
    assert list(verified["parity"]) == ["int4 paths"]
    assert done("inspect", out, "--json").json["manifest"]["scheme"] == "int4"


def test_verify_against_its_checkpoint_is_right_and_against_another_one_exit_code_1(
    exported: tuple[Path, Result], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt_edge.export.pipeline import verify as pipeline
    from gpt_edge.export.weights.source import WeightSource

    fp32 = tmp_path / "fp32"

    def build_once(source: WeightSource, folder: Path, **_: object) -> None:
        """The baseline graph is traced once for both calls: it takes seconds."""
        if not fp32.exists():
            fp32.mkdir()
            build(source, fp32, graph="edge", scheme="fp32")
        shutil.copytree(fp32, folder, dirs_exist_ok=True)

    build = pipeline.build_graph
    monkeypatch.setattr(pipeline, "build_graph", build_once)
    right = done("verify", exported[0], "--against", checkpoint).out
    assert "torch against int8" in right
    assert "WRONG" not in right

    import numpy as np
    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    tensors = dict(load_file(other / "model.safetensors"))
    tensors["wpe.weight"] = np.flip(tensors["wpe.weight"], 0).copy()
    save_file(tensors, other / "model.safetensors")
    wrong = run("verify", exported[0], "--against", other)
    assert wrong.code == 1
    assert len(wrong.errors) == 1
    assert wrong.errors[0].startswith(
        f"error: {exported[0]} is out of tolerance: first at embedding: wpe.weight differs"
    )
    assert wrong.out.count("WRONG") >= 1
    as_json = run("verify", exported[0], "--against", other, "--json")
    assert (as_json.code, as_json.json["ok"]) == (1, False)
    assert any("wpe.weight" in fault for fault in as_json.json["faults"])
    assert as_json.json["first"]["place"] == "embedding"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_out_of_tolerance_shows_its_figures_and_publishes_nothing(
    options: list[str], tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    strict = dataclasses.replace(schemes.SCHEMES["int8"], max_mean_kl=0.0)
    monkeypatch.setitem(schemes.SCHEMES, "int8", strict)
    result = run("quantize", tiny_edge, tmp_path / "out", "--scheme", "int8", *options)
    assert result.code == 1
    assert len(result.errors) == 1
    assert "mean_kl" in result.errors[0]
    assert list(tmp_path.iterdir()) == []
    if options:
        assert result.json["ok"] is False
        assert result.json["parity"]["fp32 against int8"]["logits"]["ok"] is False
    else:
        assert "WRONG" in result.out


def test_inspect_prints_the_manifest_sizes_parameters_and_figures(tiny_edge: Path) -> None:
    text = done("inspect", tiny_edge).out
    for expected in (
        "tiny-edge",
        "12,048",
        "edge graph, fp32",
        "2, 2 heads, width 16",
        "64 tokens",
        "277",
        "model.onnx",
    ):
        assert expected in text
    assert "torch against fp32" in text
    assert (
        done("inspect", tiny_edge, "--json").json["manifest"]
        == Bundle.open(tiny_edge).manifest.to_dict()
    )


def test_memory_is_the_formula_and_a_measurement(tiny_edge: Path) -> None:
    memory = done("inspect", tiny_edge, "--memory", "--json").json["memory"]
    files = done("inspect", tiny_edge, "--json").json["files"]
    assert memory["weights"] == files["model.onnx"] + files["model.onnx.data"]
    # key and value, layers, heads, width of a head, float32
    assert memory["cache_per_token"] == 2 * 2 * 2 * 8 * 4
    assert memory["cache"] == 64 * memory["cache_per_token"]
    assert memory["sum"] == memory["weights"] + memory["cache"] + 277 * 4
    if sys.platform == "linux":
        assert 10e6 < memory["measured_base"] < memory["measured_peak"] < 200e6
    assert "measured: peak" in done("inspect", tiny_edge, "--memory").out


def test_train_makes_a_checkpoint_that_generates_after_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    result = run("train", "recipe.toml")
    assert result.code == 0, result
    assert result.out.startswith("run/checkpoint: 2 steps, ")
    assert "bits per byte" in result.out
    again = run("train", "recipe.toml")
    assert (again.code, len(again.errors)) == (1, 1)
    assert "--resume" in again.err
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def write_recipe(folder: Path) -> None:
    """A recipe of two steps, and its text."""
    story = "The rain fell on the river and the boat went on and on.\n<|endoftext|>\n"
    (folder / "story.txt").write_text(story * 40)
    (folder / "recipe.toml").write_text(
        """
[data]
train = "story.txt"
valid = "story.txt"
[tokenizer]
vocab_size = 260
[model]
n_layer = 1
n_head = 1
n_embd = 8
n_ctx = 32
[training]
steps = 2
batch_tokens = 64
row_tokens = 32
learning_rate = 0.01
[output]
folder = "run"
"""
    )


def test_the_version_is_that_of_the_package() -> None:
    assert done("--version").out == f"gpt-edge {__version__}\n"


def test_help_shows_every_command_in_one_group_and_no_argument_is_help() -> None:
    text = done("--help").out
    assert run().out == text
    sections = re.findall(r"^(\w.*):\n((?:  .*\n)+)", text, re.MULTILINE)
    shown = {
        heading: re.findall(r"^  ([a-z]+)  ", lines, re.MULTILINE)
        for heading, lines in sections
        if heading != "Options"
    }
    assert shown == {heading: list(names) for heading, names in GROUPS.items()}
    files = {path.stem for path in (REPO / "gpt_edge" / "cli" / "commands").glob("*.py")} - {
        "__init__"
    }
    assert sorted(name for names in shown.values() for name in names) == sorted(files)
    assert "..." not in text.partition("Run a model:")[2]  # every summary fits its line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["eval", "model"], ("eval",)), (["--help"], COMMANDS), (["evla"], COMMANDS)],
)
def test_a_command_is_built_without_the_others(
    arguments: list[str], expected: tuple[str, ...]
) -> None:
    built = app_for(arguments).registered_commands
    assert tuple(command.name for command in built) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_help(command: str) -> None:
    assert done(command, "--help").out.startswith(f"Usage: gpt-edge {command} ")


def test_choices_of_options_are_those_of_the_library() -> None:
    from gpt_edge.export.graph.optimum_int8 import TARGETS

    assert get_args(options.SchemeName) == schemes.EXPORTED
    assert get_args(options.QuantizedSchemeName) == schemes.QUANTIZED
    assert get_args(options.GraphName) == onnx_contract.GRAPHS
    assert get_args(options.TargetName) == TARGETS


@pytest.mark.parametrize(
    ("words", "expected"), [("gpt-edge ge", "generate"), ("gpt-edge export a b --sc", "--scheme")]
)
def test_bash_completes_commands_and_options(words: str, expected: str) -> None:
    assert expected in complete(words).split()


def test_bash_completes_names_of_bundles_and_folders(tmp_path: Path) -> None:
    (tmp_path / "tiny-bundle").mkdir()
    (tmp_path / "tiny-file").write_text("")
    assert complete("gpt-edge generate hi -m tin", tmp_path).split() == [
        *[name for name in builtin_bundles() if name.startswith("tin")],
        "tiny-bundle",
    ]
    assert options.complete_bundle(f"{tmp_path}{os.sep}t") == [f"{tmp_path}{os.sep}tiny-bundle"]
    assert options.complete_bundle(f"{tmp_path}{os.sep}nowhere{os.sep}t") == []


def complete(words: str, cwd: Path = REPO) -> str:
    """What bash would be offered for the last of `words`."""
    return subprocess.run(
        COMMAND,
        env={
            **os.environ,
            "PYTHONPATH": str(REPO),
            "_GPT_EDGE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_installs_for(shell: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    for option in ("--show-completion", "--install-completion"):
        shown = subprocess.run(
            [*COMMAND, option, shell], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert "_GPT_EDGE_COMPLETE" in shown if option == "--show-completion" else shell in shown
    installed = [
        path for path in tmp_path.rglob("*") if path.is_file() and "GPT_EDGE" in path.read_text()
    ]
    assert len(installed) == 1


def test_sizes_carry_the_unit_a_disk_would_use() -> None:
    assert [
        size(n) for n in (0, 999, 1000, 999_949, 999_950, 7_900_000, 124_400_000_000, 10**16)
    ] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "7.9 MB",
        "124.4 GB",
        "10000.0 TB",
    ]


@pytest.mark.parametrize(
    "figures",
    [
        {
            "a": 1,
            "b": {"c": 2, "d": {}},
            "e": {"f": {"rows": "x", "max_difference": None, "limits": 3, "top1": True}},
        },
        {
            "s": {
                "n": {"equal_tokens": "?", "limits": {"x\x1b": "y"}, "ok": False},
                "m": {"limits": {"x\x1b": "y"}},
            }
        },
    ],
)
def test_a_table_of_somebody_elses_figures_never_fails_and_never_acts_on_the_terminal(
    figures: dict[str, object],
) -> None:
    assert "\x1b" not in parity_table(figures)


@pytest.mark.parametrize("launcher", [["cli.py"], ["-m", "gpt_edge"]])
def test_a_launcher_is_the_same_command(launcher: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, *launcher, "--version"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"gpt-edge {__version__}\n"


def test_what_went_wrong_inside_is_one_line_and_the_traceback_on_demand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(Bundle, "open", explode)
    result = run("inspect")
    assert (result.code, result.errors) == (1, ["error: unexpected RuntimeError: first line"])
    monkeypatch.setenv("GPT_EDGE_DEBUG", "1")
    assert "Traceback" in run("inspect").err


def test_the_default_bundle_needs_no_name() -> None:
    assert DEFAULT_BUNDLE in builtin_bundles()
    assert done("inspect", "--json").json["name"] == DEFAULT_BUNDLE
    assert (
        json.loads(done("generate", "Once upon a time", "-n", "3", "--json").out)["model"]
        == DEFAULT_BUNDLE
    )


def test_the_default_bundle_of_before_is_today_s_with_one_line() -> None:
    (old,) = RENAMED
    result = run("inspect", old, "--json")
    assert result.json["name"] == DEFAULT_BUNDLE
    assert result.errors == [f"warning: {renamed_note(old)}"]


def test_accept_parity_publishes_with_a_warning(
    tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = dataclasses.replace(schemes.SCHEMES["int8"], max_mean_kl=0.0)
    monkeypatch.setitem(schemes.SCHEMES, "int8", strict)
    words = ("quantize", tiny_edge, tmp_path / "out", "--scheme", "int8")
    assert "--accept-parity" in run(*words).err
    assert run(*words, "--accept-parity").code == 0
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.parity["fp32 against int8"]["logits"]["ok"] is False
    accepted = manifest.provenance["accepted_parity"]
    assert accepted[0].startswith("fp32 against int8, logits: mean_kl is ")
    shown = run("inspect", tmp_path / "out").out
    assert f"warning: published out of tolerance: {accepted[0]}" in shown
    assert "warning" not in run("inspect", tiny_edge).out
