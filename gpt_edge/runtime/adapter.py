"""An adapter in memory: what a base's graph reads of it, and the head that turns hidden states into
logits.

Its arrays are bound to a run as they are, so changing from one adapter to another copies nothing.
Source: Hu et al. 2022 (LoRA), section 4.1; serving several on one base: Sheng et al. 2023 (S-LoRA).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.adapter import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    StoredArray,
    checked_adapter,
    rank_of,
)
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import RANK, TASK_TOKENS, adapter_inputs
from gpt_edge.tasks import TaskSpec

DTYPES = {"F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What runs beside a base. values: OrtValues by the names of the graph's inputs. head:
    float32 [C, n_label], bias: [n_label].
    """

    path: Path
    name: str
    task: TaskSpec
    rank: int
    values: Mapping[str, Any]
    head: FloatArray
    bias: FloatArray

    def logits(self, states: FloatArray) -> FloatArray:
        """float32 [N, n_label] of states [N, C], row by row, so that none depends on another."""
        rows: FloatArray = np.matmul(states[:, None], self.head)[:, 0]
        return rows + self.bias


def open_adapter(bundle: Bundle, base: Bundle) -> Adapter:
    """The adapter in a bundle, for a base. Raises BundleError for what is no adapter, one of
    another base, and a file that the gate refuses.
    """
    stored = checked_adapter(bundle)
    check_base(bundle, base)
    assert bundle.task is not None
    arrays = {name: _floats(array) for name, array in stored.items()}
    return adapter_of(
        arrays, base.config, base.graph, bundle.task, bundle.path, bundle.manifest.name
    )


def adapter_of(
    arrays: Mapping[str, FloatArray],
    config: GPTConfig,
    graph: str,
    task: TaskSpec,
    path: Path,
    name: str,
) -> Adapter:
    """An adapter of arrays by their names in a file; see `checked_adapter`."""
    rank = rank_of({name: array.shape for name, array in arrays.items()})
    values = {} if rank else no_adapter(config, graph)
    for input_name, array in arrays.items():
        if input_name not in (TASK_TOKENS, HEAD_WEIGHT, HEAD_BIAS):
            values[input_name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    tokens = np.zeros((1 + len(arrays[TASK_TOKENS]), config.n_embd), np.float32)
    tokens[1:] = arrays[TASK_TOKENS]
    values[TASK_TOKENS] = ort.OrtValue.ortvalue_from_numpy(tokens)
    head = np.ascontiguousarray(arrays[HEAD_WEIGHT].T)
    return Adapter(path, name, task, rank, values, head, arrays[HEAD_BIAS])


def no_adapter(config: GPTConfig, graph: str) -> dict[str, Any]:
    """What a base reads in place of an adapter: products of rank 1 that are zero."""
    values = {}
    for spec in adapter_inputs(config, graph):
        shape = [1 if axis == RANK else int(axis) for axis in spec.axes]
        values[spec.name] = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
    return values


def check_base(adapter: Bundle, base: Bundle) -> None:
    """Raise BundleError unless `base` is the one that the adapter was exported with."""
    wanted = adapter.manifest.base
    assert wanted is not None
    if not base.config.takes_adapters:
        raise BundleError(
            f"{base.path} is a bundle of kind {base.kind}: it takes no adapter",
            hint="make a base of its checkpoint with gpt-edge export --to base",
        )
    if (found := base.weights_hash()) != wanted["sha256"] or base.config != adapter.config:
        raise BundleError(
            f"{adapter.path} is an adapter of the base {wanted['name']} with the weights "
            f"{wanted['sha256'][:12]}, and {base.path} has the weights {found[:12]}",
            hint="give the base that it was exported with, or export it for this one: gpt-edge "
            "export CHECKPOINT OUT --base BASE",
        )


def _floats(array: StoredArray) -> FloatArray:
    return np.frombuffer(array.data, DTYPES[array.dtype]).astype(np.float32).reshape(array.shape)
