"""Does every operator of a graph compute what the reference's does, from the input that the graph
itself gives it?

The quantization noise of earlier operators is in the input of both, so only the operator's own
error is left: summation order, and for products with int8 activations the rounding of its input,
whose size is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.lower_edge import LOW_ZERO_POINT
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
SIGMAS = 8.0  # of the quantization noise of a product's input
MAX_SLOPE = 0.01  # a product that is scaled by more was not only quantized
# of the energy of a product: where quantization makes more noise, a slope means nothing
MAX_NOISE = 0.01
MIN_ROWS = 16  # rows that make a mean
HEADS = ("lm_head", "task_head")
MAX_BIAS = 1e-3  # of the largest value: the error of quantization on average


@dataclass(frozen=True, slots=True)
class OperatorCheck:
    """How far an operator's result is from the reference's: the worst value, as a fraction of what
    is explained.

    noise: root mean square of what quantizing the operator's input explains; 0 where it is float.
    """

    share: float
    fault: str = ""
    noise: float = 0.0


class OperatorChecker:
    """Compares a graph's results on one sequence, run in any number of calls, with the reference's
    operators.

    state: every parameter by its name, those of a task's head included. config: the bundle's, of a
    task with its n_label. tensor_wide: activations
    are quantized with one scale for the whole call, as onnxruntime's dynamic quantization does.
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
        check = _compare(trace[operator], expected.numpy(), allowed.numpy(), n_past)
        if not check.fault and self._is_quantized(operator):
            arrays = trace[operator], expected.numpy(), allowed.numpy()
            noise = float(np.sqrt(np.mean(np.square(allowed.numpy())))) / SIGMAS
            return _check_slope(*arrays) or _check_shift(*arrays) or replace(check, noise=noise)
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
        check = self._weights[operator]
        names = parameters_of(operator, self._config)
        weight = self._state[names[0]]
        if check.weight is not None and check.weight.values.shape == weight.shape:
            weight = torch.from_numpy(np.ascontiguousarray(check.weight.values))
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


def _compare(
    actual: FloatArray, expected: FloatArray, allowed: FloatArray, n_past: int
) -> OperatorCheck:
    if actual.shape != expected.shape:
        return OperatorCheck(
            math.inf,
            f"the result is {list(actual.shape)}, the reference's is {list(expected.shape)}",
        )
    difference = np.abs(actual - expected)
    share = np.nan_to_num(difference / allowed, nan=np.inf)
    row, column = (int(index) for index in np.unravel_index(int(share.argmax()), share.shape))
    worst = float(share[row, column])
    if worst <= 1:
        return OperatorCheck(worst)
    size = float(difference[row, column])
    limit = float(allowed[row, column])
    text = f"off by {size:.3g} at position {n_past + row}, where {limit:.2g} is explained"
    return OperatorCheck(
        worst, f"{text}; {int((share > 1).sum()):,} of {share.size:,} values are off"
    )


def _check_slope(
    actual: FloatArray, expected: FloatArray, allowed: FloatArray
) -> OperatorCheck | None:
    """A product whose every value is within the quantization noise may still be scaled: regress it
    on what is expected.
    """
    energy = float(np.square(expected).sum())
    noise = float(np.square(allowed / SIGMAS).sum())
    if energy == 0 or noise > MAX_NOISE * energy:
        return None
    slope = float(((actual - expected) * expected).sum()) / energy
    limit = MAX_SLOPE + SIGMAS * math.sqrt(noise / energy / expected.size)
    if abs(slope) <= limit:
        return None
    return OperatorCheck(
        abs(slope) / limit,
        f"scaled by {1 + slope:.4g}, where {limit:.2g} more or less is explained",
    )


def _check_shift(
    actual: FloatArray, expected: FloatArray, allowed: FloatArray
) -> OperatorCheck | None:
    """Quantization is unbiased: the mean over the rows of each output must be nearer than each of
    its values.
    """
    if len(actual) < MIN_ROWS:
        return None
    shift = np.abs((actual - expected).mean(0))
    limit = np.sqrt(np.square(allowed).mean(0) / len(actual)) + MAX_BIAS * np.abs(expected).max()
    worst = int((shift / limit).argmax())
    if shift[worst] <= limit[worst]:
        return None
    text = (
        f"output {worst} is shifted by {shift[worst]:.3g} in all rows, where {limit[worst]:.2g} is "
        "explained"
    )
    return OperatorCheck(float(shift[worst] / limit[worst]), text)
