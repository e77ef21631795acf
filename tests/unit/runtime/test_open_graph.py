"""How a graph is started: onnxruntime's options, the contract, and the probe of the CPU's
products.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError
from gpt_edge.runtime import memory_model, open_graph, ort_session
from gpt_edge.runtime.memory_model import predict_memory
from gpt_edge.runtime.ort_session import MODEL, cause_of, products_saturate, start_session
from gpt_edge.runtime.tuning import DEFAULT
from tests.support.tiny_model import GOLDEN, bundle_path

PREPACKING = "session.disable_prepacking"


def options_of(name: str, **settings: Any) -> ort.SessionOptions:
    bundle = Bundle.open(GOLDEN / name)
    values = {"profile": None, "tuning": DEFAULT, **settings}
    return open_graph._options(bundle, 3, values["profile"], values["tuning"])


def entry(options: ort.SessionOptions, name: str) -> str | None:
    try:
        return str(options.get_session_config_entry(name))
    except RuntimeError:
        return None


def test_a_session_keeps_to_its_threads_and_keeps_no_memory() -> None:
    options = options_of("tiny-edge")
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert not options.enable_profiling
    assert options.log_severity_level == ort_session.SILENT
    assert entry(options, "session.force_spinning_stop") == "1"
    still = options_of("tiny-edge", tuning=dataclasses.replace(DEFAULT, is_spinning=False))
    assert entry(still, "session.intra_op.allow_spinning") == "0"


def test_a_profile_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    options = options_of("tiny-edge", profile=tmp_path / "profile")
    assert options.enable_profiling
    assert options.profile_file_prefix == str(tmp_path / "profile")


def test_weights_of_a_large_float_model_alone_stay_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert entry(options_of("tiny-edge"), PREPACKING) is None
    monkeypatch.setattr(open_graph, "LARGE", 10)
    assert entry(options_of("tiny-edge"), PREPACKING) == "1"
    assert entry(options_of("native-int8"), PREPACKING) is None


def of_names(inputs: list[str], outputs: list[str]) -> Any:
    """A session with these inputs and outputs."""
    sides = [[SimpleNamespace(name=name) for name in names] for names in (inputs, outputs)]
    return SimpleNamespace(get_inputs=lambda: sides[0], get_outputs=lambda: sides[1])


PASTS = [f"past_key_values.{layer}.{side}" for layer in (0, 1) for side in ("key", "value")]
INPUTS = ["input_ids", "attention_mask", "position_ids", *PASTS]
OUTPUTS = ["logits", *(name.replace("past_key_values", "present") for name in PASTS)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (INPUTS[1:], OUTPUTS, "lacks the input input_ids, which the portable graph"),
        ([*INPUTS, "z", "y", "x", "w"], OUTPUTS, "has an unknown input w, x, y, which"),
        (INPUTS, OUTPUTS[1:], "lacks the output logits, which"),
        (INPUTS, [*OUTPUTS, "loss"], "has an unknown output loss, which"),
        (INPUTS[:3], OUTPUTS, r"lacks the input past_key_values\.0\.key, .*\.0\.value, .*1\.key,"),
    ],
)
def test_a_graph_of_another_contract_is_named(
    inputs: list[str], outputs: list[str], message: str
) -> None:
    bundle = Bundle.open(bundle_path("portable"))
    open_graph._check_contract(bundle, of_names(INPUTS, [*OUTPUTS, "hidden_states"]))
    with pytest.raises(BundleError, match=message) as caught:
        open_graph._check_contract(bundle, of_names(inputs, outputs))
    assert "exported without past" not in caught.value.message


def test_the_contract_is_checked_where_the_gate_was_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    edge, portable = (Bundle.open(bundle_path(graph)) for graph in ("edge", "portable"))
    monkeypatch.setattr(open_graph, "checked_model", lambda bundle: portable.model_path)
    with pytest.raises(BundleError, match=r"lacks the input .* which the edge graph"):
        open_graph.open_graph(edge, 1, native=False)


class Saturating:
    """A session whose products are wrong for some numbers of rows."""

    def __init__(self, wrong: set[int]) -> None:
        self.wrong = wrong
        self.asked: list[int] = []

    def run(self, names: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        (values,) = feeds.values()
        assert values.dtype == np.uint8
        self.asked.append(len(values))
        product = values.astype(np.int32) @ np.full((4, 16), 127, np.int32)
        product[-1, -1] -= 1 if len(values) in self.wrong else 0
        return [product]


@pytest.mark.parametrize(
    ("wrong", "expected"), [(set(), False), ({1}, True), ({8}, True), ({1, 8}, True)]
)
def test_products_saturate_where_one_row_or_several_are_wrong(
    wrong: set[int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Saturating(wrong)

    def start(model: bytes, options: ort.SessionOptions, *, is_guarded: bool) -> Saturating:
        assert (model, options.intra_op_num_threads, is_guarded) == (MODEL, 1, False)
        return session

    monkeypatch.setattr(ort_session, "start_session", start)
    assert products_saturate.__wrapped__() is expected
    assert set(session.asked) <= {1, 8}


def test_the_probe_says_what_the_products_of_this_cpu_are() -> None:
    session = start_session(MODEL, ort.SessionOptions(), is_guarded=False)
    values = np.full((8, 4), 255, np.uint8)
    (found,) = session.run(None, {"a": values})
    is_exact = (found == values.astype(np.int32) @ np.full((4, 16), 127)).all()
    assert products_saturate.__wrapped__() is not bool(is_exact)


def test_the_guard_asks_for_unsigned_weights_and_leaves_blocks_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[ort.SessionOptions] = []
    monkeypatch.setattr(ort, "InferenceSession", lambda *given, **_: started.append(given[1]))
    names = ("session.x64quantprecision", "session.qdqisint8allowed")
    for does_saturate, expected in ((True, ["1", "1"]), (False, [None, None])):
        monkeypatch.setattr(ort_session, "products_saturate", lambda: does_saturate)  # noqa: B023
        start_session(MODEL, ort.SessionOptions())
        assert [entry(started[-1], name) for name in names] == expected
    monkeypatch.setattr(ort_session, "products_saturate", lambda: True)
    start_session(MODEL, ort.SessionOptions(), is_guarded=False)
    assert entry(started[-1], names[0]) is None


def test_a_long_message_keeps_its_end() -> None:
    assert cause_of(ValueError("a\n  b")) == "a b"
    assert cause_of(ValueError()) == "ValueError"
    whole = "x" * 300
    assert cause_of(ValueError(whole)) == whole
    assert cause_of(ValueError("start" + "y" * 299)) == "...t" + "y" * 299


def test_the_cache_of_a_context_grows_with_the_layers() -> None:
    bundle = Bundle.open(bundle_path())
    sizes = []
    for n_layer in (1, 2, 5):
        config = dataclasses.replace(bundle.config, n_layer=n_layer)
        manifest = dataclasses.replace(bundle.manifest, config=config)
        found = predict_memory(dataclasses.replace(bundle, manifest=manifest), native=False)
        sizes.append(found.cache)
    # keys and values, width of the heads, context, float32
    assert sizes == [2 * n_layer * 16 * 64 * 4 for n_layer in (1, 2, 5)]


def test_a_large_float_model_is_used_where_its_file_is_mapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Bundle.open(bundle_path())
    small = predict_memory(bundle, native=False).loaded
    monkeypatch.setattr(memory_model, "LARGE", bundle.config.n_parameters)
    assert predict_memory(bundle, native=False).loaded == small
    monkeypatch.setattr(memory_model, "LARGE", bundle.config.n_parameters - 1)
    assert predict_memory(bundle, native=False).loaded < small
