"""`export --to gguf`: write a checkpoint as one file for llama.cpp, and read it back.

The `gguf` package writes; one tensor is in memory at a time. Every tensor of the finished file is
compared with the checkpoint's, so a wrong name, type or place is found here. Needs the extra
`gguf`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import ExportError, ParityError, TokenizerError, require
from gpt_edge.export.gguf.layout import (
    BLOCK,
    TYPES,
    GGUFTensor,
    check_computable,
    gguf_tensors,
)
from gpt_edge.export.gguf.vocabulary import Vocabulary, gguf_vocabulary
from gpt_edge.export.pipeline.shared import bundle_name, tokenizer_for
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.nanogpt import with_activation
from gpt_edge.system.atomic_files import publish_file
from gpt_edge.verify.report import Progress, silent

MAGIC = b"GGUF"
ARCHITECTURE = "gpt2"
# of a block of q8_0: half a level, and the scale's rounding to float16
Q8_0_TOLERANCE = 0.51 / 127 + 1e-3
SMALLEST = 4e-6  # of a block whose scale is no normal float16
F16_TOLERANCE = 2.0**-11  # relative; half a unit in the last place


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A written file. types: how many tensors have each type; max_error: of a weight read back."""

    path: Path
    n_bytes: int
    types: dict[str, int]
    max_error: float
    notes: tuple[str, ...]


def export_gguf(
    source: Path,
    out: Path,
    *,
    type: str = "f16",
    tokenizer: str | None = None,
    activation: str | None = None,
    config: Path | None = None,
    adapter: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> GGUFFile:
    """Write the checkpoint at `source` as a GGUF file at `out`.

    type: of the matrices, one of TYPES. tokenizer: a file, a folder or a name; None takes that of
    `source`. activation: as for `export_bundle`. config, adapter: as for `open_checkpoint`. force:
    replace a GGUF file at `out`. Raises CheckpointError, TokenizerError, ExportError for a model
    that llama.cpp's gpt2 is not, ParityError for a file that reads back otherwise, OutputError or
    MissingDependencyError; then `out` is as it was.
    """
    if type not in TYPES:
        raise ExportError(f"there is no type {type!r}", hint=f"use one of {', '.join(TYPES)}")
    checkpoint = with_activation(
        open_checkpoint(source, config=config, adapter=adapter), activation
    )
    if checkpoint.task is not None:
        raise ExportError(
            f"{source} is fine-tuned for {checkpoint.task.kind}: llama.cpp's gpt2 has no such head",
            hint="export the checkpoint that it was fine-tuned from",
        )
    notes = check_computable(checkpoint.config)
    words = tokenizer_for(checkpoint, tokenizer)
    if words is None:
        raise TokenizerError("a GGUF file needs a vocabulary, --tokenizer none gives it none")
    vocabulary = gguf_vocabulary(words, checkpoint.config.vocab_size)
    gguf = require("gguf", "gguf")
    tensors = gguf_tensors(checkpoint.config, type)
    n_bytes = sum(tensor.n_bytes for tensor in tensors)
    with publish_file(out, force=force, is_ours=_is_gguf, n_bytes=n_bytes) as temporary:
        name = bundle_name(out.with_suffix(""))
        _write(gguf, temporary, checkpoint, tensors, vocabulary, type, name, progress)
        progress("reading it back")
        max_error = _check_read_back(gguf, temporary, checkpoint, tensors)
        size = temporary.stat().st_size
    counts = {kind: sum(tensor.type == kind for tensor in tensors) for kind in TYPES}
    used = {kind: count for kind, count in counts.items() if count}
    return GGUFFile(Path(out), size, used, max_error, notes)


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _write(
    gguf: Any,
    path: Path,
    checkpoint: Checkpoint,
    tensors: list[GGUFTensor],
    vocabulary: Vocabulary,
    type: str,
    name: str,
    progress: Progress,
) -> None:
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_settings(gguf, writer, checkpoint, type, name)
    _add_vocabulary(writer, vocabulary)
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.stored_shape,
            tensor.dtype,
            tensor.n_bytes,
            raw_dtype=_type(gguf, tensor.type),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        progress(tensor.origin)
        array = checkpoint.tensor(tensor.origin)
        writer.write_tensor_data(_stored(gguf, array, tensor))
        checkpoint.release(tensor.origin)
    writer.close()


def _add_settings(gguf: Any, writer: Any, checkpoint: Checkpoint, type: str, name: str) -> None:
    config = checkpoint.config
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[file_types[type]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner_size)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if "repository" in checkpoint.provenance:
        writer.add_source_hf_repo(checkpoint.provenance["repository"])


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(vocabulary.has_prefix)
    writer.add_add_space_prefix(vocabulary.add_prefix_space)
    if vocabulary.end_token is not None:
        writer.add_bos_token_id(vocabulary.end_token)
        writer.add_eos_token_id(vocabulary.end_token)


def _type(gguf: Any, type: str) -> Any:
    return gguf.GGMLQuantizationType[type.upper()]


def _stored(gguf: Any, array: FloatArray, tensor: GGUFTensor) -> Any:
    """The array that is written. Raises ExportError for a weight that float16 cannot hold."""
    if tensor.type == "q8_0":
        return gguf.quants.quantize(array, _type(gguf, tensor.type))
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, tensor.dtype)
    if not np.isfinite(stored).all():
        raise ExportError(
            f"{tensor.origin} holds {float(np.abs(array).max()):.3g}, more than float16 does",
            hint="use --gguf-type f32",
        )
    return stored


def _check_read_back(
    gguf: Any, path: Path, checkpoint: Checkpoint, tensors: list[GGUFTensor]
) -> float:
    """The largest difference of a weight. Raises ParityError for one beyond its type's rounding."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    if sorted(stored) != sorted(tensor.name for tensor in tensors):
        raise ParityError(f"{path.name} reads back with other tensors than were written")
    largest = 0.0
    for tensor in tensors:
        found = stored[tensor.name]
        wanted = checkpoint.tensor(tensor.origin)
        values = gguf.quants.dequantize(found.data, found.tensor_type).reshape(tensor.shape)
        error = np.abs(values - wanted)
        if not bool((error <= _limit(wanted, tensor.type)).all()):
            raise ParityError(f"{tensor.origin} does not come back from the file as it was")
        largest = max(largest, float(error.max(initial=0.0)))
        checkpoint.release(tensor.origin)
    return largest


def _limit(wanted: FloatArray, type: str) -> FloatArray | float:
    """What a type's rounding may change."""
    if type == "f32":
        return 0.0
    if type == "f16":
        limit: FloatArray = np.abs(wanted) * np.float32(F16_TOLERANCE) + np.float32(2.0**-25)
        return limit
    blocks = np.abs(wanted.reshape(-1, BLOCK)).max(axis=1, keepdims=True)
    limits: FloatArray = np.repeat(blocks * Q8_0_TOLERANCE + SMALLEST, BLOCK, 1).reshape(
        wanted.shape
    )
    return limits
