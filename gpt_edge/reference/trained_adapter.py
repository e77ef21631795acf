"""What fine-tuning with LoRA changes in a frozen base, as `adapter.safetensors` beside the merged
weights of a checkpoint.

Named as in `onnx_contract.adapter_inputs`: beside a linear layer y = W x + b two matrices, whose
product is added, y + (x A) B, with A [in, rank] and B [rank, out] times alpha / rank; and the rows
of the task's three tokens [3, C]. The head is among the checkpoint's own tensors. A base is known
by the hash of its weights, so that no adapter is run on another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.onnx_contract import LINEARS, TASK_TOKENS, lora_a, lora_b
from gpt_edge.reference.importers.safetensors_file import open_safetensors
from gpt_edge.reference.importers.sources import check_finite
from gpt_edge.reference.importers.tensor_map import reference_shapes
from gpt_edge.tasks import N_NEW_TOKENS

ADAPTER_FILE = "adapter.safetensors"
FIELD = "adapter"  # of a checkpoint's config.json


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """rank: of the products; 0 where the head and the tokens alone were trained. base_hash: as
    `base_hash`. arrays: float32, by name.
    """

    rank: int
    base_hash: str
    arrays: Mapping[str, FloatArray]

    def described(self) -> dict[str, Any]:
        """Plain JSON values for a checkpoint's config.json."""
        return {"rank": self.rank, "base_sha256": self.base_hash}


def base_hash(config: GPTConfig, tensor: Callable[[str], FloatArray], n_text: int) -> str:
    """SHA-256 of the weights that an adapter finds below it: all but heads and the rows of a task's
    tokens, which come after the `n_text` rows of texts.
    """
    digest = hashlib.sha256()
    for name, shape in reference_shapes(dataclasses.replace(config, n_label=None)).items():
        if name == "lm_head.weight":
            continue
        array = tensor(name)[: n_text if name == "wte.weight" else shape[0]]
        digest.update(f"{name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, np.float32).data)
    return digest.hexdigest()


def adapter_shapes(config: GPTConfig, rank: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array of an adapter, as it was trained; without products for rank
    0.
    """
    shapes: dict[str, tuple[int, ...]] = {TASK_TOKENS: (N_NEW_TOKENS, config.n_embd)}
    of_weights = reference_shapes(config)
    for layer in range(config.n_layer if rank else 0):
        for linear in LINEARS:
            n_out, n_in = of_weights[f"h.{layer}.{linear}.weight"]
            shapes[lora_a(layer, linear)] = (n_in, rank)
            shapes[lora_b(layer, linear)] = (rank, n_out)
    return shapes


def read_trained_adapter(folder: Path, config: GPTConfig, described: object) -> TrainedAdapter:
    """The adapter in a checkpoint's folder. config: the checkpoint's; described: FIELD of its
    config.json.

    Raises CheckpointError where there is none, or one that does not fit.
    """
    if described is None:
        raise CheckpointError(
            f"{folder} holds no adapter: it was fine-tuned as a whole",
            hint="fine-tune it with gpt-edge finetune --lora-rank 8, or export it without --base",
        )
    rank = described.get("rank") if isinstance(described, dict) else None
    found = described.get("base_sha256") if isinstance(described, dict) else None
    if type(rank) is not int or not 0 <= rank <= config.n_embd or not isinstance(found, str):
        raise CheckpointError(
            f"{folder / 'config.json'}: {FIELD} must have a rank from 0 to {config.n_embd} and a "
            f"base_sha256, found {described!r:.100}"
        )
    source = open_safetensors(folder / ADAPTER_FILE)
    expected = adapter_shapes(config, rank)
    shapes = {name: info.shape for name, info in source.infos.items()}
    if shapes != expected:
        wrong = sorted(set(shapes.items()) ^ set(expected.items()))[0]
        raise CheckpointError(
            f"{source.where} does not hold an adapter of rank {rank}: see {wrong[0]!a:.80}"
        )
    arrays = {name: np.array(source.read(name), np.float32) for name in expected}
    for name, array in arrays.items():
        check_finite(array, source.where, name)
    return TrainedAdapter(rank, found, arrays)
