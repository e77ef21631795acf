"""Inputs of the linear layers: calibration text, and X^T X of each layer's input in the reference,
layer by layer.

Without a text the model generates its own, sampled at temperature 1 from its end token (Liu et al.
2023, LLM-QAT, section 3.1). Such a text is of the right domain for any model and needs no download.
A text like those that the model will process is better. Memory holds the weights and Hessians of
one layer at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.data.documents import TextFile
from gpt_edge.errors import ExportError
from gpt_edge.export.weights.reference_operators import LINEARS
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.model import GPT, Block, causal_mask, without_memory
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import Tokenizer

# tokens in a row of calibration or evaluation text, less where the context is shorter
ROW_TOKENS = 256
CALIBRATION_TOKENS = 16_384
EVALUATION_TOKENS = 16_384
GENERATED_AT_ONCE = 32  # rows of one batch
TOKENS_AT_ONCE = 2048  # of one call of a layer: bounds the activations' memory
# different texts for calibration and for measuring
CALIBRATION_SEED = 20181106
EVALUATION_SEED = 20190214


@dataclass(frozen=True, slots=True)
class Rows:
    """Token ids [S, T], every row processed from an empty context, and their origin in words."""

    ids: IntArray
    origin: str

    @property
    def n_tokens(self) -> int:
        """The number of tokens."""
        return int(self.ids.size)

    def first(self, n_tokens: int) -> Rows:
        """The first rows, about `n_tokens` tokens, at least one row."""
        return replace(self, ids=self.ids[: max(1, n_tokens // self.ids.shape[1])])


def own_text(session: Session, start: int | None, n_tokens: int, seed: int) -> Rows:
    """About `n_tokens` tokens that the model generates, float32 probabilities, temperature 1.

    start: the id that every row begins with, its end token; None begins with random ids. The same
    seed and machine give the same text.
    """
    config = session.config
    rng = np.random.default_rng(seed)
    width = min(ROW_TOKENS, config.n_ctx)
    n_rows = max(1, n_tokens // width)
    batches_of_ids = []
    for begin in range(0, n_rows, GENERATED_AT_ONCE):
        batch = min(GENERATED_AT_ONCE, n_rows - begin)
        ids = np.empty((batch, width), np.int64)
        ids[:, 0] = rng.integers(0, config.vocab_size, batch) if start is None else start
        cache = session.new_cache(batch, capacity=width)
        for step in range(1, width):
            ids[:, step] = _sample(session.decode(ids[:, step - 1], cache), rng)
        batches_of_ids.append(ids)
    return Rows(np.concatenate(batches_of_ids), f"text written by the model, seed {seed}")


def _sample(logits: FloatArray, rng: np.random.Generator) -> IntArray:
    """One id for each row of [B, V]: by the inverse of the cumulative distribution, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    cumulative = np.cumsum(shifted, -1)
    drawn = rng.random((len(logits), 1)) * cumulative[:, -1:]
    return np.asarray(np.minimum((cumulative < drawn).sum(-1), logits.shape[1] - 1), np.int64)


def read_rows(path: Path, tokenizer: Tokenizer | None, config: GPTConfig, n_tokens: int) -> Rows:
    """The first `n_tokens` tokens or fewer of a corpus, cut into rows; a shorter last row is
    left out.

    path: as `TextFile` reads it; each document becomes `end token, its tokens`.
    Raises ExportError for a bundle without a tokenizer and for a text shorter than a row,
    EvaluationError for a file that cannot be read.
    """
    if tokenizer is None:
        raise ExportError(f"the text {path} cannot be read: the bundle has no tokenizer")
    is_led = bool(tokenizer.prefix)  # then the prefix begins a document, in place of the end token
    end = [] if is_led or tokenizer.end_token is None else [tokenizer.end_token]
    width = min(ROW_TOKENS, config.n_ctx)
    ids: list[int] = []
    for piece in TextFile(path).pieces():
        if piece.is_start:
            ids += end + tokenizer.encode(piece.text)
        else:
            ids += tokenizer.encode_part(piece.text)
        if len(ids) >= n_tokens:
            break
    n_rows = min(len(ids), max(n_tokens, width)) // width
    if n_rows == 0:
        raise ExportError(
            f"{path} has {len(ids)} tokens, at least {width} are needed", hint="give a longer text"
        )
    rows = np.array(ids[: n_rows * width], np.int64).reshape(n_rows, width)
    return Rows(
        rows, f"a text, its ids with SHA-256 {hashlib.sha256(rows.tobytes()).hexdigest()[:12]}"
    )


def load_reference(source: WeightSource) -> GPT:
    """The whole reference with the source's weights, float32, in evaluation mode, owning its
    memory.
    """
    config = replace(source.config, n_label=None)
    with without_memory():
        model = GPT(config)
    names = [name for name, _ in model.named_parameters()]
    model.load_state_dict(
        {name: _tensor(source, name) for name in names}, strict=False, assign=True
    )
    if config.tied_embeddings:  # assignment made two parameters out of the one tensor
        model.lm_head.weight = model.wte.weight
    return model.eval()


def load_block(source: WeightSource, layer: int) -> Block:
    """One layer of the reference."""
    with without_memory():
        block = Block(source.config, layer, 0.0)
    state = {name: _tensor(source, f"h.{layer}.{name}") for name, _ in block.named_parameters()}
    block.load_state_dict(state, assign=True)
    return block.eval()


def _tensor(source: WeightSource, name: str) -> Tensor:
    array = np.array(source.tensor(name), np.float32, order="C")
    source.release(name)
    return torch.from_numpy(array)


def run_block(block: Block, x: Tensor) -> Tensor:
    """[B, T, C] -> [B, T, C], from an empty context."""
    attn = block.attn
    mask = None if attn.window is None else causal_mask(0, x.shape[1], attn.window, x.device)
    y: Tensor = block(x, lambda n: attn(n, None, mask)[0])
    return y


def batches(rows: IntArray) -> Iterator[slice]:
    """Slices of rows [S, T] that hold about TOKENS_AT_ONCE tokens."""
    step = max(1, TOKENS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


@torch.inference_mode()
def layer_hessians(
    source: WeightSource, rows: Rows, progress: Callable[[str], None] = lambda name: None
) -> Iterator[dict[str, Tensor]]:
    """For each layer in order: by weight name, X^T X, float32 [K, K], of all inputs of the linear
    layer.

    The activations are those of the unquantized model, so one pass serves every format.
    """
    ids = torch.from_numpy(rows.ids)
    table = _tensor(source, "wte.weight")
    positions = _tensor(source, "wpe.weight")
    states = table[ids] + positions[: ids.shape[1]]  # [S, T, C]
    del table, positions
    for layer in range(source.config.n_layer):
        progress(f"h.{layer}")
        block = load_block(source, layer)
        sums: dict[str, Tensor] = {}
        hooks = [
            block.get_submodule(name).register_forward_pre_hook(
                _Collector(sums, f"h.{layer}.{name}.weight")
            )
            for name in LINEARS
        ]
        for rows_of_batch in batches(rows.ids):
            states[rows_of_batch] = run_block(block, states[rows_of_batch])
        for hook in hooks:
            hook.remove()
        del block
        yield sums


@dataclass(frozen=True, slots=True)
class _Collector:
    """A hook that adds up X^T X under a name."""

    sums: dict[str, Tensor]
    name: str

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        if self.name in self.sums:
            self.sums[self.name].addmm_(x.T, x)
        else:
            self.sums[self.name] = x.T @ x
