"""OpenAI's GPT-1 release: params_0.npy .. params_9.npy, one flat float32 vector in ten parts, and
params_shapes.json.

The vector holds the position embedding, the token embedding, then the layers' variables in the
order of their creation: c_attn, c_proj, ln_1, c_fc, c_proj, ln_2; linear weights [1, in, out]. The
number of heads is not stored; the code has 12. Source:
github.com/openai/finetune-transformer-lm, train.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import Extent, MappedFile, MappedTensors, TensorInfo
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, Checkpoint, Origin, open_tensors

N_HEAD = 12
# what numpy's parser of headers raises
NPY_ERRORS = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError)
_SHAPES = "params_shapes.json"
_LAYER = [
    "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
    "ln_1.weight", "ln_1.bias",
    "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
    "ln_2.weight", "ln_2.bias",
]  # fmt: skip


def open_openai_gpt1(folder: Path) -> Checkpoint:
    """Raises CheckpointError for shards that are missing, pickled, or do not match
    params_shapes.json.
    """
    shapes = _read_shapes(folder / _SHAPES)
    n_layer, rest = divmod(len(shapes) - 2, len(_LAYER))
    if n_layer < 1 or rest or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        raise CheckpointError(
            f"{folder / _SHAPES} lists {len(shapes)} shapes, expected two embeddings and "
            f"{len(_LAYER)} for each layer"
        )
    names = [
        "wpe.weight",
        "wte.weight",
        *(f"h.{layer}.{name}" for layer in range(n_layer) for name in _LAYER),
    ]
    config = CheckpointSettings(str(folder / _SHAPES), {}).config(
        n_layer=n_layer,
        n_head=N_HEAD,
        n_embd=shapes[1][1],
        n_ctx=shapes[0][0],
        vocab_size=shapes[1][0],
        norm="post",
    )

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        is_linear = name.endswith(LINEAR_WEIGHTS)
        return Origin((name,), (1, *shape[::-1]) if is_linear else shape, is_linear)

    return open_tensors(
        "openai-gpt1", folder, config, _join_shards(folder, names, shapes), origin_of
    )


def _read_shapes(path: Path) -> list[tuple[int, ...]]:
    try:
        if path.stat().st_size > 1 << 20:
            raise CheckpointError(f"{path} is too long for a list of shapes")
        shapes: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    is_valid = isinstance(shapes, list) and all(
        isinstance(shape, list)
        and 1 <= len(shape) <= 3
        and all(type(size) is int and size > 0 for size in shape)
        for shape in shapes
    )
    if not is_valid:
        raise CheckpointError(f"{path} must be a list of shapes")
    return [tuple(shape) for shape in shapes]


def _join_shards(folder: Path, names: list[str], shapes: list[tuple[int, ...]]) -> MappedTensors:
    """Split the vector by the shapes, if the sizes agree; a tensor may span several shards."""
    shards: list[Extent] = []
    while (path := folder / f"params_{len(shards)}.npy").is_file():
        shards.append(_open_npy(path))
    n_bytes = sum(shard.n_bytes for shard in shards)
    expected = 4 * sum(math.prod(shape) for shape in shapes)
    if n_bytes != expected:
        raise CheckpointError(
            f"{folder}: {len(shards)} params_*.npy hold {n_bytes // 4} values, {_SHAPES} needs "
            f"{expected // 4}",
            hint="all of params_0.npy to params_9.npy are needed",
        )
    extents: dict[str, tuple[Extent, ...]] = {}
    shard, used = 0, 0
    for name, shape in zip(names, shapes, strict=True):
        parts: list[Extent] = []
        missing = 4 * math.prod(shape)
        while missing:
            taken = min(missing, shards[shard].n_bytes - used)
            parts.append(Extent(shards[shard].file, shards[shard].offset + used, taken))
            missing -= taken
            used += taken
            if used == shards[shard].n_bytes:
                shard += 1
                used = 0
        extents[name] = tuple(parts)
    infos = {name: TensorInfo("F32", shape) for name, shape in zip(names, shapes, strict=True)}
    return MappedTensors(str(folder / "params_*.npy"), infos, extents)


def _open_npy(path: Path) -> Extent:
    """The data of a one-dimensional float32 .npy. Only the header is parsed: no array is created,
    nothing is unpickled.
    """
    try:
        file = MappedFile(path)
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
            offset = stream.tell()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except NPY_ERRORS as error:
        raise CheckpointError(f"{path} is not a complete .npy file: {str(error)[:200]}") from error
    if dtype != np.dtype("<f4") or len(shape) != 1:
        raise CheckpointError(f"{path} holds {dtype} {list(shape)}, expected one row of float32")
    if shape[0] < 1 or 4 * shape[0] != file.n_bytes - offset:
        raise CheckpointError(
            f"{path} declares {shape[0]} values, {(file.n_bytes - offset) // 4} are stored"
        )
    return Extent(file, offset, 4 * shape[0])
