"""Does every operator of a graph compute what the reference's does, from the input that the graph
itself gives it?

The quantization noise of earlier operators is in the input of both, so only the operator's own
error is left: summation order, and for products with int8 activations the rounding of its input,
whose size is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.lower_edge import LOW_ZERO_POINT
from gpt_edge.export.verify.check_results import (
    SIGMAS,
    OperatorCheck,
    check_shift,
    check_slope,
    compare,
)
from gpt_edge.export.verify.check_weights import WeightCheck
from gpt_edge.export.weights.reference_operators import (
    LINEARS,
    ReferenceOperator,
    inputs_of,
    parameters_of,
)
from gpt_edge.reference.model import GPT, activate, causal_mask

# of the largest value: float32 kernels of torch and onnxruntime, summing in another order
EPSILON = 2e-5
SUM_EPSILON = 2e-6  # of sum |x w|: the same for products
PARTS = 32  # of a step: values that are so near are rounded alike
HEADS = ("lm_head", "task_head")


class OperatorChecker:
    """Compares a graph's results on one sequence, run in any number of calls, with the reference's
    operators.

    state: every parameter by its name, those of a task's head included. config: the bundle's, of a
    task with its n_label. tensor_wide: activations are quantized with one scale for the whole call,
    as onnxruntime's dynamic quantization does.
    """

    def __init__(
        self,
        model: GPT,
        state: Mapping[str, Tensor],
        config: GPTConfig,
        weights: Mapping[ReferenceOperator, WeightCheck],
        *,
        tensor_wide: bool,
    ) -> None:
        self.tensor_wide = tensor_wide
        self._model = model
        self._state = state
        self._config = config
        self._weights = weights
        # by layer: what the graph computed so far
        self._keys_values: dict[int, tuple[Tensor, Tensor]] = {}

    def check(
        self,
        operator: ReferenceOperator,
        trace: Mapping[ReferenceOperator, FloatArray],
        ids: IntArray,
        n_past: int,
    ) -> OperatorCheck:
        """Check one operator of one call.

        trace: the graph's results, up to this operator. ids: the new tokens, [T]. n_past: tokens in
        the cache.
        """
        inputs = [torch.from_numpy(trace[source]) for source in inputs_of(operator, self._config)]
        with torch.inference_mode():
            expected, allowed = self._expect(operator, inputs, ids, n_past)
        check = compare(trace[operator], expected.numpy(), allowed.numpy(), n_past)
        if not check.fault and self._is_quantized(operator):
            arrays = trace[operator], expected.numpy(), allowed.numpy()
            noise = float(np.sqrt(np.mean(np.square(allowed.numpy())))) / SIGMAS
            alike = partial(self._rows_alike, operator, inputs[0])
            return (
                check_slope(*arrays) or check_shift(*arrays, alike) or replace(check, noise=noise)
            )
        return check

    def seed(self, cached: Sequence[FloatArray], n_past: int) -> None:
        """Take what a graph's cache holds, [1, H, P, D'] of keys and values of each layer, for what
        was computed so far.
        """
        size = self._config.head_size
        arrays = [torch.from_numpy(a[:, :, :n_past, :size].copy()) for a in cached]
        self._keys_values = {
            layer: (arrays[2 * layer], arrays[2 * layer + 1]) for layer in range(len(arrays) // 2)
        }

    def cache(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """Keys and values [H, P + T, D] that a layer must hold after the calls so far."""
        keys, values = self._keys_values[layer]
        return keys[0].numpy(), values[0].numpy()

    def _is_quantized(self, operator: ReferenceOperator) -> bool:
        is_product = operator.name in (*LINEARS, *HEADS)
        return is_product and not self._weights[operator].is_exact

    def _expect(
        self, operator: ReferenceOperator, inputs: list[Tensor], ids: IntArray, n_past: int
    ) -> tuple[Tensor, Tensor]:
        """The reference's result, and by how much each value may differ."""
        if operator.name == "embedding":
            return self._embed(operator, ids, n_past)
        if operator.name in ("attn.residual", "mlp.residual"):
            branch, stream = inputs
            return branch + stream, EPSILON * torch.maximum(branch.abs(), stream.abs()) + 1e-12
        if operator.name in (*LINEARS, *HEADS):
            return self._product(operator, inputs[0])
        if operator.name == "attn.attention":
            assert operator.layer is not None
            return self._attend(operator.layer, inputs[0], n_past)
        if operator.name == "mlp.activation":
            y = activate(inputs[0], self._config.activation)
            return y, EPSILON * (0.1 + y.abs())
        norm = (
            self._model.ln_f
            if operator.layer is None
            else getattr(self._model.h[operator.layer], operator.name)
        )
        y = norm(inputs[0])
        return y, (EPSILON * y.abs().amax(-1, keepdim=True) + 1e-12).expand_as(y)

    def _embed(
        self, operator: ReferenceOperator, ids: IntArray, n_past: int
    ) -> tuple[Tensor, Tensor]:
        return self._sum_of_tables(operator, ids, np.arange(n_past, n_past + ids.size))

    def check_tables(
        self,
        operator: ReferenceOperator,
        rows: FloatArray,
        ids: IntArray,
        positions: IntArray,
    ) -> str:
        """What is wrong with the graph's embeddings [T, C] of ids [T] at positions [T], or ""."""
        with torch.inference_mode():
            expected, allowed = self._sum_of_tables(operator, ids, positions)
        if rows.shape != tuple(expected.shape):
            return f"the embeddings are {list(rows.shape)}, the reference's {list(expected.shape)}"
        difference = np.abs(rows - expected.numpy())
        is_wrong = ~(difference <= allowed.numpy()).all(axis=1)
        if not is_wrong.any():
            return ""
        first = int(is_wrong.argmax())
        return (
            f"token {ids[first]} at position {positions[first]} is off by "
            f"{float(difference[first].max()):.3g}; {int(is_wrong.sum()):,} of {ids.size:,} "
            "pairs of a token and a position are off"
        )

    def _sum_of_tables(
        self, operator: ReferenceOperator, ids: IntArray, positions: IntArray
    ) -> tuple[Tensor, Tensor]:
        check = self._weights[operator]
        token = self._model.wte(torch.from_numpy(ids))
        position = self._model.wpe(torch.from_numpy(positions))
        if check.weight is not None and check.weight.values.shape == tuple(
            self._model.wte.weight.shape
        ):
            token = torch.from_numpy(check.weight.values[ids])
        return token + position, EPSILON * (token.abs() + position.abs()) + 1e-12

    def _product(self, operator: ReferenceOperator, x: Tensor) -> tuple[Tensor, Tensor]:
        names = parameters_of(operator, self._config)
        weight = self._weight(operator)
        bias = self._state[names[1]] if len(names) > 1 else None
        allowed = SUM_EPSILON * (x.abs() @ weight.abs().T) + 1e-12
        if self._is_quantized(operator):
            steps = self._steps(x, operator.name == "mlp.c_proj")
            allowed = allowed + SIGMAS / math.sqrt(12) * ((steps**2) @ (weight**2).T).sqrt()
        return F.linear(x, weight, bias), allowed

    def _steps(self, x: Tensor, is_activated: bool) -> Tensor:
        """The distance of two int8 levels that x [T, K] is quantized to; an upper bound, where it
        depends on the operator.
        """
        if self.tensor_wide:
            return (2 / 127 * x.abs().max()).expand_as(x)
        steps = x.abs().amax(-1, keepdim=True) / 127
        if is_activated:  # hardly negative, so that few levels are below zero
            steps = torch.maximum(steps, -x.amin(-1, keepdim=True) / LOW_ZERO_POINT)
        return steps.expand_as(x)

    def _weight(self, operator: ReferenceOperator) -> Tensor:
        """A product's weight [N, K] as the graph has it; the reference's where it has another
        shape.
        """
        weight = self._state[parameters_of(operator, self._config)[0]]
        found = self._weights[operator].weight
        if found is None or found.values.shape != weight.shape:
            return weight
        return torch.from_numpy(np.ascontiguousarray(found.values))

    def _rows_alike(self, operator: ReferenceOperator, x: Tensor) -> FloatArray:
        """How far the rounding of x [T, K] is the same in several rows: the variance of the mean
        error over the rows, as a fraction of that of one row's, for each output [N]. 1 / T where
        all rows differ, 1 where all are equal.

        Values that lie nearer than a PARTS-th of a step are rounded alike. Zeros have no error.
        """
        bins = (x / self._steps(x, operator.name == "mlp.c_proj") * PARTS).round().nan_to_num()
        n_rows = len(x)
        shares = np.empty(x.shape[1])
        for column, values in enumerate(bins.numpy().T):
            _, counts = np.unique(values[values != 0], return_counts=True)
            shares[column] = max(n_rows, np.square(counts).sum()) / n_rows**2
        energy = np.square(self._weight(operator).numpy().astype(np.float64))
        alike: FloatArray = (energy @ shares) / np.maximum(energy.sum(1), 1e-300)
        return alike

    def _attend(self, layer: int, qkv: Tensor, n_past: int) -> tuple[Tensor, Tensor]:
        attn = self._model.blocks()[layer].attn
        q, k, v = qkv.view(1, len(qkv), 3, attn.n_head, -1).permute(2, 0, 3, 1, 4)  # [1, H, T, D]
        if n_past:
            k = torch.cat((self._keys_values[layer][0], k), 2)
            v = torch.cat((self._keys_values[layer][1], v), 2)
        self._keys_values[layer] = (k, v)
        mask = causal_mask(n_past, len(qkv), attn.window, q.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=attn.scale)
        y = y.transpose(1, 2).reshape(len(qkv), -1)
        largest_score = float(q.norm(dim=-1).max() * k.norm(dim=-1).max() * attn.scale)
        allowed = EPSILON * (1 + 0.1 * largest_score) * v.abs().max() + 1e-12
        return y, allowed.expand_as(y)
