"""Texts per second of a classifier: gpt-edge int8 beside Optimum's
ORTModelForSequenceClassification, int8 too, as a table.

    python benchmarks/speed/classify_speed.py    # GPT-2 124M's shape, 3 rounds; about ten minutes
    python benchmarks/speed/classify_speed.py --layers 2 --width 256 --heads 4 --texts 64 --rounds 2

One GPT2ForSequenceClassification with random weights goes both ways: exported and dynamically
quantised by Optimum (one scale per channel, the target that fits this CPU), and, the same body and
head, exported by `gpt-edge export`. Both read the same ids of ragged length (log-normal, median
24 tokens), ours in batches of like lengths, Optimum's as a user would feed it: in batches of BATCH
in the given order, padded at the ends; and, to be fair, in order of length as well. Rounds
alternate; medians. Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from speed_machine import cpu_kind

from gpt_edge.config import GPTConfig
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.model import GPT
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import TaskSpec

# Optimum's that fit a kind of CPU
PRESETS = {"avx512": "avx512_vnni", "amx": "avx512_vnni", "neon": "arm64"}
LABELS = ("negative", "neutral", "positive")
BATCH = 32
MEDIAN_TOKENS, SPREAD, LONGEST = 24, 0.6, 256
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # Conv1D stores [in, out]


def main() -> None:
    """Export both ways, run, print."""
    given = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sequences = ragged_texts(given.texts, given.vocab)
        ours, theirs = export_ours(folder, given), export_theirs(folder, given)
        rows = [
            row
            for threads in given.threads
            for row in measure(ours, theirs, sequences, threads, given.rounds)
        ]
    n_tokens = sum(map(len, sequences))
    print(
        f"{given.texts} texts, {n_tokens:,} tokens; {given.layers} layers, width {given.width}; "
        f"medians of {given.rounds}"
    )
    print(
        "\n| threads | engine | texts/s | tokens/s | ours is so many times as fast "
        "|\n|--:|---|--:|--:|--:|"
    )
    for threads, engine, seconds, ratio in rows:
        print(
            f"| {threads} | {engine} | {len(sequences) / seconds:.1f} | {n_tokens / seconds:,.0f} "
            f"| {ratio} |"
        )


def parse() -> argparse.Namespace:
    """The arguments."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (
        ("layers", 12),
        ("width", 768),
        ("heads", 12),
        ("vocab", 50257),
        ("texts", 128),
        ("rounds", 3),
    ):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    preset = PRESETS.get(cpu_kind(), "avx2")
    arguments.add_argument("--target", default=preset, help="Optimum's preset")
    return arguments.parse_args()


def ragged_texts(n: int, vocab: int) -> list[list[int]]:
    """Ids of `n` texts; the last one of each stands for ours' extract token."""
    rng = np.random.default_rng(5)
    sizes = np.clip(np.exp(rng.normal(np.log(MEDIAN_TOKENS), SPREAD, n)), 3, LONGEST).astype(int)
    return [rng.integers(0, vocab, size).tolist() for size in sizes]


def theirs_in_torch(given: argparse.Namespace) -> Any:
    """transformers' model, random."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=given.layers,
        n_embd=given.width,
        n_head=given.heads,
        vocab_size=given.vocab,
        n_positions=512,
        num_labels=len(LABELS),
        pad_token_id=0,
    )
    return GPT2ForSequenceClassification(config).eval()


def export_ours(folder: Path, given: argparse.Namespace) -> Path:
    """The same weights as a gpt-edge bundle. The task's tokens are three of the vocabulary."""
    state = theirs_in_torch(given).state_dict()
    config = GPTConfig(given.layers, given.heads, given.width, 512, given.vocab)
    gpt = GPT(config)
    weights = {
        name.removeprefix("transformer."): value
        for name, value in state.items()
        if name != "score.weight"
    }
    weights = {
        name: value.T if name.endswith(TRANSPOSED) else value for name, value in weights.items()
    }
    gpt.load_state_dict({**weights, "lm_head.weight": weights["wte.weight"]})
    spec = TaskSpec("classification", given.vocab - 3, given.vocab - 2, given.vocab - 1, LABELS)
    model = TaskModel(gpt, spec)
    with torch.no_grad():
        model.task_head.weight.copy_(state["score.weight"])
        model.task_head.bias.zero_()
    save_checkpoint(folder / "ours-source", model.config, model.tensors(), None, {}, spec)
    return export_bundle(folder / "ours-source", folder / "ours", scheme="int8", tokenizer="none")[
        0
    ].path


def export_theirs(folder: Path, given: argparse.Namespace) -> Path:
    """Optimum's ONNX file, dynamically quantised."""
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    theirs_in_torch(given).save_pretrained(folder / "theirs-source")
    exported = ORTModelForSequenceClassification.from_pretrained(
        folder / "theirs-source", export=True
    )
    exported.save_pretrained(folder / "theirs-fp32")
    settings = getattr(AutoQuantizationConfig, given.target)(is_static=False, per_channel=True)
    quantizer = ORTQuantizer.from_pretrained(folder / "theirs-fp32")
    quantizer.quantize(save_dir=folder / "theirs", quantization_config=settings)
    return folder / "theirs"


def measure(
    ours: Path, theirs: Path, sequences: Sequence[Sequence[int]], threads: int, rounds: int
) -> list[tuple[int, str, float, str]]:
    """(threads, engine, median seconds, ratio) of each engine; all of them once in each round."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    from gpt_edge.bundle.bundle import Bundle

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = ORTModelForSequenceClassification.from_pretrained(theirs, session_options=options)
    encoder = Encoder(Bundle.open(ours), threads=threads)
    by_length = sorted(sequences, key=len)
    engines: dict[str, Callable[[], np.ndarray]] = {
        "gpt-edge int8": lambda: encoder.logits(sequences),
        "Optimum int8, texts as they come": lambda: ask(model, sequences),
        "Optimum int8, texts by length": lambda: ask(model, by_length),
    }
    found = [run() for run in engines.values()]  # warms up, too
    same = (found[0].argmax(1) == found[1].argmax(1)).mean()
    print(f"{threads} threads: {same:.1%} of the labels are the same in both")
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    return [(threads, name, value, f"{value / first:.2f}") for name, value in medians.items()]


def ask(model: Any, sequences: Sequence[Sequence[int]]) -> np.ndarray:
    """Logits [N, labels] by Optimum, BATCH texts at a time, padded at the ends."""
    found = []
    for start in range(0, len(sequences), BATCH):
        part = sequences[start : start + BATCH]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(part):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        found.append(model(input_ids=ids, attention_mask=mask).logits.numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
