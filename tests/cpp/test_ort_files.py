"""Folders of `export --to ort`: what is changed in one, or was never written by it, is an error
with one line, before onnxruntime sees the file.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
from pathlib import Path

import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import format_manifest
from tests.conftest import REPO
from tests.cpp.test_hostile_files import outcome
from tests.support.cpp_library import CppError, CppLibrary

TINY = REPO / "tests" / "golden" / "tiny-edge"
SILENT = 4


def written_by_onnxruntime(model: Path | bytes, out: Path) -> bytes:
    """A graph in onnxruntime's own format, optimized."""
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    source = str(model) if isinstance(model, Path) else model
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return out.read_bytes()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written_by_onnxruntime(TINY / "model.onnx", tmp_path_factory.mktemp("ort") / "model.ort")


@pytest.fixture
def folder(content: bytes, tmp_path: Path) -> Path:
    return describe(tmp_path / "ort", content)


def describe(folder: Path, content: bytes) -> Path:
    """A folder with this model.ort and a description that is right about it."""
    folder.mkdir(exist_ok=True)
    (folder / "model.ort").write_bytes(content)
    shutil.copy(TINY / "tokenizer.tiktoken", folder)
    files = {}
    for name in ("model.ort", "tokenizer.tiktoken"):
        data = (folder / name).read_bytes()
        files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    values = Bundle.open(TINY).manifest.to_dict()
    (folder / "bundle.json").write_bytes(format_manifest({**values, "files": files}))
    return folder


def refused(cpp: CppLibrary, folder: Path, message: str) -> None:
    with pytest.raises(CppError, match=message) as error:
        cpp.open(folder)
    assert error.value.status == "bundle"
    assert "\n" not in str(error.value)


def test_a_folder_generates_the_bundles_ids(cpp: CppLibrary, folder: Path) -> None:
    with cpp.open(folder) as model, cpp.open(TINY) as bundle:
        assert (
            model.generate("ab", max_new_tokens=8).ids
            == bundle.generate("ab", max_new_tokens=8).ids
        )


def test_a_changed_file_is_corrupt(cpp: CppLibrary, folder: Path) -> None:
    path = folder / "model.ort"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    refused(cpp, folder, r"model\.ort is corrupt: its SHA-256 is")
    path.write_bytes(data[:-1])
    refused(cpp, folder, r"model\.ort has \d+ bytes, the manifest says")


def test_a_folder_without_a_checksum_of_the_graph_is_refused(cpp: CppLibrary, folder: Path) -> None:
    """As gpt-edge wrote it before: the bundle's own manifest."""
    shutil.copy(TINY / "manifest.json", folder / "bundle.json")
    refused(cpp, folder, "must list 1 to 64 files, model.ort among them")


def graph_of(*nodes: object) -> bytes:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 277])
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.INT64, None)],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def branches() -> bytes:
    """An If whose branches are graphs."""
    output = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    branch = helper.make_graph(
        [helper.make_node("Add", ["input_ids", "input_ids"], ["y"])], "b", [], [output]
    )
    size = helper.make_node("Size", ["input_ids"], ["size"])
    is_any = helper.make_node("Cast", ["size"], ["is_any"], to=TensorProto.BOOL)
    either = helper.make_node("If", ["is_any"], ["logits"], then_branch=branch, else_branch=branch)
    return graph_of(size, is_any, either)


def test_operators_that_no_export_has_are_refused(cpp: CppLibrary, tmp_path: Path) -> None:
    tile = graph_of(helper.make_node("Tile", ["input_ids", "shape"], ["logits"]))
    for number, (graph, message) in enumerate(((tile, "'Tile'"), (branches(), "'(Size|If)'"))):
        data = written_by_onnxruntime(graph, tmp_path / f"{number}.ort")
        refused(
            cpp, describe(tmp_path / "ort", data), f"has the operator {message}, which no export"
        )


def test_what_is_no_such_file_is_refused(cpp: CppLibrary, content: bytes, tmp_path: Path) -> None:
    onnx = (TINY / "model.onnx").read_bytes()
    beyond = struct.pack("<I", 1 << 31) + content[4:]
    for data in (b"", b"ORTM", onnx, content[:8], beyond, content[:8] + bytes(len(content) - 8)):
        refused(
            cpp, describe(tmp_path / "ort", data), r"model\.ort (is no file of onnx|has no graph)"
        )


def test_bytes_that_are_changed_anywhere_never_crash(
    cpp: CppLibrary, content: bytes, tmp_path: Path
) -> None:
    """Whatever the checksum says: places, sizes and names of the file's tables."""
    choose = random.Random(7)
    endings = {
        outcome(cpp, describe(tmp_path / "ort", changed(content, choose))) for _ in range(60)
    }
    assert "bundle" in endings


def changed(content: bytes, choose: random.Random) -> bytes:
    """Some bytes of it, most often near its beginning, where the places of its tables are."""
    data = bytearray(content)
    for _ in range(choose.choice((1, 4, 40))):
        at = choose.choice((choose.randrange(64), choose.randrange(len(data))))
        data[at] = choose.randrange(256)
    return bytes(data)
