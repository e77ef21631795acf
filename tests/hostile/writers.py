"""The commands that write, each with a tiny world of its own, for tests of what a fault leaves.

A world is a folder with `in`, what a command reads, and `out`, the disk that is watched. Needs
torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.reference.checkpoint import load_checkpoint
from gpt_edge.training.run_state import load_state
from tests.conftest import REPO
from tests.support.crash_model import STRAYS, Tree
from tests.support.finetune_factory import LARGER, make_checkpoint, write_examples
from tests.training.conftest import RECIPE, stories

GOLDEN = REPO / "tests" / "golden"
Result = dict[str, object]


@dataclass(frozen=True)
class Writer:
    """prepare: fill `in` and what is in `out` before. command: arguments, for a world. result: what
    is to be seen in `out`, without times of the clock. again: arguments after a fault.
    check_between: where a command makes several steps, raises unless `out` is between two of them;
    None where there is one step.
    """

    name: str
    prepare: Callable[[Path], object]
    command: Callable[[Path], list[str]]
    result: Callable[[Path], Result]
    again: Callable[[Path], list[str]] | None = None
    check_between: Callable[[Path, Result], None] | None = None


def listed(folder: Path) -> Result:
    """The bytes of every file below a folder, by name; of folders nothing."""
    return {
        str(path.relative_to(folder)): b"" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def visible(folder: Path) -> Result:
    """`listed` without temporary names."""
    hidden = strays(folder)
    return {name: content for name, content in listed(folder).items() if name not in hidden}


def on_disk(folder: Path) -> Tree:
    """A folder as a Tree."""
    return {
        name: None if (folder / name).is_dir() else content
        for name, content in listed(folder).items()
        if isinstance(content, bytes)
    }


def strays(folder: Path) -> list[str]:
    """Names of ours that ought to be gone."""
    names = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    return [name for name in names if any(part in name for part in STRAYS)]


def bundle_of(name: str) -> Callable[[Path], Result]:
    """The weights and the scheme of a bundle; what a crash leaves of one raises."""

    def result(out: Path) -> Result:
        if not (out / name).exists():
            return {}
        bundle = Bundle.open(out / name)
        weights = [bundle.path / file for file in sorted(bundle.manifest.files)]
        return {path.name: path.read_bytes() for path in weights} | {"scheme": bundle.scheme}

    return result


def _checkpoint(world: Path) -> None:
    make_checkpoint(world / "in" / "checkpoint", LARGER)


def _old_bundle(world: Path) -> None:
    _checkpoint(world)
    shutil.copytree(GOLDEN / "tiny-portable", world / "out" / "bundle")


def write_corpus(folder: Path, run: Path) -> None:
    """A corpus, and a recipe that trains into `run`."""
    (folder / "train.txt").write_text(stories(40))
    (folder / "valid.txt").write_text(stories(6, first=200))
    recipe = RECIPE.format(folder=run.as_posix()).replace("steps = 12", "steps = 6")
    (folder / "recipe.toml").write_text(recipe)


def _corpus(world: Path) -> None:
    write_corpus(world / "in", world / "out" / "run")


def _training(world: Path) -> list[str]:
    resume = ["--resume"] if (world / "out" / "run" / "state.safetensors").exists() else []
    return ["train", str(world / "in" / "recipe.toml"), *resume]


def _run_result(out: Path) -> Result:
    """Weights, and the figures that do not depend on the clock."""
    run = out / "run"
    if not (run / "checkpoint").exists():
        return {}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    figures = [
        {key: value for key, value in json.loads(line).items() if "second" not in key}
        for line in lines
    ]
    weights = (run / "checkpoint" / "model.safetensors").read_bytes()
    saved = load_state(run / "state.safetensors").model
    held = {name: tensor.numpy().tobytes() for name, tensor in saved.items()}
    return {"weights": weights, "figures": figures, "state": held}


def _check_run(out: Path, new: Result) -> None:
    """Whatever is there of a run can be read."""
    run = out / "run"
    if (run / "state.safetensors").exists():
        load_state(run / "state.safetensors")
    if (run / "checkpoint").exists():
        load_checkpoint(run / "checkpoint")


def _examples(world: Path) -> None:
    trainings(world / "in")


def trainings(folder: Path) -> None:
    """A checkpoint, and what `train` and `finetune` read."""
    make_checkpoint(folder / "checkpoint", LARGER)
    write_corpus(folder, Path("run"))  # beside the recipe, wherever the folder is copied to
    write_examples(folder / "train.tsv", "classification", 24)
    write_examples(folder / "dev.tsv", "classification", 12, seed=1)


def _finetuning(world: Path) -> list[str]:
    resume = ["--resume"] if (world / "out" / "run" / "state.safetensors").exists() else []
    files = ["--data", str(world / "in" / "train.tsv"), "--dev", str(world / "in" / "dev.tsv")]
    source = ["--checkpoint", str(world / "in" / "checkpoint"), "--out", str(world / "out" / "run")]
    options = ["--epochs", "2", "--batch", "12", "--threads", "1"]
    return ["finetune", "--task", "classification", *files, *source, *options, *resume]


def _finetuned(out: Path) -> Result:
    found = _run_result(out)
    results = out / "run" / "results.json"
    return {**found, "has results": results.exists()} if found else {}


def _texts(world: Path) -> None:
    (world / "in" / "text.txt").write_text("A cat ran to the sea. " * 8)


def _evaluated(out: Path) -> Result:
    path = out / "state.json"
    if not path.exists():
        return {}
    sections = json.loads(path.read_bytes())["sections"]
    return {name: section["done"] for name, section in sections.items()}


def _check_state(out: Path, new: Result) -> None:
    _evaluated(out)


def _prompts(world: Path) -> None:
    rows = [{"prompt": word, "max_new_tokens": 2} for word in ("a", "the", "in", "on", "he")]
    (world / "in" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _check_lines(out: Path, new: Result) -> None:
    path = out / "results.jsonl"
    found = path.read_bytes() if path.exists() else b""
    whole = new["results.jsonl"]
    assert isinstance(whole, bytes)
    assert whole.startswith(found), "the file is no beginning of the results"


def _compiler(world: Path) -> None:
    compiler = world / "in" / "cc"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho made > "$2"\n')
    compiler.chmod(0o755)


def _library(out: Path) -> Result:
    return {path.suffix: path.read_bytes() for path in (out / "cache").rglob("operators-*.so")}


def _old_site(world: Path) -> None:
    site = world / "out" / "site"
    (site / "models").mkdir(parents=True)
    (site / "site.json").write_text('{"engine": "wasm"}')


def _site(out: Path) -> Result:
    return listed(out / "site") if (out / "site").exists() else {}


TINY = str(GOLDEN / "tiny-edge")
OUT, DEEP = "out/bundle", "out/deep/bundle"
QUANTIZE = ["quantize", TINY, DEEP, "--scheme", "int8", "--accept-parity"]
WRITERS = {
    writer.name: writer
    for writer in (
        Writer(
            "export",
            _checkpoint,
            lambda world: ["export", "in/checkpoint", DEEP, "--scheme", "fp32"],
            bundle_of("deep/bundle"),
            lambda world: ["export", "in/checkpoint", DEEP, "--scheme", "fp32", "--force"],
        ),
        Writer(
            "export --force",
            _old_bundle,
            lambda world: ["export", "in/checkpoint", OUT, "--scheme", "fp32", "--force"],
            bundle_of("bundle"),
        ),
        Writer(
            "quantize",
            lambda world: None,
            lambda world: QUANTIZE,
            bundle_of("deep/bundle"),
            lambda world: [*QUANTIZE, "--force"],
        ),
        Writer(
            "quantize --force",
            _old_bundle,
            lambda world: ["quantize", TINY, OUT, "--scheme", "int8", "--accept-parity", "--force"],
            bundle_of("bundle"),
        ),
        Writer("train", _corpus, _training, _run_result, _training, _check_run),
        Writer("finetune", _examples, _finetuning, _finetuned, _finetuning, _check_run),
        Writer(
            "eval --resume",
            _texts,
            lambda world: ["eval", TINY, "in/text.txt", "--resume", "out/state.json"],
            _evaluated,
            check_between=_check_state,
        ),
        Writer(
            "generate --batch",
            _prompts,
            lambda world: [
                *["generate", "-m", TINY, "--batch", "in/prompts.jsonl", "--batch-size", "2"],
                *["--greedy", "--out", "out/results.jsonl"],
            ],
            visible,
            check_between=_check_lines,
        ),
        Writer(
            "generate --prompt-cache",
            lambda world: None,
            lambda world: ["generate", "-m", TINY, "a cat", "-n", "2", "--prompt-cache", "out/s"],
            visible,
        ),
        Writer(
            "embed",
            lambda world: None,
            lambda world: ["embed", DEFAULT_BUNDLE, "a cat", "--out", "out/vectors.npy"],
            visible,
        ),
        Writer("native build", _compiler, lambda world: ["native", "build"], _library),
        Writer(
            "web --force",
            _old_site,
            lambda world: ["web", TINY, "--out", "out/site", "--force"],
            _site,
        ),
    )
}


def prepared(writer: Writer, folder: Path) -> Path:
    """A new world."""
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    writer.prepare(folder)
    return folder
