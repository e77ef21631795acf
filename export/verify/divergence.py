"""Where two models part on the same tokens: the difference of what each operator leaves behind, in
the order of the computation.

Each model runs on its own values, so a difference stays in everything behind it; the first one is
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
from gpt_edge.config import GPTConfig
from gpt_edge.export.verify.activations import ExposedGraph, reference_trace
from gpt_edge.export.verify.graph_map import map_operators
from gpt_edge.export.weights.reference_operators import ReferenceOperator, reference_operators
from gpt_edge.export.weights.smoothing import Smoothing
from gpt_edge.reference.model import GPT

PARTED = 1e-4  # relative: a hundred times what the order of float32 sums explains


@dataclass(frozen=True, slots=True)
class Divergence:
    """The difference at one operator: its root mean square as a share of the first model's."""

    operator: ReferenceOperator
    relative: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"layer": self.operator.layer, "operator": self.operator.name, "place": str(self.operator),
                "relative": self.relative}  # fmt: skip


def trace_of(model: Bundle | GPT, ids: IntArray) -> Mapping[ReferenceOperator, FloatArray]:
    """What each operator of a bundle or of the reference leaves behind on ids [T]; of a graph, as
    far as it is a GPT's.
    """
    if isinstance(model, GPT):
        return reference_trace(model, ids)[0]
    graph = ir.load(model.model_path)
    mapped_operators, _ = map_operators(graph.graph, model.config)
    trace = ExposedGraph(
        graph, Path(model.path), model.config, model.graph, mapped_operators, ids.size
    ).run(ids)
    return Smoothing.of_manifest(model.manifest).restore(trace, model.config)


def is_comparable(first: GPTConfig, second: GPTConfig) -> bool:
    """Whether two models have the same places: all but the length of the context is equal."""
    return replace(first, n_ctx=1) == replace(second, n_ctx=1)


def layer_divergences(first: Bundle | GPT, second: Bundle | GPT, ids: IntArray) -> list[Divergence]:
    """The difference at every operator that both have. Raises BundleError for a graph that cannot be
    run.
    """
    one, other = trace_of(first, ids), trace_of(second, ids)
    found = []
    for operator in reference_operators(first.config):
        if operator in one and operator in other:
            size = float(np.sqrt(np.mean(np.square(one[operator], dtype=np.float64))))
            gap = float(
                np.sqrt(np.mean(np.square(one[operator] - other[operator], dtype=np.float64)))
            )
            found.append(Divergence(operator, gap / size if size else gap))
    return found


def first_divergence(divergences: list[Divergence]) -> Divergence | None:
    """The first operator where the difference is none of summation order."""
    return next(
        (divergence for divergence in divergences if not divergence.relative <= PARTED), None
    )
