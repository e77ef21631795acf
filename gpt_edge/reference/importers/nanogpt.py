"""nanoGPT's ckpt.pt: {"model": state dict, "model_args": {...}, ...}.

Linear weights are [out, in]; bias=False leaves out every bias; torch.compile prefixes the names
with "_orig_mod.". The non-linearity is nn.GELU(), the exact form; before June 2023 it was GPT-2's
tanh form, and nothing in the file tells which. Source: github.com/karpathy/nanoGPT, model.py and
train.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_weights import is_buffer
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import printable
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin, open_tensors
from gpt_edge.reference.importers.tensor_names import plain_names_of
from gpt_edge.reference.importers.torch_pickle import LoadedTensors, as_tensors

KIND = "nanogpt"
SILENT = (KIND, "state-dict", "lightning")  # kinds whose files do not say their activation
ACTIVATIONS = ("gelu", "gelu_tanh")
_ARGUMENTS = {"n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"}
_COMPILED = "_orig_mod."


def is_nanogpt(content: object) -> bool:
    """Whether the content of a torch file is that of nanoGPT's."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("model_args"), dict)
        and "model" in content
    )


def open_nanogpt(path: Path, file: Path, content: dict[str, Any]) -> Checkpoint:
    """path: as the caller gave it, the file or its folder. content: of the file, see `is_nanogpt`.
    Raises CheckpointError as `open_tensors` does.
    """
    settings = CheckpointSettings(f"{file}: model_args", content["model_args"])
    if unknown := sorted(str(name) for name in settings.values if name not in _ARGUMENTS):
        raise CheckpointError(
            f"{settings.where} has {printable(', '.join(unknown))}, which nanoGPT does not know: "
            "is this a fork?"
        )
    source, notes = without_prefix(as_tensors(str(file), content["model"]))
    has_bias = settings.flag("bias", True)
    config = settings.config(
        n_layer=settings.whole("n_layer"),
        n_head=settings.whole("n_head"),
        n_embd=settings.whole("n_embd"),
        n_ctx=settings.whole("block_size"),
        vocab_size=settings.whole("vocab_size"),
        activation="gelu",
        tied_embeddings=is_tied(source),
    )

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        if name.endswith(".bias") and not has_bias:
            return Origin((), shape)
        return Origin((name if name == "lm_head.weight" else f"transformer.{name}",), shape)

    return open_tensors(
        KIND,
        path,
        config,
        source,
        origin_of,
        is_buffer,
        tied_copy="lm_head.weight",
        notes=notes,
    )


def with_activation(checkpoint: Checkpoint, activation: str | None) -> Checkpoint:
    """Return `checkpoint` with another non-linearity, "gelu" or "gelu_tanh"; None keeps it.

    Raises CheckpointError unless it is nanoGPT's or a state dict: the others say themselves what
    they have.
    """
    if activation is None:
        return checkpoint
    if checkpoint.kind not in SILENT:
        raise CheckpointError(
            f"{checkpoint.path} says its activation itself: {checkpoint.config.activation}",
            hint="an activation can be given for nanoGPT's ckpt.pt and for state dicts",
        )
    config = dataclasses.replace(checkpoint.config, activation=activation)
    return dataclasses.replace(checkpoint, config=config)


def like(checkpoint: Checkpoint, config: GPTConfig) -> Checkpoint:
    """Return a nanoGPT checkpoint or a state dict with the non-linearity of the model that it is
    compared with, as its file does not tell; any other checkpoint as it is.
    """
    if checkpoint.kind not in SILENT or config.activation not in ACTIVATIONS:
        return checkpoint
    return with_activation(checkpoint, config.activation)


def without_prefix(source: LoadedTensors) -> tuple[LoadedTensors, list[str]]:
    """The tensors without what wrappers put before or into their names, and notes on it."""
    plain_names, notes = plain_names_of(source.tensors, "wpe.weight")
    tensors = {plain_names[name]: tensor for name, tensor in source.tensors.items()}
    is_mixed = any(name.startswith(_COMPILED) for name in tensors)
    if is_mixed or len(tensors) != len(source.tensors):
        raise CheckpointError(f"{source.where} holds tensors with and without {_COMPILED}")
    return LoadedTensors(source.where, tensors), notes


def is_tied(source: LoadedTensors, name: str = "transformer.wte.weight") -> bool:
    """Whether the embedding of this name and the head are one: nanoGPT ties the head and stores it
    twice, other writers once under either name; an untied head has other values.
    """
    head = source.tensors.get("lm_head.weight")
    embedding = source.tensors.get(name)
    if head is None or embedding is None:
        return True
    if head.shape != embedding.shape or head.dtype != embedding.dtype:
        return False
    return head.data_ptr() == embedding.data_ptr() or torch.equal(head, embedding)
