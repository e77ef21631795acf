"""The operators in C: what onnxruntime's own say, and on every path, thread count and kind of CPU
the same bits.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle, builtin_bundles
from gpt_edge.config import GPTConfig
from gpt_edge.errors import GPTEdgeError
from gpt_edge.export.formats.plan import QuantizeOptions, uniform_plan
from gpt_edge.export.graph.build import build_graph
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.pipeline.shared import open_folder
from gpt_edge.native.compile import compile_library
from gpt_edge.native.library import BODY_SETTING, PLAIN, SETTING, bodies, installed_library
from gpt_edge.native.onnx_model import Model, Node, read_model
from gpt_edge.native.rewrite import _Rewriter, rewrite
from gpt_edge.native.self_check import check
from gpt_edge.onnx_contract import cache_head_size
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session
from gpt_edge.verify import parity
from gpt_edge.verify.execution_paths import execution_paths
from gpt_edge.verify.native_operators import check_library
from gpt_edge.verify.parity import compare
from tests.support.models import save_random

# Heads of 16, 24 and 32; widths that are multiples of 64 and one, the last, that is none of 16.
CONFIGS = {
    "gpt1": GPTConfig(n_layer=2, n_head=2, n_embd=64, n_ctx=96, vocab_size=211, norm="post"),
    "gpt2": GPTConfig(n_layer=2, n_head=4, n_embd=64, n_ctx=300, vocab_size=307),
    "gpt3": GPTConfig(
        n_layer=2,
        n_head=8,
        n_embd=192,
        n_ctx=160,
        vocab_size=127,
        attention=("dense", "banded"),
        window=9,
    ),
    "gelu": GPTConfig(n_layer=2, n_head=4, n_embd=64, n_ctx=48, vocab_size=65, activation="gelu"),
    "relu": GPTConfig(n_layer=2, n_head=4, n_embd=64, n_ctx=48, vocab_size=65, activation="relu"),
    "odd": GPTConfig(n_layer=1, n_head=5, n_embd=100, n_ctx=64, vocab_size=101),
}
SCHEMES = ("fp32", "int8", "int8-block", "int4")
Open = Callable[..., Session]


@pytest.fixture(scope="session")
def library() -> Path:
    """The operators that this installation has."""
    path = installed_library()
    if path is None:
        pytest.skip("no operators are installed: pip found no C compiler")
    if not bodies(path):
        pytest.skip("the operators have no body for this CPU")
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """folders(kind, scheme): a graph, built at the first call."""
    root = tmp_path_factory.mktemp("graphs")

    def build(kind: str, scheme: str) -> Path:
        folder = root / f"{kind}-{scheme}"
        if not folder.exists():
            checkpoint = open_checkpoint(
                save_random(root / f"{kind}-{scheme}-source", CONFIGS[kind])
            )
            folder.mkdir()
            build_graph(checkpoint, folder, graph="edge", scheme=scheme)
        return folder

    return build


@pytest.fixture
def open_with(folders: Callable[[str, str], Path]) -> Open:
    """open_with(kind, scheme, library or None)."""

    def open_session(kind: str, scheme: str, with_library: Path | None) -> Session:
        folder = folders(kind, scheme)
        return open_folder(folder, CONFIGS[kind], "edge", scheme, native=with_library or False)

    return open_session


def ids_for(kind: str, n: int, seed: int = 0) -> IntArray:
    return np.random.default_rng(seed).integers(0, CONFIGS[kind].vocab_size, (1, n))


def whole(session: Session, ids: IntArray) -> FloatArray:
    return session.forward(ids, session.new_cache(), "all")


def test_only_the_entry_can_be_seen_from_outside(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    assert hasattr(loaded, "RegisterCustomOps")
    assert not any(hasattr(loaded, name) for name in ("fail", "body_avx2", "rows_of", "body_neon"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_they_say_what_onnxruntimes_own_say(
    kind: str, scheme: str, open_with: Open, library: Path
) -> None:
    """As near to float32 as the graph without them; float32 itself differs by the order of sums
    alone.
    """
    ids = ids_for(kind, CONFIGS[kind].n_ctx)
    exact, own, ours = (
        whole(open_with(kind, *how), ids)
        for how in (("fp32", None), (scheme, None), (scheme, library))
    )
    probes = [parity.Probe("random", ids[0])]
    ours_to_exact = compare(probes, [exact[0]], [ours[0]])
    if scheme == "fp32":
        assert ours_to_exact.max_difference <= 1e-4 * ours_to_exact.spread
    else:
        assert 0 < ours_to_exact.mean_kl <= 1.3 * compare(probes, [exact[0]], [own[0]]).mean_kl


@pytest.mark.parametrize("scheme", ["int8", "int8-block", "int4"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_path_gives_the_same_bits(
    kind: str, scheme: str, open_with: Open, library: Path
) -> None:
    session = open_with(kind, scheme, library)
    probes = parity.probes(CONFIGS[kind], None, thorough=True)
    for path, agreement in execution_paths(session, probes, "verify"):
        assert agreement.max_difference == 0, path


@pytest.mark.parametrize("scheme", ["int8", "int8-block", "int4"])
def test_other_bodies_and_more_threads_give_the_same_bits(
    scheme: str, open_with: Open, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ids_for("gpt2", 300)
    expected = whole(open_with("gpt2", scheme, library), ids)
    for body in bodies(library)[1:]:
        with monkeypatch.context() as environment:
            environment.setenv(BODY_SETTING, body)
            assert np.array_equal(expected, whole(open_with("gpt2", scheme, library), ids)), body
    for threads in ("1", "2", "3"):
        monkeypatch.setattr("gpt_edge.runtime.tuning.default_threads", lambda n=int(threads): n)
        session = open_with("gpt2", scheme, library)
        assert session.threads == int(threads)
        assert np.array_equal(expected, whole(session, ids))
        cache = session.new_cache()
        steps = [session.decode([int(id)], cache)[0].copy() for id in ids[0, :40]]
        assert np.array_equal(expected[0, :40], np.stack(steps))


@pytest.mark.parametrize("scheme", ["int8", "int8-block", "int4"])
@pytest.mark.parametrize("kind", ["gpt3", "odd"])
def test_plain_c_gives_the_same_bits(
    kind: str, scheme: str, open_with: Open, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain C defines what the bodies compute."""
    ids = ids_for(kind, 40)
    expected = whole(open_with(kind, scheme, library), ids)
    monkeypatch.setenv(BODY_SETTING, PLAIN)
    assert np.array_equal(expected, whole(open_with(kind, scheme, library), ids))


def test_every_body_proves_itself(library: Path) -> None:
    assert [body for body in [*bodies(library), PLAIN] if not check(library, body)] == []
    assert not check(library, "z80")


@pytest.mark.slow
def test_the_library_compiles_anew(tmp_path: Path) -> None:
    compile_library(tmp_path / "operators.so")
    assert all(check(tmp_path / "operators.so", body) for body in bodies(tmp_path / "operators.so"))


@pytest.mark.parametrize(
    "block_size",
    [16, pytest.param(32, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow), 128],
)
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_every_size(bits: int, block_size: int, tmp_path: Path, library: Path) -> None:
    config = replace(CONFIGS["gpt2"], n_embd=128, n_ctx=96)  # test_quantize_budget.py traces it too
    checkpoint = open_checkpoint(save_random(tmp_path / "source", config))
    scheme = "int4" if bits == 4 else "int8-block"
    (tmp_path / "graph").mkdir()
    plan = uniform_plan(
        config, "edge", QuantizeOptions(scheme=scheme, block_size=block_size, rounding="nearest")
    )
    build_graph(checkpoint, tmp_path / "graph", graph="edge", scheme=scheme, plan=plan)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (1, 70))
    found = []
    for native in (False, library):
        session = open_folder(tmp_path / "graph", config, "edge", scheme, native=native)
        found.append(whole(session, ids))
    cache = session.new_cache()
    steps = [session.decode([int(id)], cache)[0].copy() for id in ids[0]]
    assert np.array_equal(found[1][0], np.stack(steps))
    agreement = compare([parity.Probe("random", ids[0])], [found[0][0]], [found[1][0]])
    # both round the same weights; activations now and then to the next step
    assert agreement.mean_kl <= 2e-3


def test_many_threads_may_use_one_session(open_with: Open, library: Path) -> None:
    session = open_with("gpt2", "int8", library)
    texts = [ids_for("gpt2", 20 + 30 * seed, seed) for seed in range(6)]
    wanted = [whole(session, ids) for ids in texts]
    found: list[FloatArray | None] = [None] * len(texts)

    def read(i: int) -> None:
        for _ in range(5):
            found[i] = whole(session, texts[i])

    workers = [threading.Thread(target=read, args=(i,)) for i in range(len(texts))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_nan_is_not_hidden(open_with: Open, library: Path) -> None:
    session = open_with("gpt2", "int8", library)
    cache = session.new_cache()
    session.forward(ids_for("gpt2", 8), cache)
    cache.arrays[0][:] = np.nan  # the keys of the first layer
    assert np.isnan(session.decode([1], cache)).any()


@pytest.mark.parametrize("name", builtin_bundles())
def test_an_embedded_bundle_is_replaced_whole(name: str) -> None:
    bundle = Bundle.open(name)
    found = rewrite(
        bundle.model_path.read_bytes(), 2, cache_head_size(bundle.config, "edge"), half_cache=True
    )
    assert found is not None
    layers, is_task = bundle.config.n_layer, bundle.task is not None
    assert found.counts == {
        "SkipNorm": 2 * layers + 1,
        "PlainAttention" if is_task else "CachedAttention16": layers,
        **(
            {"RowProduct": 4 * layers, "FloatProduct": 1}
            if is_task
            else {"BlockProduct": 4 * layers + 1}
        ),
    }


def test_a_foreign_or_damaged_graph_is_left_alone() -> None:
    assert rewrite(b"", 1, 64, half_cache=True) is None
    assert rewrite(b"\xff" * 50, 1, 64, half_cache=True) is None
    model = Bundle.open("sentiment-6m-int8").model_path.read_bytes()
    assert rewrite(model[: len(model) // 2], 1, 64, half_cache=True) is None


def test_the_embedded_bundles_pass_the_check_of_a_build(library: Path) -> None:
    report = check_library(library)
    assert not report.faults
    assert all(
        way["max_difference"] == 0 for way in report.figures[f"{DEFAULT_BUNDLE} paths"].values()
    )
    assert report.figures["onnxruntime against native"].keys() == set(builtin_bundles())


def test_a_classifier_alone_and_among_others(library: Path) -> None:
    bundle = Bundle.open("banking77-6m-int8")
    encoder = Encoder(bundle, native=library)
    rng = np.random.default_rng(0)
    texts = [tuple(rng.integers(0, 8000, n).tolist()) for n in (1, 2, 3, 17, 64, 65, 130)]
    together = encoder.logits(texts)
    assert np.array_equal(together, np.concatenate([encoder.logits([ids]) for ids in texts]))


def test_embeddings_of_a_language_model(library: Path) -> None:
    texts = [[1, 2, 3], list(range(40)), [7]]
    found = [Encoder(Bundle.open(), native=native).states(texts) for native in (False, library)]
    assert np.abs(found[0] - found[1]).max() <= 0.05 * np.abs(found[0]).max()


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("MatMulNBits", lambda node: node.attributes.update(N=1 << 22)),
        ("MatMulNBits", lambda node: node.inputs.__delitem__(slice(1, None))),
        ("SkipLayerNormalization", lambda node: node.inputs.__setitem__(3, "wte.weight_scales")),
        ("GroupQueryAttention", lambda node: node.attributes.update(kv_num_heads=1)),
    ],
)
def test_a_node_that_does_not_fit_stays_with_onnxruntime(
    op: str, change: Callable[[Node], None]
) -> None:
    """onnxruntime says what is wrong with it; ours would read what is not there."""
    model = read_model(Bundle.open().model_path.read_bytes())
    node = next(node for node, _ in model.nodes if node.op == op)
    n_before = _counts(model)[NEW_NAME[op]]
    change(node)
    found = _Rewriter(model, 1, 64, half_cache=False)
    if len(node.inputs) == 1:
        with pytest.raises(IndexError):  # which `rewrite` takes for a graph that cannot be read
            found.run()
        return
    rewritten = found.run()
    assert rewritten is not None
    assert rewritten.counts[NEW_NAME[op]] == n_before - 1


NEW_NAME = {
    "MatMulNBits": "BlockProduct",
    "SkipLayerNormalization": "SkipNorm",
    "GroupQueryAttention": "CachedAttention",
}


def _counts(model: Model) -> dict[str, int]:
    found = _Rewriter(model, 1, 64, half_cache=False).run()
    assert found is not None
    return found.counts


def test_what_is_published_is_measured_by_onnxruntimes_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is built here: a manifest's figures are those of every machine."""
    monkeypatch.setenv(SETTING, str(tmp_path / "nowhere"))
    source = save_random(tmp_path / "source", CONFIGS["gpt1"])
    bundle, _ = export_bundle(source, tmp_path / "bundle", scheme="fp32", tokenizer="none")
    quantize_bundle(bundle, tmp_path / "int8", scheme="int8")
    with pytest.raises(GPTEdgeError, match="there is no file"):
        Session(bundle)


def test_an_export_does_not_influence_sessions_of_other_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting names no library, so a session that heeds it is refused; an export goes without
    one.
    """
    monkeypatch.setenv(SETTING, str(tmp_path / "nowhere"))
    source = save_random(tmp_path / "source", CONFIGS["gpt1"])
    bundle = Bundle.open()
    opened, refused = [], []
    is_over = threading.Event()

    def open_sessions() -> None:
        while not is_over.is_set():
            try:
                opened.append(Session(bundle, threads=1))
            except GPTEdgeError as error:
                refused.append(error)

    other = threading.Thread(target=open_sessions)
    other.start()
    try:
        exported, _ = export_bundle(source, tmp_path / "out", scheme="int8", tokenizer="none")
    finally:
        is_over.set()
        other.join()
    assert (len(opened), len(refused) > 10) == (0, True)
    assert Session(exported, native=False).config == exported.config


def test_a_file_that_is_no_library_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "operators.so").write_bytes(b"no library")
    with pytest.raises(
        GPTEdgeError, match=r"the operators in .*operators.so cannot be loaded"
    ) as caught:
        Session(Bundle.open(), native=tmp_path / "operators.so")
    assert "gpt-edge native build" in (caught.value.hint or "")
