"""A signature file is read strictly and compared with a bundle's files, without a package."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE
from gpt_edge.bundle.writer import with_manifest
from gpt_edge.errors import BundleError, GPTEdgeWarning, SignatureError
from gpt_edge.signing.check import differences
from gpt_edge.signing.signature import Signature, read_signature
from tests.conftest import REPO
from tests.support.runner import done, run
from tests.support.signatures import KEY, Spoil, write_signature
from tests.support.signed_manifest import changed_bundle

TINY = REPO / "tests" / "golden" / "tiny-edge"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle, signed by nobody."""
    shutil.copytree(TINY, tmp_path / "tiny")
    write_signature(tmp_path / "tiny")
    return tmp_path / "tiny"


def read(folder: Path) -> Signature:
    found = read_signature(folder)
    assert found is not None
    return found


def test_a_signed_bundle_opens_without_a_word_and_keeps_its_hash(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle = Bundle.open(folder)
    assert bundle.weights_hash() == Bundle.open(TINY).weights_hash()
    assert differences(bundle, read(folder)) == []


def test_a_bundle_without_a_signature_has_none(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()
    assert read_signature(folder) is None
    assert done("inspect", folder, "--json").json["signature"] is None


def test_inspect_says_who_signed_and_what_differs_since(folder: Path) -> None:
    assert done("inspect", folder, "--json").json["signature"] == {"key": KEY, "differences": []}
    assert f"key {KEY}, not checked: see verify --key" in done("inspect", folder).out
    (folder / "more").write_text("more")
    assert "WRONG: more was not signed" in run("inspect", folder).out


def test_inspect_says_of_a_signature_that_is_none_what_is_wrong(folder: Path) -> None:
    (folder / SIGNATURE_FILE).write_text("{}")
    assert "is not a signature" in done("inspect", folder, "--json").json["signature"]["error"]
    assert "is not a signature" in done("inspect", folder).out


def test_a_certificate_is_not_called_a_key(folder: Path) -> None:
    def by_certificate(values: dict[str, Any], statement: dict[str, Any]) -> None:
        values["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}

    write_signature(folder, spoil=by_certificate)
    assert read(folder).signer == "a certificate"
    assert "a certificate, not checked" in done("inspect", folder).out


def test_each_change_of_a_file_is_called_by_its_name(folder: Path) -> None:
    before = read(folder)
    manifest = (folder / MANIFEST_FILE).read_bytes()
    (folder / MANIFEST_FILE).write_bytes(manifest + b" ")
    (folder / "more").write_text("more")
    (folder / "link").symlink_to(folder / "more")
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("more")
    (folder / ".gitignore").write_text("allowed: no bundle's file begins with a dot")
    bundle = Bundle(folder, Bundle.open(TINY).manifest)
    (folder / MODEL_FILE).rename(folder / "other")
    assert differences(bundle, before) == [
        f"{MANIFEST_FILE} was changed after it was signed",
        f"{MODEL_FILE} is missing",
        "inner/file was not signed",
        "link was not signed",
        "more was not signed",
        "other was not signed",
    ]


def test_what_the_signer_left_out_may_change_unless_the_bundle_needs_it(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "file").write_text("notes")

    def forget(values: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"] = []
        statement["subject"][0]["digest"]["sha256"] = (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        )

    (folder / "notes").rename(folder.parent / "notes")
    write_signature(folder, ignored=["notes", *sorted(Bundle.open(TINY).manifest.files)])
    (folder.parent / "notes").rename(folder / "notes")
    with pytest.warns(GPTEdgeWarning):
        bundle = Bundle.open(folder)
    assert differences(bundle, read(folder)) == []
    shutil.rmtree(folder / "notes")
    write_signature(folder, ignored=sorted(Bundle.open(TINY).manifest.files), spoil=forget)
    wrong = differences(Bundle.open(folder), read(folder))
    assert f"{MODEL_FILE} was not signed" in wrong
    assert f"{MANIFEST_FILE} was not signed" in wrong


def test_a_name_outside_the_folder_is_not_read(folder: Path) -> None:
    def lead_out(values: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"][0]["name"] = "../../outside"

    write_signature(folder, spoil=lead_out)
    assert "../../outside is missing" in differences(Bundle.open(folder), read(folder))


SPOILED: dict[str, Spoil] = {
    "media type": lambda values, _: values.update(mediaType="text/plain"),
    "no envelope": lambda values, _: values.pop("dsseEnvelope"),
    "envelope a text": lambda values, _: values.update(dsseEnvelope="text"),
    "envelope a list": lambda values, _: values.update(dsseEnvelope=[]),
    "payload no base64": lambda values, _: values["dsseEnvelope"].update(payload="?"),
    "payload no JSON": lambda values, _: values["dsseEnvelope"].update(payload="AAAA"),
    "payload not ascii": lambda values, _: values["dsseEnvelope"].update(payload="é"),
    "payload type": lambda values, _: values["dsseEnvelope"].update(payloadType="text"),
    "two signatures": lambda values, _: values["dsseEnvelope"]["signatures"].append({}),
    "no signature": lambda values, _: values["dsseEnvelope"].update(signatures=[]),
    "signatures a number": lambda values, _: values["dsseEnvelope"].update(signatures=3),
    "hint": lambda values, _: values["verificationMaterial"]["publicKey"].update(hint="x"),
    "no hint": lambda values, _: values["verificationMaterial"].update(publicKey={}),
    "material a list": lambda values, _: values.update(verificationMaterial=["publicKey"]),
    "statement type": lambda _, statement: statement.update(_type="other"),
    "predicate type": lambda _, statement: statement.update(predicateType="other"),
    "predicate null": lambda _, statement: statement.update(predicate=None),
    "shards": lambda _, statement: statement["predicate"]["serialization"].update(method="shards"),
    "serialization a list": lambda _, statement: statement["predicate"].update(serialization=[]),
    "no files": lambda _, statement: statement["predicate"].update(resources=None),
    "blake3": lambda _, statement: statement["predicate"]["resources"][0].update(algorithm="b3"),
    "digest": lambda _, statement: statement["predicate"]["resources"][0].update(digest="12"),
    "twice": lambda _, statement: statement["predicate"]["resources"].append(
        statement["predicate"]["resources"][0]
    ),
    "root": lambda _, statement: statement["subject"][0]["digest"].update(sha256="0" * 64),
    "no subject": lambda _, statement: statement.update(subject=[]),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_of_the_format_is_one_clear_error(folder: Path, name: str) -> None:
    write_signature(folder, spoil=SPOILED[name])
    with pytest.raises(SignatureError, match="is not a signature of the OpenSSF"):
        read_signature(folder)


def test_a_signature_that_is_a_link_or_a_folder_is_refused(folder: Path) -> None:
    (folder / SIGNATURE_FILE).rename(folder.parent / "elsewhere")
    (folder / SIGNATURE_FILE).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(SignatureError, match="cannot be read"):
        read_signature(folder)
    (folder / SIGNATURE_FILE).unlink()
    (folder / SIGNATURE_FILE).mkdir()
    with pytest.raises(SignatureError, match="cannot be read"):
        read_signature(folder)


def test_a_manifest_does_not_list_a_signature(tmp_path: Path) -> None:
    def list_it(values: dict[str, Any]) -> None:
        values["files"]["Model.sig"] = values["files"][MODEL_FILE]

    folder = changed_bundle(TINY, tmp_path / "tiny", list_it)
    with pytest.raises(BundleError, match="plain name"):
        Bundle.open(folder)


def test_whoever_replaces_a_signed_bundle_is_told_to_sign_again(folder: Path) -> None:
    bundle = Bundle.open(folder)
    with pytest.warns(GPTEdgeWarning, match="sign it again"):
        made = with_manifest(bundle, bundle.manifest)
    assert read_signature(made.path) is None
