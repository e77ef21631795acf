"""A bundle under another manifest, its identity, and the edges of what a manifest may list."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import warnings
from pathlib import Path

import pytest

from gpt_edge.bundle import manifest as manifest_module
from gpt_edge.bundle import writer as writer_module
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import (
    MAX_FILE_BYTES,
    MAX_FILES,
    SIGNATURE_FILE,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.bundle.writer import with_manifest
from gpt_edge.errors import BundleError, GPTEdgeWarning, OutputError
from tests.support.bundle_factory import label_of, write_tiny_bundle

EMPTY: FileRecord = {"size": 0, "sha256": "0" * 64}


def renamed(bundle: Bundle) -> Manifest:
    return dataclasses.replace(bundle.manifest, name="other")


def test_a_bundle_gets_another_manifest_in_its_place_or_beside_it(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beside = with_manifest(bundle, renamed(bundle), tmp_path / "b")
        assert (beside.path, Bundle.open(tmp_path / "b").manifest.name) == (tmp_path / "b", "other")
        assert Bundle.open(tmp_path / "a").manifest == bundle.manifest
        with pytest.raises(OutputError):  # there is one
            with_manifest(bundle, renamed(bundle), tmp_path / "b")
        with_manifest(bundle, bundle.manifest, tmp_path / "b", force=True)
        assert Bundle.open(tmp_path / "b").manifest == bundle.manifest
        placed = with_manifest(bundle, renamed(bundle))
    assert placed.path == bundle.path
    opened = Bundle.open(tmp_path / "a")
    assert opened.manifest.name == "other"
    assert opened.manifest.files == bundle.manifest.files
    assert label_of(tmp_path / "a") == "one"


def test_a_signed_bundle_loses_its_signature_with_a_warning_at_the_caller(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a")
    (bundle.path / SIGNATURE_FILE).write_bytes(b"{}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_manifest(bundle, renamed(bundle), tmp_path / "b")
    with pytest.warns(GPTEdgeWarning, match="was signed, and what replaces it is not") as caught:
        with_manifest(bundle, renamed(bundle))
    assert [warning.filename for warning in caught] == [__file__]
    assert not (bundle.path / SIGNATURE_FILE).exists()


def test_a_file_that_changes_while_it_is_copied_stops_the_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_tiny_bundle(tmp_path / "a")
    copy = shutil.copyfile

    def change(source: Path, target: Path) -> None:
        copy(source, target)
        if source.name == "model.onnx":
            target.write_bytes(b"another")

    monkeypatch.setattr(writer_module.shutil, "copyfile", change)
    with pytest.raises(BundleError, match=r"model\.onnx changed while it was read"):
        with_manifest(bundle, renamed(bundle), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_models_identity_is_that_of_its_graph_and_weights(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a")
    listed = bundle.manifest.files["model.onnx"]["sha256"]
    expected = hashlib.sha256(f"model.onnx {listed}\n".encode()).hexdigest()
    assert bundle.weights_hash() == expected
    assert with_manifest(bundle, renamed(bundle), tmp_path / "b").weights_hash() == expected
    # without checksums the files themselves are read
    files = {name: {**record, "sha256": "0" * 64} for name, record in bundle.manifest.files.items()}
    plain = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    assert plain.weights_hash() == expected
    other = write_tiny_bundle(tmp_path / "c", "two")
    assert other.weights_hash() != expected
    (bundle.path / "model.onnx").unlink()
    assert bundle.weights_hash() == expected
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read"):
        plain.weights_hash()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, f"files must list 1 to {MAX_FILES} files, model.onnx among them, found 0"),
        ({"other": EMPTY}, "model.onnx among them, found 1"),
        ({f"f{n}": EMPTY for n in range(MAX_FILES)} | {"model.onnx": EMPTY}, "files must list 1"),
        ({"model.onnx": EMPTY, "a": EMPTY, "A": EMPTY}, "differ in more than upper and lower"),
        ({"model.onnx": EMPTY, "Manifest.json": EMPTY}, "must have a plain name"),
        ({"model.onnx": EMPTY, "../a": EMPTY}, "must have a plain name"),
        ({"model.onnx": {"size": 0}}, "exactly the fields size and sha256"),
        ({"model.onnx": {**EMPTY, "size": -1}}, "must have a size from 0"),
        ({"model.onnx": {**EMPTY, "size": MAX_FILE_BYTES + 1}}, "must have a size from 0"),
        ({"model.onnx": {**EMPTY, "sha256": "0" * 63}}, "64 lowercase hex digits"),
    ],
)
def test_files_that_a_manifest_may_not_list_are_refused(
    files: dict[str, FileRecord], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        manifest_module._check_files(files, "model.onnx")


def test_a_manifest_lists_as_many_files_as_it_may() -> None:
    most = {f"f{n}": EMPTY for n in range(MAX_FILES - 1)}
    largest: FileRecord = {**EMPTY, "size": MAX_FILE_BYTES}
    manifest_module._check_files({**most, "model.onnx": largest}, "model.onnx")
    manifest_module._check_files({"model.onnx": EMPTY}, "model.onnx")


@pytest.mark.parametrize("text", ["a\x1bb", "a\x00", "\x7f"])
def test_a_control_character_is_found_wherever_it_stands(text: str) -> None:
    for values in (
        {"a": text}, {text: 1}, {"a": [1, text]}, {"a": [1, {"b": [text, 2]}]},
        {"a": [[1], [text]]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="here holds a control character"):
            manifest_module._check_texts(values, "here")
    manifest_module._check_texts({"a": ["b", {"c": [1, None]}], "d": "e"}, "here")


def test_the_key_that_comes_twice_is_named() -> None:
    with pytest.raises((ValueError, BundleError), match="the key 'b' comes twice"):
        load_json_object(b'{"a": 1, "b": 2, "c": 3, "b": 4}', "here")


def test_what_an_error_says_is_one_short_line() -> None:
    assert manifest_module._shown(ValueError("x" * 300)) == "x" * 300
    assert manifest_module._shown(ValueError("x" * 301)) == "x" * 300 + " ..."
    assert manifest_module._shown(ValueError("a\nb")) == r"'a\nb'"


def test_an_address_of_the_hub_is_named_as_one_writes_it() -> None:
    with pytest.raises(
        BundleError, match=r"^hf://me/model names a repository of the hub"
    ) as caught:
        Bundle.open("hf://me/model")
    assert caught.value.hint == "gpt-edge export hf://me/model OUT, then use OUT"
