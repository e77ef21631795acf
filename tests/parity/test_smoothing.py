"""Channels that stand out: found, moved in powers of two, undone where a graph is compared, and
absent elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.export.verify.divergence import first_divergence, layer_divergences
from gpt_edge.export.weights.smoothing import KEY, MAX_EXPONENT, Smoothing, find_smoothing, smooth
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.verify.report import Verification
from tests.conftest import REPO
from tests.support.models import random_model

sys.path.insert(0, str(REPO / "benchmarks" / "quality"))

from outliers import plant_outliers

WIDTH = 96
CHANNELS = (3, 10)  # where plant_outliers puts them in the two layers
PRE = GPTConfig(n_layer=2, n_head=4, n_embd=WIDTH, n_ctx=64, vocab_size=211)
POST = dataclasses.replace(PRE, norm="post")
Exported = Callable[[str], tuple[Bundle, Verification]]
PLACES = {"pre": ("attn.values", "ln_1", "ln_2"), "post": ("attn.values",)}


@pytest.fixture(scope="module", params=[PRE, POST], ids=lambda config: config.norm)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config: GPTConfig = request.param
    source = tmp_path_factory.mktemp(config.norm) / "source"
    model = random_model(config, std=0.08)
    plant_outliers(model)
    save_checkpoint(source, config, model.state_dict(), None, {})
    return source


@pytest.fixture(scope="module")
def exported(planted: Path) -> Exported:
    """exported(scheme): the bundle of the planted model and its figures, made at the first call."""

    @functools.cache
    def make(scheme: str) -> tuple[Bundle, Verification]:
        return export_bundle(planted, planted.with_name(scheme), scheme=scheme, tokenizer="none")

    return make


def test_only_channels_that_stand_out_are_found(planted: Path) -> None:
    checkpoint = open_checkpoint(planted)
    found = find_smoothing(checkpoint).exponents
    wanted = {
        f"h.{layer}.{place}" for layer in range(2) for place in PLACES[checkpoint.config.norm]
    }
    assert set(found) == wanted
    for place, channels in found.items():
        channel = CHANNELS[int(place.split(".")[1])]
        assert set(channels) == {channel}, place
        assert 5 <= channels[channel] <= 8, place  # 100 is 2**6.6


def test_a_model_without_them_is_left_as_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "plain", PRE, random_model(PRE, std=0.08).state_dict(), None, {})
    checkpoint = open_checkpoint(tmp_path / "plain")
    assert find_smoothing(checkpoint) == Smoothing({})
    bundle, _ = export_bundle(tmp_path / "plain", tmp_path / "int8", tokenizer="none")
    assert KEY not in bundle.manifest.provenance


def test_smoothed_weights_are_the_same_model_to_the_last_bit(planted: Path) -> None:
    checkpoint = open_checkpoint(planted)
    model, ids = checkpoint.load_model().eval(), torch.arange(60)[None]
    source = smooth(checkpoint, "edge", "int8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        wanted = model(ids)[0]
        with source.smoothing.applied(model):
            torch.testing.assert_close(model(ids)[0], wanted, rtol=0, atol=0)
            for name, tensor in model.state_dict().items():
                np.testing.assert_array_equal(source.tensor(name), tensor.numpy(), err_msg=name)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("scheme", ["int8", "int8-block"])
def test_a_smoothed_bundle_is_verified_and_parts_where_another_one_does(
    planted: Path, exported: Exported, scheme: str
) -> None:
    bundle, report = exported(scheme)
    assert report.figures[f"torch against {scheme}"]["logits"]["mean_kl"] <= 2e-3
    assert set(bundle.manifest.provenance[KEY]) == set(
        find_smoothing(open_checkpoint(planted)).exponents
    )
    assert verify_bundle(bundle, planted).faults == []
    model, ids = open_checkpoint(planted).load_model().eval(), np.arange(50)
    divergences = layer_divergences(model, bundle, ids)
    # a channel that is not restored is off by half and more
    assert max(divergence.relative for divergence in divergences) < 0.2
    first = first_divergence(divergences)
    assert first is not None
    assert first.operator.name == "embedding"


def test_quantize_smooths_as_export_does(exported: Exported, tmp_path: Path) -> None:
    direct, _ = exported("int8")
    plain, _ = exported("fp32")
    quantized, _ = quantize_bundle(plain, tmp_path / "int8-too", scheme="int8")
    assert quantized.manifest.provenance[KEY] == direct.manifest.provenance[KEY]
    data = {(Path(bundle.path) / "model.onnx.data").read_bytes() for bundle in (direct, quantized)}
    assert len(data) == 1
    assert KEY not in plain.manifest.provenance


def test_a_wrong_exponent_in_the_manifest_is_a_fault(planted: Path, exported: Exported) -> None:
    bundle, _ = exported("int8")
    described = {place: {str(CHANNELS[0]): 2} for place in bundle.manifest.provenance[KEY]}
    manifest = dataclasses.replace(bundle.manifest, provenance={KEY: described})
    assert verify_bundle(Bundle(bundle.path, manifest), planted).faults != []


@pytest.mark.parametrize(
    "described",
    [
        None,
        3,
        [],
        {"h.0.ln_1": 3},
        {"h.0.ln_1": {"x": 1, "9999": 1, "3": 1.5, "4": True, "5": MAX_EXPONENT + 1}},
    ],
    ids=str,
)
def test_what_a_manifest_says_otherwise_is_ignored(exported: Exported, described: object) -> None:
    bundle, _ = exported("fp32")
    manifest = dataclasses.replace(bundle.manifest, provenance={KEY: described})
    smoothing = Smoothing.of_manifest(manifest)
    assert all(not channels for channels in smoothing.exponents.values())
    assert smoothing.factors("h.0.ln_1", WIDTH) is None


def test_many_channels_may_stand_out(tmp_path: Path) -> None:
    model = random_model(PRE, std=0.08)
    with torch.no_grad():
        model.blocks()[0].ln_1.weight[:40] *= 1000.0
    save_checkpoint(tmp_path / "many", PRE, model.state_dict(), None, {})
    found = find_smoothing(open_checkpoint(tmp_path / "many")).exponents["h.0.ln_1"]
    assert len(found) == 40
    assert all(1 <= exponent <= MAX_EXPONENT for exponent in found.values())
