"""The site that `gpt-edge web` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.errors import BundleError, OutputError
from gpt_edge.native.onnx_model import read_model
from gpt_edge.runtime.session import Session
from gpt_edge.web.arrange import LARGEST_UNPACKED, LARGEST_WITHOUT_INTEGERS, arrange
from gpt_edge.web.site import write_site
from tests.conftest import REPO
from tests.support.runner import run
from tests.support.tiny_model import GOLDEN, bundle_path

NATIVE = ("native-int8", "native-int8-block", "native-int4", "native-gelu-int4", "native-relu-int8")


def operators(path: Path) -> set[str]:
    return {node.op for node, _ in read_model(path.read_bytes()).nodes}


def logits_of(bundle: Bundle) -> np.ndarray:
    session = Session(bundle, threads=1, native=False)
    ids = list(range(5, 5 + 12))
    rows = session.forward([ids], session.new_cache(), logit_rows="all")
    return np.asarray(rows)


@pytest.mark.parametrize("name", NATIVE)
def test_an_arranged_graph_computes_with_the_same_weights(name: str, tmp_path: Path) -> None:
    bundle = Bundle.open(GOLDEN / name)
    folder = tmp_path / name
    shutil.copytree(bundle.path, folder)
    graph = bundle.model_path.read_bytes()
    (folder / "model.onnx").write_bytes(arrange(graph, bundle.config.n_parameters))
    left = operators(folder / "model.onnx")
    assert not left & {"MatMulNBits", "MatMulIntegerToFloat", "QuantizeLinear"}
    expected = logits_of(bundle)
    found = logits_of(Bundle.unpublished(folder, bundle.manifest))
    # what is lost by rounding activations to 8 bits
    assert np.abs(found - expected).max() < 0.03 * (expected.max() - expected.min())
    assert not np.array_equal(found, expected)


def test_large_models_keep_their_integer_products_and_larger_ones_their_blocks() -> None:
    graph = (GOLDEN / "native-int8" / "model.onnx").read_bytes()
    large = read_model(arrange(graph, LARGEST_WITHOUT_INTEGERS + 1))
    kept = {node.op for node, _ in large.nodes}
    assert "MatMulIntegerToFloat" in kept
    assert "MatMulNBits" not in kept
    assert arrange(graph, LARGEST_UNPACKED + 1) == graph
    fp32 = (bundle_path("portable") / "model.onnx").read_bytes()
    assert arrange(fp32, 1) == fp32


def test_the_site_holds_bundles_that_python_opens(site: Path) -> None:
    described = json.loads((site / "site.json").read_text())
    names = [model["name"] for model in described["models"]]
    assert names == [DEFAULT_BUNDLE, "sentiment-6m-int8"]
    for name in names:
        original = Bundle.open(name)
        copy = Bundle.open(site / "models" / name)
        weights = "model.onnx.data"
        assert copy.manifest.files[weights] == original.manifest.files[weights]
    listed = json.loads((site / "files.json").read_text())
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    unlisted = {"files.json", "_headers", "ort/LICENSE", "ort/NOTICES.txt"}
    assert set(listed) == files - unlisted


def test_a_changed_model_is_another_version(site: Path, tmp_path: Path) -> None:
    other = write_site([Bundle.open()], tmp_path / "other")
    versions = {json.loads((one / "site.json").read_text())["version"] for one in (site, other)}
    assert len(versions) == 2


def test_what_a_page_cannot_run_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    bare = Bundle.open(GOLDEN / "native-int8")
    with pytest.raises(BundleError, match="no tokenizer"):
        write_site([bare], tmp_path / "site")
    with pytest.raises(BundleError, match="two bundles have the name"):
        write_site([Bundle.open(), Bundle.open()], tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_only_a_site_is_replaced(site: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError):
        write_site([Bundle.open()], mine, force=True)
    assert (mine / "thesis.txt").read_text() == "precious"
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    with pytest.raises(OutputError, match="exists"):
        write_site([Bundle.open()], copy)
    write_site([Bundle.open()], copy, force=True)
    assert not (copy / "models" / "sentiment-6m-int8").exists()


def test_the_command_writes_a_site(tmp_path: Path) -> None:
    done = run("web", str(bundle_path()), "--out", str(tmp_path / "site"), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["models"] == ["tiny-edge"]
    assert (tmp_path / "site" / "index.html").is_file()
    again = run("web", str(bundle_path()), "--out", str(tmp_path / "site"))
    assert again.code == 1
    assert "exists" in again.err


def test_the_package_lists_every_file_of_the_page() -> None:
    text = (REPO / "pyproject.toml").read_text()
    depth = max(
        len(path.relative_to(REPO / "gpt_edge" / "web").parts)
        for path in (REPO / "gpt_edge" / "web" / "static").rglob("*")
        if path.is_file()
    )
    assert f'"static{"/*" * (depth - 1)}"' in text
