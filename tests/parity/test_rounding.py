"""Rounding weights: what every method must keep, what each must win, and that the measuring
computes what kernels do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gpt_edge.errors import NumericError
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import Rows, layer_hessians, load_reference
from gpt_edge.export.budget.sensitivity import SensitivityProbe, round_activations
from gpt_edge.export.formats.gptq import gptq
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.rounding import quantize_weight
from gpt_edge.export.formats.tensor_format import FLOAT16, FLOAT32, TensorFormat
from gpt_edge.export.weights.reference_operators import LINEARS
from gpt_edge.export.weights.source import pad_heads
from gpt_edge.reference.importers import open_checkpoint
from tests.support.models import TINY

FORMS = [
    TensorFormat(bits, block, symmetric, rounding)
    for bits in (4, 8)
    for block in (16, 64)
    for symmetric in (True, False)
    for rounding in ("nearest", "scale-search")
]


def weights(n: int = 24, k: int = 96, seed: int = 0) -> np.ndarray:
    """Heavy-tailed, as trained weights are."""
    return (np.random.default_rng(seed).standard_t(5, (n, k)) * 0.02).astype(np.float32)


def inputs(k: int, n: int = 800, seed: int = 1) -> torch.Tensor:
    """Correlated activations with a few large channels."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, k, generator=generator) @ torch.randn(k, k, generator=generator) / k**0.5
    return mixed * (1 + 9 * (torch.arange(k) % 17 == 0))


def by_hand(weight: np.ndarray, bits: int, block: int) -> np.ndarray:
    """Rounding to nearest, one block at a time, as obviously as can be: dequantised."""
    out = np.zeros_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], block):
            values = weight[row, start : start + block]
            largest = np.abs(values).max()
            scales = [largest / np.float32(127)] if bits == 8 else [largest / np.float32(7)]
            if bits == 4:
                scales.append(values[np.abs(values).argmax()] / np.float32(-8))
            low = -(1 << (bits - 1))
            tries = [
                np.clip(np.rint(values / s), low, -low - 1) * s if s else values * 0 for s in scales
            ]
            out[row, start : start + block] = min(
                tries, key=lambda found: np.square(found - values).sum()
            )
    return out


@pytest.mark.parametrize(("bits", "block"), [(8, 32), (8, 64), (4, 32), (4, 16)])
def test_nearest_is_what_a_loop_over_blocks_gives(bits: int, block: int) -> None:
    weight = weights(k=90)  # a last, shorter block
    found = quantize_weight(weight, TensorFormat(bits, block), block)
    np.testing.assert_allclose(found.dequantize(90), by_hand(weight, bits, block), atol=1e-7)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.label)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), k=st.integers(1, 70), seed=st.integers(0, 99), zeroed=st.booleans())
def test_levels_fit_their_bits_and_lie_near_the_weight(
    form: TensorFormat, n: int, k: int, seed: int, zeroed: bool
) -> None:
    weight = weights(n, k, seed)
    if zeroed:
        weight[n // 2] = 0
    size = form.block_for(k)
    found = quantize_weight(weight, form, size)
    assert found.levels.shape == (n, -(-k // size), size)
    assert int(found.levels.max()) < 1 << form.bits
    assert np.isfinite(found.scales).all()
    spread = (
        np.ptp(np.pad(weight, ((0, 0), (0, 1))), axis=-1)
        if not form.symmetric
        else 2 * np.abs(weight).max(-1)
    )
    # A fifth of an asymmetric range may be clipped, and an eighth of a symmetric one; else half a
    # step.
    limit = (0.35 if form.rounding == "scale-search" else 1 / ((1 << form.bits) - 2)) * spread
    assert (np.abs(found.dequantize(k) - weight).max(-1) <= limit + 1e-6).all()
    if zeroed:
        assert not found.dequantize(k)[n // 2].any()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scale_search_loses_less_than_nearest_on_the_weights(bits: int, symmetric: bool) -> None:
    weight = weights(64, 256)
    errors = {}
    for rounding in ("nearest", "scale-search"):
        found = quantize_weight(weight, TensorFormat(bits, 32, symmetric, rounding), 32)
        errors[rounding] = np.square(found.dequantize(256) - weight).sum(-1)
    assert errors["scale-search"].sum() < 0.97 * errors["nearest"].sum()
    if symmetric:
        assert (errors["scale-search"] <= errors["nearest"] * 1.0001).mean() > 0.95


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 64])
def test_gptq_halves_the_error_of_the_layers_output(symmetric: bool, block: int) -> None:
    weight, x = weights(64, 128), inputs(128)
    fresh = inputs(128, seed=1)[:400].numpy()
    errors = {}
    for rounding in ("nearest", "gptq"):
        form = TensorFormat(4, block, symmetric, rounding)
        found = quantize_weight(weight, form, block, x.T @ x)
        errors[rounding] = np.square(fresh @ (found.dequantize(128) - weight).T).mean()
    assert errors["gptq"] < 0.5 * errors["nearest"]


def test_gptq_with_uncorrelated_inputs_changes_nothing_but_the_scales() -> None:
    weight = weights(16, 64)
    found = gptq(weight, 4, 32, torch.eye(64))
    plain = quantize_weight(weight, TensorFormat(4, 32, rounding="scale-search"), 32)
    np.testing.assert_array_equal(found.levels, plain.levels)


def test_gptq_is_the_textbook_loop() -> None:
    """Column by column with the whole inverse, no lazy blocks: Frantar et al. 2022, algorithm 1, in
    float64.
    """
    k, block = 160, 32  # more than one lazy block
    weight, x = weights(8, k), inputs(k, 2000).double()
    hessian = (x.T @ x).float()
    found = gptq(weight, 4, block, hessian)
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    h = hessian.double()[order][:, order]
    h += 0.01 * h.diagonal().mean() * torch.eye(k)
    factor = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    columns = torch.from_numpy(weight.T.copy()).double()[order]
    levels = torch.zeros(k, 8)
    for i, place in enumerate(order.tolist()):
        scale = torch.from_numpy(found.scales[:, place // block]).double()
        levels[place] = (columns[i] / scale).round().clamp(-8, 7).float() + 8
        error = (columns[i] - (levels[place] - 8) * scale) / factor[i, i]
        columns[i + 1 :] -= factor[i, i + 1 :, None] * error
    agreeing = (levels.T.numpy() == found.levels.reshape(8, -1)).mean()
    assert agreeing > 0.99  # float32 against float64: a tie may fall to the other side


def test_gptq_rounds_inputs_that_were_never_seen() -> None:
    weight, x = weights(8, 64), inputs(64)
    x[:, 40:] = 0
    found = gptq(weight, 4, 32, x.T @ x)
    assert np.abs(found.dequantize(64) - weight)[:, 40:].max() < np.abs(weight).max() / 4
    assert found.dequantize(64)[:, 40:].any()


def test_gptq_refuses_activations_that_are_not_finite() -> None:
    hessian = torch.eye(64)
    hessian[3, 3] = torch.inf
    with pytest.raises(NumericError, match="not finite"):
        gptq(weights(4, 64), 4, 32, hessian)


def test_rounding_does_not_depend_on_threads_or_neighbours() -> None:
    weight, x = weights(300, 128), inputs(128)
    for form in (TensorFormat(4, 32, rounding="scale-search"), TensorFormat(4, 32, False, "gptq")):
        hessian = x.T @ x
        whole = quantize_weight(weight, form, 32, hessian)
        again = quantize_weight(weight, form, 32, hessian)
        np.testing.assert_array_equal(whole.levels, again.levels)
        np.testing.assert_array_equal(whole.scales, again.scales)
    alone = quantize_weight(weight[7:9], TensorFormat(4, 32, rounding="scale-search"), 32)
    whole = quantize_weight(weight, TensorFormat(4, 32, rounding="scale-search"), 32)
    np.testing.assert_array_equal(alone.levels, whole.levels[7:9])


def test_packing_puts_the_low_nibble_first() -> None:
    rounded = quantize_weight(weights(5, 96), TensorFormat(4, 32, False), 32)
    packed, zeros = rounded.packed_levels(), rounded.packed_zeros()
    assert zeros is not None
    assert rounded.zeros is not None
    assert (packed.shape, zeros.shape) == ((5, 3, 16), (5, 2))
    np.testing.assert_array_equal(packed & 15, rounded.levels[..., 0::2])
    np.testing.assert_array_equal(packed >> 4, rounded.levels[..., 1::2])
    np.testing.assert_array_equal(zeros & 15, rounded.zeros[:, 0::2])
    np.testing.assert_array_equal(zeros[:, 0] >> 4, rounded.zeros[:, 1])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("activations", ["block", "float"])
def test_the_measured_product_is_what_onnxruntime_computes(
    bits: int, symmetric: bool, activations: str
) -> None:
    n, k, block = 24, 96, 32
    form = TensorFormat(bits, block, symmetric, activations=activations)
    rounded = quantize_weight(weights(n, k), form, block)
    x = inputs(k, 5)
    x[2] = 0
    found = _matmul_nbits(x.numpy(), rounded, n, k, block, 4 if activations == "block" else 0)
    wanted = round_activations(x, form, block).numpy() @ rounded.dequantize(k).T
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


def _matmul_nbits(
    x: np.ndarray, rounded: QuantizedWeight, n: int, k: int, block: int, accuracy_level: int
) -> np.ndarray:
    initializers = {"b": rounded.packed_levels(), "s": rounded.scales}
    if (zeros := rounded.packed_zeros()) is not None:
        initializers["z"] = zeros
    node = helper.make_node(
        "MatMulNBits", ["x", *initializers], ["y"], domain="com.microsoft",
        K=k, N=n, bits=rounded.bits, block_size=block, accuracy_level=accuracy_level,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y: np.ndarray = session.run(None, {"x": x})[0]
    return y


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((5, 32), "bits must be"),
        ((4, 24), "power of two"),
        ((4, 8), "power of two"),
        ((16, 32), "no blocks"),
        ((8, 32, True, "up"), "rounding must be"),
        ((8, 32, True, "nearest", "row"), "one scale a row"),
    ],
)
def test_formats_that_no_kernel_has_are_refused(arguments: tuple[object, ...], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        TensorFormat(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "form",
    [*FORMS, TensorFormat(4, 32, False, "gptq"), FLOAT16, FLOAT32],
    ids=lambda form: form.label,
)
def test_a_format_knows_its_size(form: TensorFormat) -> None:
    n, k = 6, 100  # 100 is no multiple of a block: padded
    if form.is_float:
        assert form.n_bytes(n, k) == n * k * form.bits // 8
        return
    size = form.block_for(k)
    rounded = quantize_weight(weights(n, k), form, size, torch.eye(k))
    zeros = rounded.packed_zeros()
    stored = (
        rounded.packed_levels().nbytes
        + rounded.scales.nbytes
        + (zeros.nbytes if zeros is not None else 0)
    )
    assert form.n_bytes(n, k) == stored


@pytest.mark.parametrize("kind", TINY)
def test_hessians_of_layers_are_those_of_the_whole_model(
    kind: str, checkpoints: dict[str, Path]
) -> None:
    source = open_checkpoint(checkpoints[kind])
    config = source.config
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (9, 20))
    model, seen = load_reference(source), {}
    for layer in range(config.n_layer):
        for part in LINEARS:
            name = f"h.{layer}.{part}"
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, given, name=name: seen.__setitem__(
                    f"{name}.weight", given[0].flatten(0, 1)
                )
            )
    with torch.inference_mode():
        model(torch.from_numpy(ids))
    found = {
        name: h
        for layer in layer_hessians(source, Rows(ids, "random"))
        for name, h in layer.items()
    }
    assert found.keys() == seen.keys()
    for name, x in seen.items():
        np.testing.assert_allclose(
            found[name], x.T @ x, rtol=1e-3, atol=1e-3 * float((x.T @ x).abs().max())
        )


@pytest.mark.parametrize("kind", ["gpt1", "gpt2"])  # gpt1: padded heads
def test_gptq_of_a_whole_model_costs_less_than_rounding_to_nearest(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source = open_checkpoint(checkpoints[kind])
    rng = np.random.default_rng(0)
    text, other = (
        Rows(rng.integers(0, source.config.vocab_size, (40, 48)), "random") for _ in range(2)
    )
    rounder = Rounder(source.config, "edge", tmp_path)
    names = [f"h.0.{part}.weight" for part in LINEARS]
    forms = [TensorFormat(4, 16), TensorFormat(4, 16, rounding="gptq"), FLOAT32]
    rounder.prepare(dict.fromkeys(names, forms), source, text)
    padded = pad_heads(names[1], source.tensor(names[1]), source.config)
    assert rounder(names[1], padded, forms[1]).dequantize(padded.shape[1]).shape == padded.shape
    found = SensitivityProbe(load_reference(source), other, "edge", rounder).sensitivities(
        dict.fromkeys(names, forms)
    )
    sums = [sum(found[name][form].mean_kl for name in names) for form in forms]
    assert sums[1] < 0.8 * sums[0]
    assert sums[2] == 0
