"""Timing of a loaded model, a fresh process, memory, the profiler: on the tiny golden bundles, in a
second or two.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gpt_edge import onnx_contract
from gpt_edge.bench import run as rounds
from gpt_edge.bench.bandwidth import MAX_BYTES, MIN_BYTES, ReadProbe
from gpt_edge.bench.figures import Engine
from gpt_edge.bench.measure import GREEDY, TOP_K_PARAMS, Model, clocked_runs
from gpt_edge.bench.plan import Case, Plan
from gpt_edge.bench.process import Start, start_process
from gpt_edge.bench.profile import BESIDES, profile
from gpt_edge.bench.traffic import cache_bytes, weight_bytes
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, ContextLengthError
from gpt_edge.runtime.kv_cache import KVCache
from tests.support.tiny_model import GRAPHS, N_CTX, bundle_path

CASES = (
    Case("prefill", 8),
    Case("prefill", 8, depth=5),
    Case("prefill", 8, batch=3),
    Case("decode", 4),
)
CASES += (
    Case("decode", 4, depth=5),
    Case("decode", 4, depth=5, batch=3),
    Case("decode", N_CTX - 1),
)


@pytest.fixture(scope="module", params=GRAPHS)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(Bundle.open(bundle_path(request.param)), "tiny", threads=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} x{case.batch}")
def test_a_case_runs_the_graph_as_often_as_its_name_says(
    model: Model, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a busy machine may pause the process anywhere
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    session = model.generator.session
    with clocked_runs(session) as runs:
        seconds = model.time(case)
    timed = (
        1
        if case.kind == "prefill" and case.batch == 1
        else case.n_tokens
        if case.kind == "decode"
        else case.batch
    )
    if session.graph == "portable" and case.kind == "decode" and case.batch > 1:
        timed = len(runs[-timed:])
    assert len(runs) >= timed
    assert sum(runs[-timed:]) < seconds < sum(runs[-timed:]) + 1
    before = {0: 0}.get(case.n_past, case.batch)
    assert len(runs) == timed + before


def test_prompts_are_new_every_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = model.generator.generate_ids

    def note(ids: list[int], *arguments: object) -> object:
        seen.append(tuple(ids))
        return original(ids, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model.generator, "generate_ids", note)
    for _ in range(3):
        model.time(Case("prefill", 16))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("params", [GREEDY, TOP_K_PARAMS])
def test_the_time_outside_onnxruntime_is_a_part_of_the_step(model: Model, params: object) -> None:
    outside = model.loop_seconds(params)  # type: ignore[arg-type]
    assert 1e-7 < outside < 0.05


def test_the_session_is_as_before_after_its_runs_were_clocked(model: Model) -> None:
    session = model.generator.session
    inner = session._graph_runner._session
    with clocked_runs(session) as runs:
        session.decode([1], session.new_cache())
        assert session._graph_runner._session is not inner
    assert len(runs) == 1
    assert runs[0] > 0
    with pytest.raises(ValueError, match="token ids"), clocked_runs(session):
        session.decode([-1], session.new_cache())
    assert session._graph_runner._session is inner


def test_a_bundle_without_a_tokenizer_is_measured_by_ids(model: Model) -> None:
    bundle = replace(model.bundle, manifest=replace(model.bundle.manifest, tokenizer=None))
    bare = Model(bundle, "bare", threads=1)
    assert bare.time(Case("decode", 4)) > 0


# --- bytes


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_weights_of_a_token_are_those_that_onnx_lists_less_the_embeddings_rows(
    kind: str,
) -> None:
    path = bundle_path(kind) / "model.onnx"
    model = onnx.load(path, load_external_data=False).graph
    whole = {
        name for node in model.node for name in node.input if not node.op_type.startswith("Gather")
    }
    expected = sum(
        np.prod(value.dims, dtype=int) * helper.tensor_dtype_to_np_dtype(value.data_type).itemsize
        for value in model.initializer
        if value.name in whole
    )
    assert weight_bytes(path) == expected
    config = Bundle.open(bundle_path(kind)).config
    # a few shapes and constants
    assert abs(expected - 4 * (config.n_parameters - config.n_ctx * config.n_embd)) < 1000


def test_of_the_sides_of_an_if_the_larger_counts(tmp_path: Path) -> None:
    outer = numpy_helper.from_array(np.zeros((10, 3), np.float32), "outer")
    table = numpy_helper.from_array(np.zeros((99, 3), np.float32), "table")
    sides = {}
    for side, rows in (("then_branch", 5), ("else_branch", 7)):
        own = numpy_helper.from_array(np.zeros((rows, 3), np.int8), side + "_own")
        inputs = [own.name, "outer"] if side == "then_branch" else [own.name]
        node = helper.make_node("Max", inputs, [side])
        sides[side] = helper.make_graph(
            [node], side, [], [helper.make_empty_tensor_value_info(side)], [own]
        )
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("If", ["condition"], ["result"], **sides),
    ]
    four = TensorProto(name="four", data_type=TensorProto.UINT4, dims=[6, 4], raw_data=bytes(12))
    nodes.append(helper.make_node("Identity", ["four"], ["other"]))
    model = helper.make_model(helper.make_graph(nodes, "main", [], [], [outer, table, four]))
    path = tmp_path / "if.onnx"
    onnx.save(model, path)
    assert weight_bytes(path) == 10 * 3 * 4 + 5 * 3 + 12


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"no protobuf at all", b"\x3a\x7f", b"\x38\x01"]
)
def test_a_file_that_is_no_onnx_has_no_known_size(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert weight_bytes(path) is None


@pytest.mark.parametrize("kind", GRAPHS)
def test_keys_and_values_are_counted_by_layer_and_window(kind: str) -> None:
    config = GPTConfig(4, 2, 16, 64, 300, attention=("dense", "banded"), window=10)
    cache = KVCache(config, kind)
    one = 2 * 2 * 8 * 4  # keys and values, heads, width, float32
    assert cache_bytes(config, cache, 40) == one * (40 + 10 + 40 + 10)
    assert cache_bytes(config, cache, 4) == one * 4 * 4


def test_a_batch_shares_the_weights(model: Model) -> None:
    alone, shared = (
        model.bytes_per_token(Case("decode", 1, depth=8, batch=batch)) for batch in (1, 4)
    )
    assert alone is not None
    assert shared is not None
    assert model.weight_bytes is not None
    assert alone - shared == model.weight_bytes * 3 / 4
    assert model.bytes_per_token(Case("prefill", 8)) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bandwidth_is_that_of_memory(threads: int) -> None:
    probe = ReadProbe(3_000_000, threads)
    assert probe.n_bytes == 3_000_000
    assert 1e8 < max(probe.measure() for _ in range(3)) < 1e13
    assert ReadProbe(10, 1).n_bytes == MIN_BYTES
    assert MAX_BYTES <= 1 << 30


# --- processes and the profiler


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_process_tells_its_times_and_memory(kind: str) -> None:
    start = start_process(Bundle.open(bundle_path(kind)), 1, 8, N_CTX)
    parts = (start.interpreter, start.imports, start.model)
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(start.ready)
    assert start.ready < start.first_token
    assert start.peak is None or 20e6 < start.peak < 2e9


def test_a_process_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(bundle_path(), folder)
    bundle = Bundle.open(folder)
    (folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(
        BundleError, match=r"does not run in a process of its own: .*BundleError.*model\.onnx"
    ) as caught:
        start_process(bundle, 1, 8, N_CTX)
    assert "\n" not in caught.value.message


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_profile_counts_the_operators_of_a_token_and_leaves_no_file(temporary: Path) -> None:
    bundle = Bundle.open(bundle_path())
    engine = Engine("tiny", "fp32", "edge", 1)
    rows = profile(bundle, engine, [Case("prefill", 8), Case("decode", 4, depth=3)])
    assert list(temporary.iterdir()) == []
    for phase in ("pp8", "tg4 @ d3"):
        own = {row.operator: row for row in rows if row.phase == phase}
        for name, count in onnx_contract.operators(bundle.config, "edge", "fp32").items():
            if count:
                found = [row for row in own.values() if row.operator in (name, f"{name} (head)")]
                assert sum(row.calls for row in found) == count, name
        assert own[BESIDES].calls == 1
        assert any(name.endswith("(head)") for name in own)
        assert sum(row.share for row in own.values()) == pytest.approx(1, abs=0.02)
        assert [row.seconds for row in own.values()] == sorted(
            (row.seconds for row in own.values()), reverse=True
        )


# --- rounds


def test_bundles_alternate_and_the_ratio_is_of_equal_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def time(self: Model, case: Case) -> float:
        order.append(self.engine.bundle)
        slowness = 4.0 if len(order) > 4 else 1.0  # the machine slows down; the ratio stays
        return slowness * (1.0 if self.engine.bundle == "tiny-edge" else 2.0)

    monkeypatch.setattr(Model, "time", time)
    monkeypatch.setattr(rounds, "start_process", lambda *_: Start(0.5, 0.2, 0.25, 0.6, None))
    bundles = [Bundle.open(bundle_path(kind)) for kind in GRAPHS]
    plan = Plan((8,), (), repetitions=3, warmup=1)
    report = rounds.bench(bundles, plan)
    one, two = "tiny-edge", "tiny-portable"
    assert order == [two, one, one, two, two, one, one, two]
    first, second = report.speed
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.values == (0.5, 0.5, 0.5)
    assert first.tokens_per_second.values == (8.0, 2.0, 2.0)
    assert [row.engine.bundle for row in report.start] == [one, two]
    assert report.start[1].ready_seconds.values == (0.5, 0.5, 0.5)
    assert report.start[1].ratio is not None
    assert report.start[1].interpreter_seconds.median == pytest.approx(0.05)
    assert report.loop == ()  # nothing was decoded


def test_the_same_bundle_twice_gets_two_names() -> None:
    bundle = Bundle.open(bundle_path())
    assert rounds._labels([bundle, bundle]) == ["tiny-edge", "tiny-edge (2)"]


def test_what_does_not_fit_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "start_process", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(ContextLengthError, match="tiny-edge has 64"):
        rounds.bench([Bundle.open(bundle_path())], Plan((65,), ()))
    with pytest.raises(ValueError, match="at least one bundle"):
        rounds.bench([], Plan((8,), ()))
