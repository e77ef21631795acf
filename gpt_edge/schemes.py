"""The table of schemes: how a bundle's weights are stored, what a product does with its
activations, and every limit, size and operator count that follows from it.

A manifest and the command line name a scheme by its `name`; `SCHEMES` leads from the name to the
row. Code that must differ from scheme to scheme reads an attribute, never a name. To add a
scheme, add a row here and, for a new kind of product, a lowering in `gpt_edge.export.graph`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# How a product treats its activations: not quantized, or to 8 bits with one scale for each row, for
# each row and block, or for a whole call; "any": as each weight's own format says.
SchemeActivations = Literal["float", "row", "block", "tensor", "any"]


@dataclass(frozen=True, slots=True)
class NodeCount:
    """How many nodes of one operator a graph holds. lm_head is counted for a language model alone,
    task_head for a fine-tuned model alone.
    """

    per_layer: int = 0
    once: int = 0
    lm_head: int = 0
    task_head: int = 0

    def total(self, n_layer: int, *, is_task: bool) -> int:
        """Nodes in the graph of a model with so many layers."""
        head = self.task_head if is_task else self.lm_head
        return self.per_layer * n_layer + self.once + head


Operators = Mapping[str, NodeCount]


@dataclass(frozen=True, slots=True, eq=False)
class Scheme:
    """One way to store the weights of a model.

    bits: of a layer's weights; None where each weight has a format of its own.
    bytes_per_weight: of a bundle, tables and scales included, rounded up: it estimates disk space.
    max_mean_kl: nats of a language model against fp32; task_max_mean_kl: the same of the
    probabilities of classes or answers; task_max_difference: of the logit of a score, as a fraction
    of the spread. These limits catch broken graphs; the measured figures say how good a scheme is.
    None: not measured so, or not allowed.
    operators: by graph, the characteristic operators and their counts. One fewer means that a
    fusion was lost.
    by_optimum: quantized by Optimum, not by gpt-edge.
    allows_tasks: whether a fine-tuned classifier can be stored so.
    """

    name: str
    bits: int | None
    activations: SchemeActivations
    bytes_per_weight: float
    max_mean_kl: float | None = None
    task_max_mean_kl: float | None = None
    task_max_difference: float | None = None
    operators: Mapping[str, Operators] = field(default_factory=dict)
    by_optimum: bool = False
    allows_tasks: bool = False

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.activations == "float"

    @property
    def is_mixed(self) -> bool:
        """Whether each weight has a format of its own, which `quantize` searched for a budget."""
        return self.bits is None

    @property
    def is_uniform(self) -> bool:
        """Whether gpt-edge quantizes every layer to one format."""
        return not (self.is_float or self.is_mixed or self.by_optimum)


# linear layers of one transformer layer: c_attn, c_proj of attention, c_fc, c_proj of the MLP
N_LINEAR = 4

_PORTABLE_QUANTIZED = {"DequantizeLinear": NodeCount(per_layer=N_LINEAR, lm_head=1)}
_EDGE_BY_BLOCK = {
    "MatMulNBits": NodeCount(per_layer=N_LINEAR, lm_head=1),
    "GatherBlockQuantized": NodeCount(once=1),
    "MatMul": NodeCount(task_head=1),
    "FusedMatMul": NodeCount(),
}

FP32 = Scheme(
    name="fp32",
    bits=32,
    activations="float",
    bytes_per_weight=4.0,
    operators={
        "edge": {
            "MatMul": NodeCount(per_layer=N_LINEAR, task_head=1),
            "FusedMatMul": NodeCount(lm_head=1),
        },
        "portable": {},
    },
    allows_tasks=True,
)
INT8 = Scheme(
    name="int8",
    bits=8,
    activations="row",
    bytes_per_weight=1.1,
    max_mean_kl=5e-3,
    task_max_mean_kl=2e-2,
    task_max_difference=0.3,
    operators={
        "edge": {
            "MatMulIntegerToFloat": NodeCount(per_layer=N_LINEAR),
            "QuantizeLinear": NodeCount(per_layer=N_LINEAR),
            "MatMulNBits": NodeCount(lm_head=1),
            "GatherBlockQuantized": NodeCount(once=1),
            "MatMul": NodeCount(task_head=1),
            "FusedMatMul": NodeCount(),
        },
        "portable": _PORTABLE_QUANTIZED,
    },
    allows_tasks=True,
)
INT8_BLOCK = Scheme(
    name="int8-block",
    bits=8,
    activations="block",
    bytes_per_weight=1.1,
    max_mean_kl=5e-3,
    task_max_mean_kl=2e-2,
    task_max_difference=0.3,
    operators={"edge": _EDGE_BY_BLOCK, "portable": _PORTABLE_QUANTIZED},
    allows_tasks=True,
)
INT4 = Scheme(
    name="int4",
    bits=4,
    activations="block",
    bytes_per_weight=0.7,
    max_mean_kl=0.5,
    task_max_mean_kl=0.5,
    task_max_difference=2.0,
    operators={"edge": _EDGE_BY_BLOCK, "portable": _PORTABLE_QUANTIZED},
    allows_tasks=True,
)
INT8_DYNAMIC = Scheme(
    name="int8-dynamic",
    bits=8,
    activations="tensor",
    bytes_per_weight=1.1,
    max_mean_kl=2.0,
    operators={
        "edge": {
            "MatMulInteger": NodeCount(per_layer=N_LINEAR),
            "MatMulNBits": NodeCount(once=1),
            "GatherBlockQuantized": NodeCount(once=1),
            "MatMul": NodeCount(),
        },
        "portable": {
            "MatMulInteger": NodeCount(per_layer=N_LINEAR),
            "DequantizeLinear": NodeCount(once=1),
            "MatMul": NodeCount(once=1),
        },
    },
    by_optimum=True,
)
# Each weight in the format that `quantize` found for it; the manifest's provenance names them. The
# operators follow from the plan.
MIXED = Scheme(name="mixed", bits=None, activations="any", bytes_per_weight=2.1, max_mean_kl=0.5)

SCHEMES = {scheme.name: scheme for scheme in (FP32, INT8, INT8_BLOCK, INT4, INT8_DYNAMIC, MIXED)}
# Names, in the order in which they are shown to a user.
EXPORTED = tuple(name for name, scheme in SCHEMES.items() if not scheme.is_mixed)
QUANTIZED = tuple(name for name, scheme in SCHEMES.items() if not scheme.is_float)
UNIFORM = tuple(name for name, scheme in SCHEMES.items() if scheme.is_uniform)
FOR_TASKS = tuple(name for name, scheme in SCHEMES.items() if scheme.allows_tasks)
