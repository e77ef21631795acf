"""Bundles that are wrong: an error with one line, never a crash."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.bundle.gate.operators import OF_MICROSOFT, STANDARD
from tests.conftest import REPO
from tests.hostile.attacks import Attack, spoiled
from tests.support.cpp_library import CppError, CppLibrary
from tests.support.graph_attacks import foreign_graphs, weights_elsewhere
from tests.support.signed_manifest import changed_bundle, sign, signed

TINY = REPO / "tests" / "golden" / "tiny-edge"
Values = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "bundle"))


def refused(cpp: CppLibrary, folder: Path, status: str, message: str) -> None:
    with pytest.raises(CppError, match=message) as error:
        cpp.open(folder)
    assert error.value.status == status
    assert "\n" not in str(error.value)


def outcome(cpp: CppLibrary, folder: Path) -> str:
    """The status of opening a bundle and generating with it."""
    try:
        with cpp.open(folder) as model:
            model.generate([1, 2, 3], max_new_tokens=3)
    except CppError as error:
        return error.status
    return "text"


def rename(values: Values, name: str, new: str) -> None:
    values[new] = values.pop(name)


LIES: tuple[tuple[Callable[[Values], object], str], ...] = (
    (lambda values: values.update(format_version=2), "of format version 2"),
    (lambda values: values.update(format_version=True), "format_version must be a whole number"),
    (lambda values: values.update(kind="task"), "is a classifier's"),
    (lambda values: values.update(graph="other"), "graph is 'other'"),
    (lambda values: values.update(graph=7), "graph must be a text"),
    (
        lambda values: values.update(graph="portable"),
        "has the operator 'SkipLayerNormalization' of 'com",
    ),
    (lambda values: values.update(scheme="int2"), "scheme is 'int2'"),
    (lambda values: values.update(name="../x"), "name must be plain"),
    (lambda values: values.update(surprise=1), "unknown field 'surprise'"),
    (lambda values: values.pop("quality"), "lacks the field quality"),
    (lambda values: values.update(config=[]), "config must be an object"),
    (lambda values: values["config"].update(n_embd=0), "n_embd must be a whole number from 1"),
    (lambda values: values["config"].update(n_embd=17), "a multiple of n_head"),
    (lambda values: values["config"].update(n_layer=1 << 20), "lacks past_key_values.2.key"),
    (lambda values: values["config"].update(n_layer=1), "unknown input 'past_key_values.1.key'"),
    (lambda values: values["config"].update(n_head=1), "another shape of past_key_values.0.key"),
    (lambda values: values["config"].update(n_embd=64), "another shape of past_key_values.0.key"),
    (lambda values: values["config"].update(vocab_size=300), "another shape of logits"),
    (lambda values: values["config"].update(n_ctx=1.5), "n_ctx must be a whole number"),
    (lambda values: values["tokenizer"].update(vocab_size=278), "no token has id 277"),
    (lambda values: values["tokenizer"].update(vocab_size=1 << 20), "the model has 277 rows"),
    (lambda values: values["tokenizer"].update(end_token=277), "end_token must be a whole number"),
    (lambda values: values["tokenizer"].update(file="../../etc/passwd"), "a plain file name"),
    (lambda values: values["tokenizer"].update(file="other"), "does not list the tokenizer's"),
    (lambda values: values["tokenizer"].update(special_tokens={"": 276}), "and not be empty"),
    (lambda values: values["files"].pop("model.onnx"), "model.onnx among them"),
    (lambda values: rename(values["files"], "model.onnx.data", "../data"), "no plain name"),
    (lambda values: values["files"]["model.onnx"].update(size=-1), "size must be a whole number"),
    (lambda values: values["files"]["model.onnx"].update(sha256="0" * 63), "64 lowercase hex"),
    (lambda values: values["files"]["model.onnx"].update(sha256="0" * 64), "onnx is corrupt"),
    (lambda values: values.update(generation_defaults={"eos_token_id": 277}), "eos_token_id must"),
    (lambda values: values.update(generation_defaults={"top_p": 0}), "top_p must be a number"),
    (lambda values: values.update(generation_defaults={"top_p": "1"}), "top_p must be a number"),
)


@pytest.mark.parametrize(("lie", "message"), LIES, ids=[message for _, message in LIES])
def test_a_manifest_that_lies_is_refused(
    lie: Callable[[Values], object], message: str, cpp: CppLibrary, folder: Path
) -> None:
    of_tokenizer = message in ("no token has id 277", "the model has 277 rows")
    refused(cpp, sign(folder, lie), "tokenizer" if of_tokenizer else "bundle", message)


def test_a_context_longer_than_the_model_has_is_an_error_when_it_is_reached(
    cpp: CppLibrary, tmp_path: Path
) -> None:
    folder = changed_bundle(
        TINY, tmp_path / "bundle", lambda values: values["config"].update(n_ctx=1 << 20)
    )
    with cpp.open(folder) as model:
        with pytest.raises(CppError, match="onnxruntime failed while running") as error:
            model.generate("ab", max_new_tokens=200)
        assert error.value.status == "runtime"


JSON: tuple[tuple[bytes, str], ...] = (
    (b"", "expected a value"),
    (b"{", "expected a key"),
    (b'{"a": 1', "expected '}'"),
    (b'{"a": 1, "a": 2}', "the key 'a' comes twice"),
    (b'{"a": NaN}', "expected a value"),
    (b'{"a": 1e999}', "a number is too large"),
    (b'{"a": 18446744073709551616}', "a number is too large"),
    (b'{"a": 01}', "a number begins with 0"),
    (b'{"a": "\\ud800"}', "a lone surrogate"),
    (b'{"a": "\xff"}', "is not UTF-8"),
    (b'{"a": "\n"}', "a control character"),
    (b'{"a": "\\x"}', "an unknown escape"),
    (b'{"a": "x', "a text does not end"),
    (b'{"a": "\\u12', "four hex digits"),
    (b"[]", "must be an object"),
    (b"{} {}", "something follows"),
    (b"[" * 100_000, "nested more than 16 levels"),
    (b'{"a":' * 100_000, "nested more than 16 levels"),
    (b'{"format_version": 1}', "manifest_sha256 must be a text"),
    (b" " * ((1 << 20) + 1), "more than 1048576 bytes"),
)


@pytest.mark.parametrize(("data", "message"), JSON, ids=[message for _, message in JSON])
def test_a_manifest_that_is_no_json_is_refused(
    data: bytes, message: str, cpp: CppLibrary, folder: Path
) -> None:
    (folder / "manifest.json").write_bytes(data)
    refused(cpp, folder, "bundle", message)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.onnx.data"])
def test_a_file_that_is_cut_missing_or_no_file_is_refused(
    name: str, cpp: CppLibrary, folder: Path
) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    refused(cpp, folder, "bundle", "bytes, the manifest says|is not valid JSON|was changed")
    path.unlink()
    refused(cpp, folder, "bundle", f"{name} is missing")
    path.symlink_to("/dev/zero")
    refused(cpp, folder, "bundle", f"{name} is not a regular file")
    path.unlink()
    os.mkfifo(path)
    refused(cpp, folder, "bundle", f"{name} is not a regular file")


def test_a_changed_byte_anywhere_is_found(cpp: CppLibrary, folder: Path) -> None:
    source = random.Random(1)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for _ in range(3):
            place = source.randrange(len(data))
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(CppError) as error:
                cpp.open(folder)
            assert error.value.status == "bundle", path.name
        path.write_bytes(data)


def test_a_graph_or_vocabulary_of_random_bytes_under_a_right_checksum_is_an_error(
    cpp: CppLibrary, folder: Path
) -> None:
    """What gets past the checksums meets onnxruntime's checks, or the vocabulary's."""
    source = random.Random(2)
    for name in ("model.onnx", "tokenizer.tiktoken"):
        path = folder / name
        data = path.read_bytes()
        changes = [data[: source.randrange(len(data))] for _ in range(6)]
        for _ in range(10):
            changed = bytearray(data)
            for _ in range(3):
                changed[source.randrange(len(data))] = source.randrange(256)
            changes.append(bytes(changed))
        for content in [b"", b"\xff" * 99, *changes]:
            path.write_bytes(content)
            sign(folder)
            assert outcome(cpp, folder) in ("text", "bundle", "tokenizer", "runtime", "numeric")
        path.write_bytes(data)


@pytest.mark.parametrize("attack", weights_elsewhere(with_files=True), ids=str)
def test_weights_that_lie_elsewhere_are_refused(
    attack: Attack, cpp: CppLibrary, tmp_path: Path
) -> None:
    refused(cpp, spoiled(attack, tmp_path / "bundle"), "bundle", r"model\.onnx(\.data)? (has|is) ")


@pytest.mark.parametrize("attack", foreign_graphs(), ids=str)
def test_a_graph_that_no_export_has_does_not_reach_onnxruntime(
    attack: Attack, cpp: CppLibrary, tmp_path: Path
) -> None:
    folder = spoiled(attack, tmp_path / "bundle")
    refused(cpp, folder, "bundle", r"model\.onnx (has (a|the) |asks |is no ONNX graph)")


def test_the_list_of_operators_is_that_of_python() -> None:
    text = (REPO / "examples" / "cpp" / "parts" / "operator_list.hpp").read_text()
    for name, table in (("STANDARD", STANDARD), ("MICROSOFT", OF_MICROSOFT)):
        start = text.index(f"{name}_OPERATORS[] = {{")
        listed = re.findall(r'"(\w+)"', text[start : text.index("};", start)])
        assert listed == sorted(table)


RANKS: tuple[tuple[bytes, str], ...] = (
    (b"AA== x\n", "a number is expected"),
    (b"AA= 0\n", "not base64"),
    (b"A 0\n", "not base64"),
    (b" 0\n", "not base64"),
    (b"AA== 12345678\n", "more than 7 digits"),
    (b"AA== 0\nAA== 1\n", "token is there already"),
    (b"AA== 0\nAQ== 0\n", "rank is there already"),
    (b"AA== 0 1 2\n", "expected 'base64"),
    (b"AA== 0\n", "255 of the 256 bytes are no token"),
    (b"AA== 0\n\n", "not base64"),
)


@pytest.mark.parametrize(("content", "message"), RANKS, ids=[message for _, message in RANKS])
def test_a_vocabulary_that_is_none_is_refused(
    content: bytes, message: str, cpp: CppLibrary, folder: Path
) -> None:
    (folder / "tokenizer.tiktoken").write_bytes(content)
    refused(cpp, sign(folder), "tokenizer", message)


def test_weights_of_nan_are_an_error(cpp: CppLibrary, folder: Path) -> None:
    (folder / "model.onnx.data").write_bytes(b"\xff" * (folder / "model.onnx.data").stat().st_size)
    with cpp.open(sign(folder)) as model:
        with pytest.raises(CppError, match="NaN or infinity") as error:
            model.generate("ab")
        assert error.value.status == "numeric"


def test_what_is_no_bundle_no_library_and_no_thread_count_is_refused(
    cpp: CppLibrary, tmp_path: Path
) -> None:
    refused(cpp, tmp_path / "none", "bundle", "is not a folder")
    refused(cpp, TINY / "manifest.json", "bundle", "is not a folder")
    refused(cpp, tmp_path, "bundle", "manifest.json is missing")
    for threads in (-1, 257):
        with pytest.raises(CppError, match="threads must be"):
            cpp.open(TINY, threads=threads)
    (tmp_path / "no.so").write_text("no library")
    with pytest.raises(CppError, match="the operators cannot be loaded") as error:
        cpp.open(TINY, operators=tmp_path / "no.so")
    assert error.value.status == "runtime"
    with pytest.raises(CppError, match="is not gpt-edge's library of operators"):
        cpp.open(TINY, operators="libm.so.6")


def test_the_signed_manifest_is_one_that_is_accepted(cpp: CppLibrary, folder: Path) -> None:
    """The lies are refused for what they say, not for how they are written."""
    (folder / "manifest.json").write_bytes(
        signed(json.loads((folder / "manifest.json").read_text()))
    )
    with cpp.open(folder) as model:
        assert model.generate("ab", max_new_tokens=3).ids
