"""Checkpoint: an untrusted file as the tensors of the reference, converted one at a time.

An importer names for every tensor of the reference the tensors of the file that it comes from
(`Origin`). Names, shapes and dtypes are validated before anything is read or allocated.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.sources import (
    FLOAT_DTYPES,
    TensorInfo,
    TensorSource,
    check_finite,
    printable,
)
from gpt_edge.reference.importers.tensor_names import left_out_note
from gpt_edge.reference.model import GPT, without_memory
from gpt_edge.tasks import TaskSpec

MAX_LISTED = 10
MAX_OF_DTYPE = 3  # faults of one dtype that are listed one by one
HEAD_PREFIX = "task_head."  # the head of a fine-tuned model, which GPT does not have
DOUBLE = ("F64", "float64")
QUANTIZED = re.compile("(i|u|u?int|f|float)[48]")  # safetensors' and torch's dtypes in lower case
NO_HEAD = "lm_head.weight is missing"
UNMERGED_HINT = (
    "its LoRA adapter was not merged: in peft, model.merge_and_unload().save_pretrained(FOLDER)"
)
LINEAR_WEIGHTS = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


@dataclass(frozen=True, slots=True)
class Origin:
    """How one tensor of the reference is converted: the file's tensors, transposed if so stored,
    joined along axis 0.
    """

    names: tuple[str, ...]  # none: zeros, for a bias that the architecture leaves out
    stored_shape: tuple[int, ...]  # of each of them
    is_transposed: bool = False  # stored [in, out] or [1, in, out]
    # for the query rows, the first third: folds a factor of the attention into c_attn
    query_scale: float = 1.0
    first_row: int = 0  # what is before it is left out


Origins = Mapping[str, Origin]


def reference_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of `GPT(config)` without a tied head, without building the
    model.

    If `config.n_label` is set, those of the task's head come last.
    """
    C, F = config.n_embd, config.inner_size
    linears = {
        "attn.c_attn": (3 * C, C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (F, C),
        "mlp.c_proj": (C, F),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, C),
        "wpe.weight": (config.n_ctx, C),
    }
    for layer in range(config.n_layer):
        for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            weight = linears.get(name, (C,))
            shapes[f"h.{layer}.{name}.weight"] = weight
            shapes[f"h.{layer}.{name}.bias"] = weight[:1]
    if config.norm == "pre":
        shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    if not config.tied_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, C)
    if config.n_label is not None:
        shapes |= {
            HEAD_PREFIX + "weight": (config.n_label, C),
            HEAD_PREFIX + "bias": (config.n_label,),
        }
    return shapes


@dataclass(frozen=True)
class Checkpoint:
    """Weights that fit `config`. Nothing is read until a tensor is requested."""

    kind: str
    path: Path  # as the caller gave it: a folder, or nanoGPT's file
    config: GPTConfig
    source: TensorSource
    origins: Origins
    tied_copy: str | None = None  # the file's second copy of the tied embedding
    task: TaskSpec | None = None  # of a fine-tuned model; set if and only if config.n_label is
    notes: tuple[str, ...] = ()  # what was renamed, left out or assumed, in words
    # of a repository of the hub its name and revision, for manifests
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def names(self) -> list[str]:
        """Every parameter of the reference once, in the reference's order; a tied head is only
        "wte.weight".
        """
        return list(self.origins)

    def tensor(self, name: str) -> FloatArray:
        """The parameter as `GPT.state_dict()` has it: float32, C-contiguous, linear weights
        [out, in].

        A read-only view of the file if the file has this dtype and layout; else a new array that
        the caller owns. Raises NumericError for a NaN or infinite weight, ValueError for a
        name the reference does not have.
        """
        if name == "lm_head.weight" and self.config.tied_embeddings:
            name = "wte.weight"
        if name not in self.origins:
            raise ValueError(f"this model has no parameter {name!r}")
        origin = self.origins[name]
        if not origin.names:
            return np.zeros(origin.stored_shape, dtype=np.float32)
        parts = [self._part(part, origin.is_transposed) for part in origin.names]
        array = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
        if origin.first_row:
            array = array[origin.first_row :]
        if origin.query_scale != 1.0:
            array = array if array.flags.writeable else array.copy()
            array[: len(array) // 3] *= np.float32(origin.query_scale)
        if array.flags.writeable:
            self.release(name)
        if name == "wte.weight" and self.tied_copy is not None:
            self._check_copy(array, self.tied_copy)
        return array

    def release(self, name: str) -> None:
        """Return the memory of a tensor that was read to the system, once the caller is done with
        it.
        """
        for part in self.origins[name].names:
            self.source.release(part)

    def load_model(self) -> GPT:
        """The reference with these weights, float32, in evaluation mode, owning its memory. A
        task's head is left out.

        Peak memory: the weights and one tensor. Raises as `tensor` does.
        """
        with without_memory():
            model = GPT(dataclasses.replace(self.config, n_label=None))
        tensors: dict[str, torch.Tensor] = {}
        for name in self.names():
            if name.startswith(HEAD_PREFIX):
                continue
            array = self.tensor(name)
            tensors[name] = torch.from_numpy(array if array.flags.writeable else array.copy())
            self.release(name)
        if self.config.tied_embeddings:
            tensors["lm_head.weight"] = tensors["wte.weight"]
        model.load_state_dict(tensors, assign=True)
        if self.config.tied_embeddings:  # assignment made two parameters out of the one tensor
            model.lm_head.weight = model.wte.weight
        return model.eval()

    def _part(self, name: str, is_transposed: bool) -> FloatArray:
        array = self.source.read(name)
        check_finite(array, self.source.where, name)
        return array.reshape(array.shape[-2:]).T if is_transposed else array

    def _check_copy(self, embedding: FloatArray, name: str) -> None:
        """Raise CheckpointError for a head that differs from the embedding it is tied to: loading
        would silently drop it.
        """
        if not np.array_equal(self.source.read(name), embedding):
            raise CheckpointError(
                f"{self.source.where}: {name} differs from the embedding that the config ties it "
                "to",
                hint='if the head is not meant to be tied, set "tie_word_embeddings": false in '
                "config.json",
            )
        self.source.release(name)


def open_tensors(
    kind: str,
    path: Path,
    config: GPTConfig,
    source: TensorSource,
    origin_of: Callable[[str, tuple[int, ...]], Origin],
    is_ignored: Callable[[str], bool] = lambda name: False,
    tied_copy: str | None = None,
    *,
    is_left_out: Callable[[str], bool] = lambda name: False,
    notes: Sequence[str] = (),
) -> Checkpoint:
    """Validate the file against `config` and return the Checkpoint.

    origin_of: from a reference name and shape to its Origin. is_ignored: whether a name is that of
    a buffer without weights. tied_copy: a tensor that may exist besides the embedding, equal to it,
    or in its place. is_left_out: whether a name that the reference lacks is worth a note and no
    refusal. notes: of the checkpoint. Raises CheckpointError listing tensors that are unknown,
    missing, or of another shape or dtype, by their names in the file.
    """
    infos = source.infos
    if config.n_layer > len(infos):  # before a loop over the layers of a corrupt config
        raise CheckpointError(
            f"{path}: the config has {config.n_layer} layers, {source.where} has {len(infos)} "
            "tensors"
        )
    origins = {name: origin_of(name, shape) for name, shape in reference_shapes(config).items()}
    copy = tied_copy if tied_copy in infos and config.tied_embeddings else None
    if copy is not None and not set(origins["wte.weight"].names) & infos.keys():
        # safetensors' save_model keeps one name of a tied pair, which may be the head's
        origins["wte.weight"] = dataclasses.replace(origins["wte.weight"], names=(copy,))
        copy = None
    expected = {part: origin.stored_shape for origin in origins.values() for part in origin.names}
    if copy is not None:
        expected[copy] = (config.vocab_size, config.n_embd)
    faults = [f"{name} is missing" for name in expected if name not in infos]
    unknown = [name for name in infos if name not in expected and not is_ignored(name)]
    left_out = [name for name in unknown if is_left_out(name)]
    faults += [f"{printable(name)} is unknown" for name in unknown if name not in left_out]
    for name, shape in expected.items():
        info = infos.get(name)
        if info is not None and info.shape != shape:
            faults.append(f"{name} has shape {list(info.shape)}, expected {list(shape)}")
    faults += _dtype_faults({name: infos[name].dtype for name in expected if name in infos})
    if faults:
        rest = f"; and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise CheckpointError(
            f"{source.where} does not fit its config: {'; '.join(faults[:MAX_LISTED])}{rest}",
            hint=_hint_of_faults(infos, faults),
        )
    if left_out:
        notes = (*notes, left_out_note(left_out))
    return Checkpoint(kind, path, config, source, origins, copy, notes=tuple(notes))


def _dtype_faults(dtypes: Mapping[str, str]) -> list[str]:
    """Tensors whose dtype cannot be read; more than a few of one dtype are counted."""
    faults = []
    wrong = {name: dtype for name, dtype in dtypes.items() if dtype not in FLOAT_DTYPES}
    for dtype in sorted(set(wrong.values())):
        names = [name for name in wrong if wrong[name] == dtype]
        subjects = [f"{name} has" for name in names]
        if len(names) > MAX_OF_DTYPE:
            subjects = [f"{len(names)} of {len(dtypes)} tensors, such as {names[0]}, have"]
        wanted = f"expected one of {', '.join(FLOAT_DTYPES)}"
        faults += [f"{subject} dtype {dtype}, {wanted}" for subject in subjects]
    return faults


def _hint_of_faults(infos: Mapping[str, TensorInfo], faults: Sequence[str]) -> str | None:
    """What to do about an adapter among the weights, a model that is float64 or quantized as a
    whole, and a head that is missing.
    """
    if any(".lora_A." in name for name in infos):
        return UNMERGED_HINT
    if faults == [NO_HEAD]:
        return 'if the head is the embedding, set "tie_word_embeddings": true in config.json'
    dtypes = {info.dtype.removeprefix("torch.") for info in infos.values()}
    if not dtypes.isdisjoint(DOUBLE):
        return "save it in float32: model.float().save_pretrained(FOLDER) in transformers"
    if any(QUANTIZED.match(dtype.lower()) for dtype in dtypes):
        return "it was quantized: take the model that it was made from, and quantize that"
    return None
