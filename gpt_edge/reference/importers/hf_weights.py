"""The weights of a Hugging Face folder: safetensors first, torch pickles only through the
restricted loader.

Shared by the three architectures, whose own files hold the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.safetensors_file import (
    open_safetensors,
    open_sharded_safetensors,
    read_weight_map,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import TensorSource
from gpt_edge.reference.importers.torch_pickle import open_sharded_torch_tensors, open_torch_tensors

_OPENERS: dict[str, Callable[[Path], TensorSource]] = {
    "model.safetensors": open_safetensors,
    "model.safetensors.index.json": open_sharded_safetensors,
    "pytorch_model.bin": open_torch_tensors,
    "pytorch_model.bin.index.json": lambda index: open_sharded_torch_tensors(
        index, read_weight_map(index)
    ),
}

# transformers' names for the non-linearities that the reference has
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_BUFFERS = re.compile(r"(.*\.)?(h\.\d+\.attn\.(attention\.)?(bias|masked_bias)|position_ids)")


def open_weights(folder: Path) -> TensorSource:
    """Open the first weights file that exists. Raises CheckpointError when there is none."""
    for name, opener in _OPENERS.items():
        if (folder / name).is_file():
            _refuse_pointer(folder / name)
            return opener(folder / name)
    raise CheckpointError(
        f"{folder} has a config.json but no weights, expected one of {', '.join(_OPENERS)}"
    )


def _refuse_pointer(path: Path) -> None:
    """A clone without Git LFS leaves a few lines of text in place of the weights."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(
                f"{path} is a Git LFS pointer, not the weights",
                hint=f"git -C {path.parent} lfs pull",
            )


def is_buffer(name: str) -> bool:
    """Whether a tensor is a causal mask or position ids, which older versions of transformers saved
    with the weights.
    """
    return _BUFFERS.fullmatch(name) is not None


def prefix_of(source: TensorSource, embedding: str) -> str:
    """ "transformer." for a model saved with its head, "" for one saved without."""
    return "transformer." if f"transformer.{embedding}" in source.infos else ""


def refuse_unsupported(settings: CheckpointSettings) -> None:
    """Raise CheckpointError for an option of config.json that the reference does not have."""
    settings.refuse("quantization_config", "only float weights can be imported")
    settings.refuse("add_cross_attention", "an encoder-decoder is another architecture")
    settings.refuse("pruned_heads", "every layer must have all of its heads")
