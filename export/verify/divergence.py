"""Where two models diverge on the same tokens: the difference of each operator's results, in the
order of the computation.

Each model runs on its own values, so a difference stays in everything after it; the first one is
where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.config import GPTConfig
from gpt_edge.export.verify.activations import ExposedGraph, reference_trace
from gpt_edge.export.verify.graph_map import map_operators
from gpt_edge.export.weights.reference_operators import ReferenceOperator, reference_operators
from gpt_edge.export.weights.smoothing import Smoothing
from gpt_edge.reference.model import GPT

# relative: a hundred times what the order of float32 sums explains
SUMMATION_ORDER = 1e-4


@dataclass(frozen=True, slots=True)
class Divergence:
    """The root mean square of the difference at one operator, as a fraction of the first model's
    result.
    """

    operator: ReferenceOperator
    relative: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "layer": self.operator.layer,
            "operator": self.operator.name,
            "place": str(self.operator),
            "relative": self.relative,
        }


def trace_of(model: Bundle | GPT, ids: IntArray) -> Mapping[ReferenceOperator, FloatArray]:
    """Each operator's result on ids [T], of a bundle or of the reference; of a graph, as far as it
    is a GPT's.
    """
    if isinstance(model, GPT):
        return reference_trace(model, ids)[0]
    checked_model(model)
    onnx_model = ir.load(model.model_path)
    mapped, _ = map_operators(onnx_model.graph, model.config)
    exposed = ExposedGraph(
        onnx_model, Path(model.path), model.config, model.graph, mapped, ids.size, model.task
    )
    return Smoothing.of_manifest(model.manifest).restore(exposed.run(ids), model.config)


def is_comparable(first: GPTConfig, second: GPTConfig) -> bool:
    """Whether two models have the same operators: all but the length of the context is equal."""
    return replace(first, n_ctx=1) == replace(second, n_ctx=1)


def layer_divergences(first: Bundle | GPT, second: Bundle | GPT, ids: IntArray) -> list[Divergence]:
    """The difference at every operator that both have. Raises BundleError for a graph that cannot
    be run.
    """
    first_trace = trace_of(first, ids)
    second_trace = trace_of(second, ids)
    divergences = []
    for operator in reference_operators(first.config):
        if operator not in first_trace or operator not in second_trace:
            continue
        relative = relative_difference(first_trace[operator], second_trace[operator])
        divergences.append(Divergence(operator, relative))
    return divergences


def relative_difference(first: FloatArray, second: FloatArray) -> float:
    """The root mean square of the difference, as a fraction of that of the first."""
    size = _root_mean_square(first)
    difference = _root_mean_square(first - second)
    return difference / size if size else difference


def _root_mean_square(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def first_divergence(divergences: list[Divergence]) -> Divergence | None:
    """The first operator whose difference is more than summation order explains."""
    for divergence in divergences:
        if not divergence.relative <= SUMMATION_ORDER:
            return divergence
    return None
