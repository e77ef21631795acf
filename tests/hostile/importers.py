"""Damaged checkpoints, tokenizers, recipes and examples, each read in a forked child:

    python -m tests.hostile.importers --tries 5000 [KIND ...]

Every outcome is a right load or one clear line of a GPTEdgeError. After Ctrl-C the tries of a kind
so far are printed. Needs torch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from gpt_edge.data.examples import default_columns, read_examples
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.tokenizer.discover import tokenizer_from
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.training.recipe import read_recipe
from tests.conftest import REPO
from tests.hostile.attempt_server import SECONDS, in_child, outcome_of
from tests.support.models import TINY, random_model, save_random
from tests.support.transformers_models import random_transformers, save_vocabulary

CONFIG = dataclasses.replace(TINY["gpt2"], n_layer=1, n_embd=16, n_head=2, vocab_size=61)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A good thing to damage. write: into a folder; files: those that are damaged; read: of the
    folder, as a command would.
    """

    write: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], object]


def read_weights(folder: Path) -> None:
    """Open a checkpoint and read every tensor."""
    open_checkpoint(folder).load_model()


def read_tokenizer(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        tokenizer = build_tokenizer(tokenizer_from(str(folder / name)))
        tokenizer.decode(tokenizer.encode("A cat, 12 dogs"))

    return read


def _torch(**options: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        random_transformers("GPT2", "LMHeadModel").config.save_pretrained(folder)
        state = random_transformers("GPT2", "LMHeadModel").state_dict()
        torch.save(state, folder / "pytorch_model.bin", **options)  # type: ignore[arg-type]

    return write


def _nanogpt(folder: Path) -> None:
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": CONFIG.n_ctx, "vocab_size": 61}
    model = random_model(CONFIG)
    state = {
        name if name.startswith("lm_head") else f"transformer.{name}": tensor
        for name, tensor in model.state_dict().items()
    }
    content = {"model": state, "model_args": {**sizes, "bias": True, "dropout": 0.0}}
    torch.save(content, folder / "ckpt.pt")


def _gpt1(folder: Path) -> None:
    width = 24
    of_layer = [
        [1, width, 3 * width], [3 * width], [1, width, width], [width], [width], [width],
        [1, width, 4 * width], [4 * width], [1, 4 * width, width], [width], [width], [width],
    ]  # fmt: skip
    shapes = [[16, width], [40, width], *of_layer]
    n_values = sum(int(np.prod(shape)) for shape in shapes)
    values = np.random.default_rng(0).normal(size=n_values).astype(np.float32)
    for number, part in enumerate(np.array_split(values, 10)):
        np.save(folder / f"params_{number}.npy", part)
    (folder / "params_shapes.json").write_text(json.dumps(shapes))


def _rank_file(folder: Path) -> None:
    shutil.copy(
        REPO / "tests" / "golden" / "tiny-edge" / "tokenizer.tiktoken", folder / "x.tiktoken"
    )


def _tokenizer_json(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    save_vocabulary(folder)
    names = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    ByteLevelBPETokenizer(*names).save(str(folder / "tokenizer.json"))
    for name in names:
        Path(name).unlink()


def _examples(name: str, content: str) -> Kind:
    def read(folder: Path) -> None:
        columns = default_columns("classification")
        read_examples(folder / name, columns)

    return Kind(lambda folder: (folder / name).write_text(content), (name,), read)


KINDS: dict[str, Kind] = {
    "safetensors": Kind(
        lambda folder: save_random(folder, CONFIG),
        ("model.safetensors", "config.json"),
        read_weights,
    ),
    "Hugging Face": Kind(
        lambda folder: random_transformers("GPT2", "LMHeadModel").save_pretrained(folder),
        ("model.safetensors", "config.json"),
        read_weights,
    ),
    "torch zip": Kind(_torch(), ("pytorch_model.bin",), read_weights),
    "torch legacy": Kind(
        _torch(_use_new_zipfile_serialization=False), ("pytorch_model.bin",), read_weights
    ),
    "nanoGPT": Kind(_nanogpt, ("ckpt.pt",), read_weights),
    "GPT-1 npy": Kind(_gpt1, ("params_0.npy", "params_7.npy", "params_shapes.json"), read_weights),
    "TensorFlow": Kind(
        lambda folder: shutil.copytree(
            REPO / "tests" / "golden" / "tf_gpt2_tiny", folder, dirs_exist_ok=True
        ),
        ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "hparams.json", "checkpoint"),
        read_weights,
    ),
    "rank file": Kind(_rank_file, ("x.tiktoken",), read_tokenizer("x.tiktoken")),
    "vocab and merges": Kind(save_vocabulary, ("vocab.json", "merges.txt"), read_tokenizer("")),
    "tokenizer.json": Kind(_tokenizer_json, ("tokenizer.json",), read_tokenizer("tokenizer.json")),
    "recipe": Kind(
        lambda folder: shutil.copy(REPO / "models" / "tinystories.toml", folder / "recipe.toml"),
        ("recipe.toml",),
        lambda folder: read_recipe(folder / "recipe.toml"),
    ),
    "CSV": _examples("x.csv", 'text,label\n"a good film",good\nbad one,bad\n' * 20),
    "JSONL": _examples("x.jsonl", '{"text": "a good film", "label": "good"}\n' * 20),
}
BATCH = 25  # mutants in a fork; a pipe holds what they came to
PIECES = (
    b"\x00",
    b"\xff",
    b"[" * 3000,
    b'"',
    b"{",
    b"9" * 400,
    b"9" * 5000,
    b"0x" + b"f" * 5000,
    b'"\\ud800"',
    b"-1",
    b"NaN",
    b"\n",
    b"()",
    b"1e999",
)


def damage(draw: random.Random, data: bytearray) -> None:
    """Change bytes in place, most often near the beginning, where headers are."""
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not data:
            return
        end = len(data) if draw.randrange(2) else min(len(data), 400)
        at, what = draw.randrange(end), draw.randrange(6)
        if what == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[at] = draw.choice((0, 1, 32, 48, 57, 127, 128, 255))
        elif what == 2:
            del data[at : at + draw.choice((1, 2, 8, 100))]
        elif what == 3:
            data[at:at] = draw.choice(PIECES)
        elif what == 4:
            other = draw.randrange(len(data))
            data[at : at + 40] = data[other : other + 40]
        else:
            del data[at:]


def run(name: str, n_tries: int, counts: Counter[str], first: int = 0) -> None:
    """Try so many mutants of a kind; prints those that did not end as they should."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as temporary:
        good = Path(temporary) / "good"
        good.mkdir()
        kind.write(good)
        bad = Path(temporary) / "bad"
        shutil.copytree(good, bad)
        kind.read(good)
        seeds = range(first, first + n_tries)
        for at in range(0, n_tries, BATCH):
            for seed, found in _outcomes(kind, good, bad, seeds[at : at + BATCH]):
                counts[str(found["outcome"])] += 1
                if found["outcome"] not in ("loaded", "refused"):
                    print(f"  {name} {seed}: {found}", flush=True)


def _outcomes(
    kind: Kind, good: Path, bad: Path, seeds: Sequence[int]
) -> list[tuple[int, dict[str, object]]]:
    """Several mutants in one fork, as a fork of torch takes longer than a mutant; one that ends it,
    and those behind it, in one of their own.
    """
    reader, writer = os.pipe()

    def work() -> None:
        for seed in seeds:
            found = outcome_of(lambda: _read_mutant(kind, good, bad, seed))  # noqa: B023
            os.write(writer, json.dumps(found).encode() + b"\n")

    ended = in_child(work, SECONDS if len(seeds) == 1 else BATCH * SECONDS)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        found = [json.loads(line) for line in stream]
    if len(found) < len(seeds):
        if len(seeds) == 1:
            return [(seeds[0], ended)]
        rest = seeds[len(found) :]
        after = [_outcomes(kind, good, bad, [seed]) for seed in rest]
        return [*zip(seeds, found, strict=False), *(pair for pairs in after for pair in pairs)]
    return list(zip(seeds, found, strict=True))


def _read_mutant(kind: Kind, good: Path, bad: Path, seed: int) -> None:
    draw = random.Random(seed)
    file = draw.choice(kind.files)
    data = bytearray((good / file).read_bytes())
    damage(draw, data)
    (bad / file).write_bytes(data)
    try:
        _quietly(kind.read, bad)
    finally:
        shutil.copyfile(good / file, bad / file)


def _quietly(read: Callable[[Path], object], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(folder)


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| kind | tries | refused | loaded | traceback | killed | hung | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.kinds or KINDS:
        began = time.monotonic()
        counts: Counter[str] = Counter()
        with contextlib.suppress(KeyboardInterrupt):
            run(name, options.tries, counts, options.first)
        columns = [counts[key] for key in ("refused", "loaded", "traceback", "killed", "hung")]
        cells = " | ".join(map(str, columns))
        seconds = time.monotonic() - began
        print(f"| {name} | {counts.total()} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
