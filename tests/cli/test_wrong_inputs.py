"""Every wrong input: one clear line that names the thing, the right exit code, nothing written,
nothing lost.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gpt_edge.system.lock import hold_lock
from tests.conftest import REPO
from tests.support.runner import COMMAND, Result, listing, run
from tests.support.warm_process import PATIENCE

Spoil = Callable[[Path], object]


def refused(result: Result, code: int, *names: str) -> str:
    """The one error line, which names every one of `names`."""
    assert result.code == code, result
    assert result.out == ""
    assert len(result.errors) == 1, result.err
    assert result.errors[0].startswith("error: ")
    assert "Traceback" not in result.err
    for name in names:
        assert name in result.errors[0], result.errors[0]
    return result.errors[0]


# --- checkpoints


def config_of(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = {
        name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def weight(value: float) -> Spoil:
    def spoil(folder: Path) -> None:
        change_tensors(
            folder, lambda tensors: tensors["h.1.mlp.c_fc.weight"].__setitem__((3, 4), value)
        )

    return spoil


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def other_vocabulary(folder: Path) -> None:
    lines = (folder / "tokenizer.tiktoken").read_text().splitlines()
    values = json.loads((folder / "config.json").read_text())
    n_more = 40  # more than one in twenty
    n = len(lines) + n_more
    values["tokenizer"] |= {
        "vocab_size": n + 1,
        "end_token": n,
        "special_tokens": {"<|endoftext|>": n},
    }
    more = [base64.b64encode(b"abc" + b"d" * count).decode() for count in range(n_more)]
    ranks = [f"{token} {len(lines) + index}" for index, token in enumerate(more)]
    (folder / "tokenizer.tiktoken").write_text("\n".join(lines + ranks) + "\n")
    (folder / "config.json").write_text(json.dumps(values))


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("the-pickle-ran",))


def pickled(folder: Path) -> None:
    """A Hugging Face GPT-2 whose weights are a pickle with a call in it."""
    empty(folder)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 64, "vocab_size": 277}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    torch.save({"wte.weight": Bomb()}, folder / "pytorch_model.bin")


def pickled_bare(folder: Path) -> None:
    """The same, in pickle's own format, as nanoGPT's ckpt.pt."""
    empty(folder)
    (folder / "ckpt.pt").write_bytes(pickle.dumps({"model": Bomb(), "model_args": {}}))


def llama(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )


CHECKPOINTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "a path that is not there": (shutil.rmtree, ("source", "no such file or folder")),
    "a file where a folder belongs": (
        lambda f: (shutil.rmtree(f), f.write_text("x")),
        ("source", "is a file"),
    ),
    "an empty folder": (empty, ("source", "empty folder")),
    "a folder of something else": (
        lambda f: (empty(f), (f / "notes.txt").write_text("x")),
        ("not a checkpoint",),
    ),
    "a bundle": (lambda f: (f / "manifest.json").write_text("{}"), ("is a bundle",)),
    "a truncated safetensors": (truncate, ("model.safetensors",)),
    "an empty safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        ("model.safetensors",),
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ("model.safetensors",)),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), ("config.json",)),
    "another architecture": (llama, ("config.json", "'llama'", "gpt2")),
    "a config no model can have": (
        lambda f: config_of(f, config={"n_layer": 0}),
        ("config.json", "missing"),
    ),
    "a newer checkpoint": (
        lambda f: config_of(f, version=9),
        ("config.json", "version 9", "version 1"),
    ),
    "a missing tensor": (lambda f: change_tensors(f, lambda t: t.pop("ln_f.bias")), ("ln_f.bias",)),
    "an extra tensor": (
        lambda f: change_tensors(f, lambda t: t.update({"h.7.extra": np.zeros(3, np.float32)})),
        ("h.7.extra",),
    ),
    "a mis-shaped tensor": (
        lambda f: change_tensors(
            f, lambda t: t.update({"wpe.weight": np.zeros((64, 17), np.float32)})
        ),
        ("wpe.weight", "[64, 17]", "[64, 16]"),
    ),
    "a NaN weight": (weight(np.nan), ("h.1.mlp.c_fc.weight[3, 4]", "nan")),
    "an infinite weight": (weight(-np.inf), ("h.1.mlp.c_fc.weight[3, 4]", "-inf")),
    "a vocabulary that does not fit": (other_vocabulary, ("317 tokens", "277 rows")),
    "a damaged vocabulary": (
        lambda f: (f / "tokenizer.tiktoken").write_text("????"),
        ("tokenizer.tiktoken",),
    ),
    "a missing vocabulary": (
        lambda f: (f / "tokenizer.tiktoken").unlink(),
        ("tokenizer.tiktoken",),
    ),
    "a pickle that would run code": (pickled, ("pytorch_model.bin",)),
    "a bare pickle that would run code": (pickled_bare, ("ckpt.pt",)),
}


@pytest.fixture
def spoilt(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Spoil], Path]:
    """A copy of the checkpoint with something wrong, in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)

    def make(spoil: Spoil) -> Path:
        source = tmp_path / "source"
        shutil.copytree(checkpoint, source)
        spoil(source)
        return source

    return make


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_export_refuses(name: str, spoilt: Callable[[Spoil], Path], tmp_path: Path) -> None:
    spoil, names = CHECKPOINTS[name]
    source = spoilt(spoil)
    before = listing(tmp_path)
    refused(run("export", source, tmp_path / "deep" / "out"), 1, *names)
    assert listing(tmp_path) == before


def test_export_refuses_a_checkpoint_without_a_tokenizer_and_says_how_to_give_one(
    spoilt: Callable[[Spoil], Path], tmp_path: Path
) -> None:
    source = spoilt(lambda folder: config_of(folder, tokenizer=None))
    result = run("export", source, tmp_path / "out")
    refused(result, 1, "no tokenizer")
    assert "--tokenizer" in result.err.splitlines()[1]
    refused(run("export", source, tmp_path / "out", "--tokenizer", "klingon"), 1, "'klingon'")
    assert listing(tmp_path).keys() == {
        "source",
        "source/config.json",
        "source/model.safetensors",
        *TOKENIZER_FILE,
    }


TOKENIZER_FILE = ("source/tokenizer.tiktoken",)

# --- bundles


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[12345] ^= 1
    (folder / "model.onnx.data").write_bytes(data)


def newer(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))


BUNDLES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "a path that is not there": (shutil.rmtree, ("bundle", "not there")),
    "a file where a folder belongs": (
        lambda f: (shutil.rmtree(f), f.write_text("x")),
        ("is a file",),
    ),
    "an empty folder": (empty, ("empty folder",)),
    "a checkpoint": (
        lambda f: (empty(f), (f / "model.safetensors").write_text("x")),
        ("is a checkpoint",),
    ),
    "a flipped bit in the weights": (flip, ("model.onnx.data", "SHA-256")),
    "a flipped bit in the manifest": (
        lambda f: (f / "manifest.json").write_bytes(
            (f / "manifest.json").read_bytes().replace(b"0.1.0", b"0.1.1", 1)
        ),
        ("manifest.json",),
    ),
    "a cut file": (lambda f: (f / "model.onnx").write_bytes(b"x"), ("model.onnx", "1 bytes")),
    "a missing file": (
        lambda f: (f / "tokenizer.tiktoken").unlink(),
        ("tokenizer.tiktoken", "missing"),
    ),
    "a manifest that is no JSON": (
        lambda f: (f / "manifest.json").write_text("{"),
        ("manifest.json",),
    ),
    "a newer format version": (newer, ("version 2", "up to 1")),
    "a link out of the folder": (
        lambda f: ((f / "model.onnx").unlink(), (f / "model.onnx").symlink_to("/etc/passwd")),
        ("model.onnx",),
    ),
}
READERS = {
    "generate": ["generate", "hi", "-m"],
    "tokenize": ["tokenize", "hi", "-m"],
    "inspect": ["inspect"],
    "verify": ["verify"],
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", BUNDLES)
def test_every_command_refuses_a_bundle_that_is(
    name: str, command: str, tiny_edge: Path, tmp_path: Path
) -> None:
    spoil, names = BUNDLES[name]
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_edge, bundle)
    spoil(bundle)
    before = listing(tmp_path)
    refused(run(*READERS[command], bundle), 1, *names)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("arguments", [["out", "--scheme", "int8"]])
def test_quantize_refuses_a_damaged_bundle(
    arguments: list[str], tiny_edge: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_edge, bundle)
    flip(bundle)
    refused(run("quantize", bundle, tmp_path / "out", "--scheme", "int8"), 1, "model.onnx.data")
    assert not (tmp_path / "out").exists()


def test_quantize_refuses_a_bundle_that_is_rounded_already(
    exported: tuple[Path, Result], tmp_path: Path
) -> None:
    result = run("quantize", exported[0], tmp_path / "out", "--scheme", "int4")
    refused(result, 1, "is int8", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_an_unlisted_file_in_a_bundle_is_one_warning(tiny_edge: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_edge, tmp_path / "bundle")
    (tmp_path / "bundle" / "more.txt").write_text("x")
    result = run("generate", "hi", "-m", tmp_path / "bundle", "-n", "1")
    assert result.code == 0
    assert result.err.splitlines() == [
        f"warning: {tmp_path / 'bundle'} holds files that its manifest does not list: 'more.txt'"
    ]


# --- prompts and options


def test_a_prompt_that_is_empty(tiny_edge: Path) -> None:
    for arguments, stdin in (
        (["generate", ""], b""),
        (["generate", "-"], b""),
        (["generate"], b"\n"),
    ):
        refused(run(*arguments, "-m", tiny_edge, stdin=stdin), 2, "the prompt is empty")


def test_a_prompt_that_is_not_utf8(tiny_edge: Path) -> None:
    for command in ("generate", "tokenize"):
        refused(
            run(command, "-", "-m", tiny_edge, stdin=b"good\xff"), 1, "not UTF-8", "byte 4", "0xff"
        )
        refused(run(command, "bad \udcff argument", "-m", tiny_edge), 1, "not UTF-8", "character 4")
    refused(run("generate", "hi", "--stop", "\udcff", "-m", tiny_edge), 1, "--stop is not UTF-8")


def test_a_prompt_longer_than_the_context(tiny_edge: Path) -> None:
    result = run("generate", "é" * 40, "-m", tiny_edge)
    refused(result, 1, "80 tokens", "64")
    assert "--truncate left" in result.err


def test_a_prompt_of_10_mb_is_refused_at_once(tiny_edge: Path) -> None:
    data = b"never ending " * 800_000
    started = time.process_time()
    refused(run("generate", "-m", tiny_edge, stdin=data), 1, "10400000 bytes", "64 tokens")
    assert time.process_time() - started < 1.0


def test_standard_input_without_an_end_is_cut_off() -> None:
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run(
            [*COMMAND, "generate"],
            stdin=zeros,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: standard input has more than 64 MiB")


OPTIONS = {
    "-n 0": ("--max-new-tokens", "at least 1", "0"),
    "-n -1": ("--max-new-tokens", "-1"),
    "-n many": ("--max-new-tokens", "valid int"),
    "--top-k 0": ("--top-k", "at least 1", "0"),
    "--top-k 1.5": ("--top-k",),
    "--temperature nan": ("--temperature", "finite", "nan"),
    "--temperature inf": ("--temperature", "inf"),
    "--temperature -0.1": ("--temperature", "-0.1"),
    "--seed -1": ("--seed", "-1"),
    "--stop=": ("--stop", "1 to 64 characters", "''"),
    "--stop a --stop b --stop c --stop d --stop e": ("--stop", "at most 4"),
    "--truncate right": ("--truncate", "right"),
    "--threads 0": ("--threads", "from 1 to 256"),
    "--threads 100000": ("--threads", "from 1 to 256"),
    "--no-such-option": ("--no-such-option",),
    "second": ("second",),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_generate_refuses(options: str, tiny_edge: Path) -> None:
    result = run("generate", "hi", "-m", tiny_edge, *options.split())
    refused(result, 2, *OPTIONS[options])
    assert result.err.splitlines()[1:] == ["hint: gpt-edge generate --help"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["sing"], ["sing"]),
        (["--loud"], ["--loud"]),
        (["export"], ["SOURCE"]),
        (["export", "a"], ["OUT"]),
        (["export", "a", "b", "--scheme", "int2"], ["--scheme", "int2", "int8"]),
        (["export", "a", "b", "--graph", "round"], ["--graph", "round"]),
        (["export", "a", "b", "--target", "avx2"], ["--target avx2", "int8-dynamic"]),
        (
            ["export", "a", "b", "--scheme", "int8-dynamic", "--target", "mips"],
            ["--target", "mips"],
        ),
        (["quantize", "a", "b"], ["--scheme"]),
        (["quantize", "a", "b", "--scheme", "fp32"], ["--scheme", "fp32"]),
        (["train"], ["RECIPE"]),
        (
            ["finetune"],
            ["'--task'. Choose from: classification, entailment, similarity, multiple-choice"],
        ),
        (["inspect", "a", "b"], ["b"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], names: list[str]) -> None:
    result = run(*arguments)
    refused(result, 2, *names)
    assert result.err.splitlines()[1].startswith("hint: gpt-edge")


def test_a_name_with_control_characters_stays_one_harmless_line() -> None:
    line = refused(run("inspect", "no\nsuch\x1b[31m bundle"), 1)
    assert "no\\x0asuch\\x1b[31m bundle" in line


def test_a_recipe_that_is_wrong(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    refused(run("train", recipe), 1, "recipe.toml")
    recipe.write_text("[model")
    refused(run("train", recipe), 1, "recipe.toml", "not TOML")
    recipe.write_text("[models]\n")
    refused(run("train", recipe), 1, "recipe.toml", "models")
    assert os.listdir(tmp_path) == ["recipe.toml"]


# --- outputs


def occupied(out: Path) -> None:
    out.mkdir()
    (out / "precious.txt").write_text("keep me")


OUTPUTS: dict[str, tuple[str, Spoil, list[str], tuple[str, ...]]] = {
    "exists": ("out", occupied, [], ("out", "exists")),
    "exists and is not a bundle": ("out", occupied, ["--force"], ("did not write",)),
    "is a file": ("out", lambda out: out.write_text("keep me"), ["--force"], ("out", "is a file")),
    "is a link": ("out", lambda out: out.symlink_to("elsewhere"), ["--force"], ("symbolic link",)),
    "is the source": ("source", lambda out: None, ["--force"], ("is the source itself",)),
    "sits inside the source": (
        "source/deep/out",
        lambda out: None,
        [],
        ("lies inside the source",),
    ),
    "contains the source": (".", lambda out: None, ["--force"], ("source",)),
    "has a file for a parent": (
        "file/out",
        lambda out: out.parent.write_text("keep me"),
        [],
        ("out",),
    ),
    "has a name that is too long": ("x" * 300, lambda out: None, [], ("File name too long",)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_export_refuses_an_output_folder_that(
    name: str, spoilt: Callable[[Spoil], Path], tmp_path: Path
) -> None:
    place, prepare, options, names = OUTPUTS[name]
    source = spoilt(lambda folder: None)
    prepare(tmp_path / place)
    before = listing(tmp_path)
    refused(run("export", source, tmp_path / place, *options), 1, *names)
    assert listing(tmp_path) == before


def test_export_refuses_an_output_folder_that_is_read_only(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere, but not into the kernel's own folders
        folder = Path("/proc/self")
    refused(
        run("export", checkpoint, folder / "out"), 1, "cannot write", str(folder.resolve() / "out")
    )
    folder.chmod(0o700) if folder.parent == tmp_path else None
    assert list(tmp_path.rglob("*")) == [tmp_path / "locked"]


def test_export_refuses_an_output_folder_that_another_export_is_writing(
    checkpoint: Path, tmp_path: Path
) -> None:
    with hold_lock(tmp_path / "out"):
        result = run("export", checkpoint, tmp_path / "out")
        assert listing(tmp_path).keys() == {".out.lock"}
    refused(result, 1, "out", "busy")


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("torch", ["export", "a", "b"], "export"),
        ("onnx_ir", ["export", "a", "b"], "export"),
        ("torch", ["verify", "tests/golden/tiny-edge", "--against", "checkpoint"], "export"),
        ("torch", ["train", "recipe.toml"], "train"),
    ],
)
def test_a_missing_extra_says_which_pip_install_to_type(
    package: str, arguments: list[str], extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; "
        "from gpt_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    refused(result, 1, repr(package), "not installed")
    assert result.err.splitlines()[1] == f"hint: pip install 'gpt-edge[{extra}]'"
