"""What quantization explains of a product, by the statistics of its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.export.verify.check_operators import OperatorChecker
from gpt_edge.export.verify.check_weights import WeightCheck
from gpt_edge.export.verify.dequantize import DequantizedWeight
from gpt_edge.export.weights.reference_operators import ReferenceOperator, inputs_of
from tests.support.models import TINY, random_model

OPERATOR = ReferenceOperator(0, "attn.c_proj")
ROWS = 400


class Product:
    """A quantized product of a random model, checked as in a graph."""

    def __init__(self) -> None:
        config = replace(TINY["gpt2"], n_ctx=ROWS)
        model = random_model(config)
        self.weight = model.h[0].attn.c_proj.weight.detach().numpy()
        self.bias = model.h[0].attn.c_proj.bias.detach().numpy()
        read = DequantizedWeight(self.weight, np.full((1, 1), 1e-6, np.float32))
        state = model.state_dict()
        checks = {OPERATOR: WeightCheck(read)}
        self.checker = OperatorChecker(model, state, config, checks, tensor_wide=False)
        (self.source,) = inputs_of(OPERATOR, config)

    def fault(self, x: FloatArray, shift: FloatArray | float = 0.0) -> str:
        """What is said of the product of x, rounded to 8 bits, with a shift of its outputs."""
        step = np.abs(x).max(1, keepdims=True) / 127
        y = (np.round(x / step) * step) @ self.weight.T + self.bias + shift
        trace = {self.source: x, OPERATOR: y.astype(np.float32)}
        return self.checker.check(OPERATOR, trace, np.zeros(ROWS, np.int64), 0).fault


@pytest.fixture(scope="module")
def product() -> Product:
    torch.set_num_threads(1)
    return Product()


def rows(n_kinds: int, seed: int = 0) -> FloatArray:
    """ROWS rows, of so many kinds."""
    kinds = np.random.default_rng(seed).normal(size=(n_kinds, TINY["gpt2"].n_embd))
    return kinds[np.arange(ROWS) % n_kinds].astype(np.float32)


@pytest.mark.parametrize("n_kinds", [1, 2, 5, ROWS])
@pytest.mark.parametrize("seed", range(5))
def test_rows_that_are_alike_are_rounded_alike(n_kinds: int, seed: int, product: Product) -> None:
    """Attention that looks at one token gives every row the same input, and the same error."""
    assert product.fault(rows(n_kinds, seed)) == ""


def test_a_shift_of_one_output_is_no_rounding(product: Product) -> None:
    shift = np.zeros(TINY["gpt2"].n_embd)
    shift[5] = 0.02
    assert product.fault(rows(ROWS), shift).startswith("output 5 is shifted by 0.02")
    assert "is shifted" in product.fault(rows(100), 0.8 * shift)


def test_zeros_are_exact_however_many_there_are(product: Product) -> None:
    """Rows that share nothing but zeros are not alike."""
    x = rows(ROWS)
    x[:, ::2] = 0
    shift = np.zeros(TINY["gpt2"].n_embd)
    shift[5] = 0.02
    assert product.fault(x) == ""
    assert "is shifted" in product.fault(x, shift)
