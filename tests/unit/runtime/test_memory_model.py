"""The predicted memory of a bundle against the measured one, and the limit that refuses it."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from gpt_edge import load
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.cli.support.memory import memory_figures
from gpt_edge.cli.support.options import parse_memory
from gpt_edge.errors import BundleError
from gpt_edge.runtime import memory_model
from gpt_edge.runtime.memory_model import check_memory, predict_memory
from gpt_edge.runtime.tuning import PHONE
from tests.conftest import REPO
from tests.support.tiny_model import GRAPHS, N_CTX, bundle_path, open_session, random_ids

TINY = REPO / "tests/golden/tiny-edge"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems map and count differently")
@pytest.mark.parametrize("name", [str(TINY), DEFAULT_BUNDLE])
def test_the_prediction_is_within_15_percent(name: str) -> None:
    figures = memory_figures(Bundle.open(name))
    assert abs(figures["predicted_peak"] / figures["measured_peak"] - 1) <= 0.15


def test_a_full_context_a_phone_and_the_guard_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open()
    usual, phone = predict_memory(bundle), predict_memory(bundle, tuning=PHONE)
    assert usual.full == usual.loaded + usual.cache + usual.work
    assert phone.loaded == usual.loaded
    assert phone.work == usual.work // 4
    monkeypatch.setattr(memory_model, "has_integer_products", lambda path: True)
    monkeypatch.setattr(memory_model, "has_signed_weights", lambda path: True)
    monkeypatch.setattr(memory_model, "find_library", lambda native: None)
    exact = _loaded(bundle, False, monkeypatch)
    assert _loaded(bundle, True, monkeypatch) > exact


def _loaded(bundle: Bundle, saturates: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(memory_model, "products_saturate", lambda: saturates)
    return predict_memory(bundle).loaded


def test_custom_operators_use_the_weights_where_they_are_mapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Bundle.open()
    monkeypatch.setattr(memory_model, "find_library", lambda native: None)
    packed = predict_memory(bundle)
    monkeypatch.setattr(memory_model, "find_library", lambda native: TINY)
    mapped = predict_memory(bundle)
    assert mapped.loaded < packed.loaded
    assert mapped.cache == packed.cache // 2  # float16


def test_a_limit_refuses_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match=r"needs about \d+ MB .* the limit is 20 MB"):
        load(TINY, max_memory=20_000_000)
    assert load(TINY, max_memory=10**9, profile="phone").session.threads <= 2


@pytest.mark.parametrize("graph", GRAPHS)
def test_keys_and_values_of_a_full_context_are_predicted_to_the_byte(graph: str) -> None:
    session = open_session(graph)
    cache = session.new_cache()
    session.forward(random_ids(N_CTX), cache)
    predicted = predict_memory(Bundle.open(bundle_path(graph)))
    assert predicted.cache == sum(array.nbytes for array in cache.arrays)


def test_a_long_prompt_takes_what_its_tokens_compute_at_once() -> None:
    bundle = Bundle.open(TINY)
    config = bundle.config
    small, large = (
        predict_memory(bundle, tuning=dataclasses.replace(PHONE, prefill_chunk=n)).work
        for n in (1, 2 * config.n_ctx)
    )
    # an MLP three times, 8 rows of the width, and a score of each head for each position
    a_token = 3 * config.inner_size + 8 * config.n_embd + config.n_head * config.n_ctx
    assert small == 4 * a_token
    assert large == config.n_ctx * small


def test_the_limit_itself_is_enough() -> None:
    bundle = Bundle.open(TINY)
    full = predict_memory(bundle).full
    check_memory(bundle, full)
    with pytest.raises(BundleError, match="the limit is"):
        check_memory(bundle, full - 1)


@pytest.mark.parametrize(
    ("text", "expected"), [("500MB", 5 * 10**8), ("1.5 gb", 15 * 10**8), ("64K", 64_000)]
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "500", "-1MB", "MB", "1..5GB", "nanGB"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="--max-memory must be a size such as 500MB"):
        parse_memory(text)


def test_large_float_models_stay_mapped() -> None:
    bundle = Bundle.open(TINY)
    config = dataclasses.replace(bundle.config, n_embd=4096, n_layer=12, n_head=32, n_inner=None)
    manifest = dataclasses.replace(bundle.manifest, config=config)
    large = dataclasses.replace(bundle, manifest=manifest)
    assert memory_model._factor(large, False) == memory_model.MAPPED
    assert memory_model._factor(bundle, False) == memory_model.PACKED_FLOAT
