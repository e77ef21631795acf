"""The weights of a Hugging Face folder: safetensors first, torch pickles only through the
restricted loader.

Shared by the three architectures, whose own files hold the names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_classifier import find_head
from gpt_edge.reference.importers.near_misses import kind_of
from gpt_edge.reference.importers.safetensors_file import (
    open_safetensors,
    open_sharded_safetensors,
    read_weight_map,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import TensorSource, printable
from gpt_edge.reference.importers.tensor_map import HEAD_PREFIX, Checkpoint, Origin, open_tensors
from gpt_edge.reference.importers.tensor_names import (
    TRANSFORMER,
    is_other_head,
    with_plain_names,
)
from gpt_edge.reference.importers.torch_pickle import open_sharded_torch_tensors, open_torch_tensors

_OPENERS: dict[str, Callable[[Path], TensorSource]] = {
    "model.safetensors": open_safetensors,
    "model.safetensors.index.json": open_sharded_safetensors,
    "pytorch_model.bin": open_torch_tensors,
    "pytorch_model.bin.index.json": lambda index: open_sharded_torch_tensors(
        index, read_weight_map(index)
    ),
}

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_BUFFERS = re.compile(r"(.*\.)?(h\.\d+\.attn\.(attention\.)?(bias|masked_bias)|position_ids)")


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a folder. prefix: "transformer." (OPT: "model.") for a model saved with its
    head, "" for one saved without; notes: what was renamed.
    """

    source: TensorSource
    prefix: str
    notes: tuple[str, ...]


def open_weights(folder: Path, anchor: str, parent: str = TRANSFORMER) -> Weights:
    """Open the first weights file that exists. anchor: a tensor that every model has, without
    `parent`, which stands before it in a model with a head. Raises CheckpointError when there is
    no such file.
    """
    for name, opener in _OPENERS.items():
        if (folder / name).is_file():
            _refuse_pointer(folder / name)
            source, notes = with_plain_names(opener(folder / name), anchor, parent)
            is_below = any(name.startswith(parent) for name in source.infos)
            prefix = parent if is_below else ""
            return Weights(source, prefix, tuple(notes))
    raise CheckpointError(
        f"{folder} has a config.json but no weights, expected one of {', '.join(_OPENERS)}",
        hint=_other_weights_hint(folder),
    )


def open_model(
    kind: str,
    folder: Path,
    config: GPTConfig,
    settings: CheckpointSettings,
    weights: Weights,
    origin_of: Callable[[str, tuple[int, ...]], Origin],
) -> Checkpoint:
    """The checkpoint of a folder: a language model, or transformers' classifier.

    origin_of: of every tensor but the heads. Raises CheckpointError as `find_head` and
    `open_tensors` do.
    """
    head = find_head(settings, weights.source.infos)
    if head is not None:  # it has no head of a language model
        config = dataclasses.replace(config, n_label=head.task.n_label, tied_embeddings=True)

    def with_heads(name: str, shape: tuple[int, ...]) -> Origin:
        if name == "lm_head.weight":
            return Origin((name,), shape)
        if head is not None and name.startswith(HEAD_PREFIX):
            stored = head.weight if name.endswith(".weight") else head.bias
            return Origin((stored,) if stored else (), shape)
        return origin_of(name, shape)

    checkpoint = open_tensors(
        kind,
        folder,
        config,
        weights.source,
        with_heads,
        is_buffer,
        tied_copy="lm_head.weight",
        is_left_out=is_other_head,
        notes=weights.notes,
    )
    return dataclasses.replace(checkpoint, task=None if head is None else head.task)


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


def _other_weights_hint(folder: Path) -> str | None:
    """What to do with weights of a kind that is not read."""
    if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
        return "it is an ONNX export, which runs as it is: gpt-edge generate -m FOLDER"
    if (folder / "adapter_config.json").is_file():
        return f"it holds a PEFT adapter: give its base, and --adapter {folder}"
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".ckpt"))
    if files:
        return f"are its weights in {files[0].name}? then take {files[0]}"
    if (hint := _hint_of_other_names(folder)) is not None:
        return hint
    for name, flag in (("tf_model.h5", "from_tf"), ("flax_model.msgpack", "from_flax")):
        if (folder / name).is_file():
            return (
                f"{name} is not read: download model.safetensors or pytorch_model.bin of the same "
                f"model, or convert with transformers 4: AutoModelForCausalLM.from_pretrained("
                f"FOLDER, {flag}=True).save_pretrained(OTHER)"
            )
    for path in sorted(folder.iterdir()):
        if (kind := kind_of(path.name)) is not None:
            return f"{printable(path.name)} is {kind[0]}: {kind[1]}"
    return None


def _hint_of_other_names(folder: Path) -> str | None:
    """What to do with a variant such as model.fp16.safetensors, and with shards without index."""
    usual = {".safetensors": "model.safetensors", ".bin": "pytorch_model.bin"}
    for suffix, name in usual.items():
        found = sorted(path.name for path in folder.glob(f"*{suffix}"))
        if any(_SHARD.search(other) for other in found):
            return f"its shards need {name}.index.json beside them: download that, too"
        if len(found) == 1 and found[0].startswith(("model", "pytorch_model")):
            return f"if its weights are in {found[0]}, rename it to {name}"
    return None


def query_scale(settings: CheckpointSettings) -> Callable[[str], float]:
    """What GPT-2's scale_attn_by_inverse_layer_idx makes of a tensor's queries: attention divided
    by the number of the layer, from 1.
    """
    divides_by_layer = settings.flag("scale_attn_by_inverse_layer_idx", False)

    def scale_of(name: str) -> float:
        is_divided = divides_by_layer and ".c_attn." in name
        return 1 / (int(name.split(".")[1]) + 1) if is_divided else 1.0

    return scale_of


def refuse_unsupported(settings: CheckpointSettings) -> None:
    """Raise CheckpointError for an option of config.json that the reference does not have."""
    settings.refuse("quantization_config", "only float weights can be imported")
    settings.refuse("add_cross_attention", "an encoder-decoder is another architecture")
    settings.refuse("pruned_heads", "every layer must have all of its heads")
