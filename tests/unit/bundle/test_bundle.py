"""Opening and writing bundles: what comes back, and what each wrong path is called."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_edge.bundle import reader as bundle_reader
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle, Manifest, builtin_bundles, read_bundle
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.errors import BundleError, GPTEdgeWarning, OutputError
from gpt_edge.system import atomic_files as files
from gpt_edge.system.disk import FolderReader
from tests.support.bundle_factory import CONFIG, label_of, manifest, payload, write_tiny_bundle
from tests.support.warm_process import PATIENCE


def test_a_written_bundle_opens_as_it_was_finalized(tmp_path: Path) -> None:
    written = write_tiny_bundle(tmp_path / "out")
    opened = Bundle.open(tmp_path / "out")
    assert opened == written
    assert (opened.config, opened.graph, opened.scheme) == (CONFIG, "edge", "int8")
    assert opened.model_path == tmp_path / "out" / "model.onnx"
    assert opened.n_bytes == 3000 + 750
    assert not opened.is_optimum_export
    assert dataclasses.replace(opened.manifest, files={}) == manifest()


def test_an_unpublished_folder_is_a_bundle_of_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "raw").mkdir()
    draft = Bundle.unpublished(tmp_path, manifest())
    assert draft.model_path == tmp_path / "model.onnx"
    assert (draft.n_bytes, list(draft.manifest.files)) == (5, ["model.onnx"])
    assert dataclasses.replace(draft.manifest, files={}) == manifest()


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiny_bundle(tmp_path / name)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (
        tmp_path / "b" / "manifest.json"
    ).read_bytes()


def test_a_bundle_can_be_verified_and_finalized_again_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        "gpt_edge.bundle.writer.sha256_file",
        lambda path: hashed.append(path.name) or files.sha256_file(path),
    )
    with new_bundle(tmp_path / "out") as writer:
        (writer.path / "model.onnx").write_bytes(payload("one"))
        first = writer.finalize(manifest())
        assert first.path == writer.path
        assert Bundle.open(first.path) == first
        assert not (tmp_path / "out").exists()
        writer.finalize(dataclasses.replace(manifest(), quality={"bits_per_byte": 0.8}))
    assert hashed == ["model.onnx"]  # once: it did not change
    assert writer.bundle.path == tmp_path / "out"
    assert Bundle.open(tmp_path / "out").manifest.quality == {"bits_per_byte": 0.8}
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.json", "model.onnx"]


def test_a_file_that_changed_between_two_seals_is_hashed_again(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "out") as writer:
        (writer.path / "model.onnx").write_bytes(b"first")
        writer.finalize(manifest())
        (writer.path / "model.onnx").write_bytes(b"second")
        writer.finalize(manifest())
    Bundle.open(tmp_path / "out")


def test_without_a_seal_nothing_is_published(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "out") as writer:
        (writer.path / "model.onnx").write_bytes(b"x")
    assert os.listdir(tmp_path) == []
    with pytest.raises(RuntimeError, match="was not published"):
        _ = writer.bundle


@pytest.mark.parametrize("name", ["model.onnx", "late.bin", "manifest.json"])
def test_a_change_after_the_seal_stops_the_publication(tmp_path: Path, name: str) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    with pytest.raises(OutputError, match="changed after the bundle was finalized"):
        seal_then_write(tmp_path / "out", name)
    assert label_of(tmp_path / "out") == "old"
    assert os.listdir(tmp_path) == ["out"]


def seal_then_write(out: Path, name: str) -> None:
    with new_bundle(out, force=True) as writer:
        (writer.path / "model.onnx").write_bytes(payload("new"))
        writer.finalize(manifest("new"))
        (writer.path / name).write_bytes(b"later")


def write_one_file(out: Path, name: str, description: Manifest) -> None:
    with new_bundle(out) as writer:
        (writer.path / name).write_bytes(b"x")
        writer.finalize(description)


@pytest.mark.parametrize("name", ["-x", ".x", "a b", "ä", "x" * 81])
def test_a_file_name_that_the_format_does_not_allow_is_a_mistake_of_the_exporter(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="plain names"):
        write_one_file(tmp_path / "out", name, manifest())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), object(), "bell \a", 1 << 70])
def test_a_figure_that_json_cannot_hold_is_a_mistake_of_the_exporter(
    tmp_path: Path, figure: object
) -> None:
    with pytest.raises(ValueError, match=r"JSON|control character|too large"):
        write_one_file(
            tmp_path / "out", "model.onnx", dataclasses.replace(manifest(), parity={"x": figure})
        )
    assert os.listdir(tmp_path) == []


def test_force_replaces_a_bundle_that_is_corrupt_or_newer(tmp_path: Path) -> None:
    for damage in ("model.onnx", "manifest.json"):
        out = tmp_path / damage
        write_tiny_bundle(out, "old")
        if damage == "model.onnx":
            (out / damage).unlink()
        else:
            (out / damage).write_text(
                json.dumps({"format_version": 99, "files": dict.fromkeys(os.listdir(out), 1)})
            )
        with pytest.raises(BundleError):
            Bundle.open(out)
        write_tiny_bundle(out, "new", force=True)
        assert label_of(out) == "new"


def test_force_does_not_take_a_users_files_along(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / ".DS_Store").touch()
    with pytest.raises(OutputError, match=r"not the bundle's: notes\.txt$"):
        write_tiny_bundle(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "notes.txt").unlink()
    write_tiny_bundle(tmp_path / "out", "new", force=True)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "my web app", "icons": []}'])
def test_force_does_not_replace_a_folder_with_another_programs_manifest(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(OutputError, match="did not write"):
        write_tiny_bundle(tmp_path, force=True)
    assert (tmp_path / "manifest.json").read_text() == content


def test_each_wrong_path_is_called_by_its_name(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    for name in (
        "model.safetensors",
        "pytorch_model.bin",
        "params_0.npy",
        "ckpt.pt",
        "model.ckpt.index",
    ):
        (tmp_path / f"of {name}").mkdir()
        (tmp_path / f"of {name}" / name).touch()
        check_error(tmp_path / f"of {name}", "is a checkpoint, not a bundle", "gpt-edge export")
    check_error(tmp_path / "nowhere", "is not there", "built-in bundles")
    check_error(
        tmp_path / "bundle" / "manifest.json",
        "is a file, a bundle is a folder",
        str(tmp_path / "bundle"),
    )
    check_error(tmp_path / "bundle" / "model.onnx" / "x", "is not a folder", "bundle folder")
    check_error(tmp_path / "empty", "is an empty folder", "gpt-edge export")
    check_error(tmp_path / "other", "it has no manifest.json", "gpt-edge export")
    check_error("", "is not the name of a bundle", "-m")
    check_error("a\0b", "is not the name of a bundle", "-m")
    check_error("n" * 300, "File name too long", "permissions")


def check_error(path: Path | str, message: str, hint: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in str(caught.value.cli_hint)


def test_without_check_presence_and_sizes_are_still_checked(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    model = tmp_path / "out" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[0] ^= 1
    model.write_bytes(data)
    Bundle.open(tmp_path / "out", check=False)
    with pytest.raises(BundleError, match="is corrupt"):
        Bundle.open(tmp_path / "out")
    model.write_bytes(data[:-1])
    with pytest.raises(BundleError, match="has 2999 bytes, the manifest says 3000"):
        Bundle.open(tmp_path / "out", check=False)
    model.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        Bundle.open(tmp_path / "out", check=False)


def test_a_bundle_replaced_after_its_last_file_was_checked_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    labels = ["new"]

    def read_then_replace(
        folder: FolderReader, check: bool
    ) -> tuple[Manifest, bool, bundle_reader.LargeFiles | None]:
        found = bundle_reader.read_manifest(folder, check)
        if labels:
            write_tiny_bundle(tmp_path / "out", labels.pop(), force=True)
        return found

    monkeypatch.setattr("gpt_edge.bundle.bundle.read_manifest", read_then_replace)
    assert Bundle.open(tmp_path / "out").manifest.provenance["label"] == "new"


def test_a_bundle_replaced_while_it_is_used_is_used_again(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    seen: list[object] = []

    def use(bundle: Bundle) -> str:
        seen.append(bundle.manifest.provenance["label"])
        if len(seen) == 1:
            write_tiny_bundle(tmp_path / "out", "new", force=True)
        return label_of(bundle.path)

    assert read_bundle(tmp_path / "out", use) == "new"
    assert seen == ["old", "new"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_large_file_that_is_corrupt_is_named_whatever_became_of_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(bundle_reader, "LARGE", 1)  # every file is hashed while the bundle is used
    write_tiny_bundle(tmp_path / "out")
    model = tmp_path / "out" / "model.onnx"
    model.write_bytes(b"?" + model.read_bytes()[1:])
    used: list[Bundle] = []

    def use(bundle: Bundle) -> None:
        used.append(bundle)
        if fails:
            raise BundleError("onnxruntime cannot read it")

    with pytest.raises(BundleError, match=r"model\.onnx is corrupt"):
        read_bundle(tmp_path / "out", use)
    assert used


def test_an_error_of_its_use_is_what_is_told_of_a_sound_bundle(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")

    def use(bundle: Bundle) -> None:
        raise BundleError("no tokenizer")

    with pytest.raises(BundleError, match="no tokenizer"):
        read_bundle(tmp_path / "out", use)


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with two built-in bundles, seen from an empty current folder."""
    monkeypatch.setattr(bundle_reader, "BUILTIN", tmp_path / "models")
    write_tiny_bundle(tmp_path / "models" / DEFAULT_BUNDLE, "default")
    write_tiny_bundle(tmp_path / "models" / "other", "other")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "models"


def test_embedded_bundles_are_found_by_name_and_the_default_without(embedded: Path) -> None:
    assert builtin_bundles() == tuple(sorted(("other", DEFAULT_BUNDLE)))
    assert Bundle.open().path == embedded / DEFAULT_BUNDLE
    assert Bundle.open("other").path == Bundle.open("other/").path == embedded / "other"
    assert Bundle.open(Path("other")).path == embedded / "other"
    for name in ("./other", "nothing", "../models"):
        with pytest.raises(BundleError):
            Bundle.open(name)


def test_a_built_in_name_of_before_means_its_heir_with_a_note(embedded: Path) -> None:
    for old, new in bundle_reader.RENAMED.items():
        for name in (old, f"{old}/"):
            with pytest.warns(
                GPTEdgeWarning, match=f"^{old} is no longer built in: {new},"
            ) as told:
                assert Bundle.open(name).path == embedded / new
            assert len(told) == 1
            assert told[0].filename == __file__
        write_tiny_bundle(Path(old), "somebody's own")
        assert Bundle.open(old).path == Path(old)


def test_a_missing_default_bundle_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_reader, "BUILTIN", tmp_path)
    with pytest.raises(BundleError, match=f"{DEFAULT_BUNDLE} is missing from this installation"):
        Bundle.open()
    assert builtin_bundles() == ()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(BundleError, match="packed without gpt-edge's data: ") as caught:
        Bundle.open()
    assert "--collect-data gpt_edge" in str(caught.value.hint)


def test_a_bundle_without_a_tokenizer_opens_and_says_how_to_add_one(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "out")
    with pytest.raises(BundleError, match="has no tokenizer") as caught:
        bundle.load_tokenizer()
    assert "--tokenizer" in str(caught.value.hint)


def test_a_bundle_loads_its_own_tokenizer(tmp_path: Path) -> None:
    from gpt_edge.tokenizer.discover import source_from_ranks
    from gpt_edge.tokenizer.formats.rank_file import format_ranks

    source = source_from_ranks(format_ranks([bytes([value]) for value in range(256)] + [b"ab"]))
    with new_bundle(tmp_path / "out") as writer:
        (writer.path / "model.onnx").write_bytes(b"x")
        (writer.path / source.spec.file).write_bytes(source.content)
        writer.finalize(dataclasses.replace(manifest(), tokenizer=source.spec.to_dict()))
    tokenizer = Bundle.open(tmp_path / "out").load_tokenizer()
    assert tokenizer.decode(tokenizer.encode("cab")) == "cab"
    assert tokenizer.encode("ab") == [256]


def test_importing_bundle_loads_no_runtime_and_no_tokenizer() -> None:
    heavy = ["torch", "onnx", "onnxruntime", "tiktoken", "tokenizers", "numpy"]
    script = (
        "import sys, gpt_edge.bundle.bundle; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "[]\n", done
