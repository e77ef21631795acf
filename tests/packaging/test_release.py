"""`scripts/release.py`: a commit's wheel has the same bytes each time, and a bill of materials that
names everything in it and everything that it asks for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from gpt_edge.native.compile import COMPILERS
from scripts import release
from tests.conftest import REPO

IS_CHECKOUT = (REPO / ".git").exists() and shutil.which("git") is not None
pytestmark = pytest.mark.skipif(not IS_CHECKOUT, reason="no git checkout")


def hashes(out: Path, *, with_compiler: bool) -> list[str]:
    found = []
    for number in (1, 2):
        wheel = release.build_wheel("HEAD", out / str(number), with_compiler=with_compiler)
        found.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return found


@pytest.mark.slow
def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = hashes(tmp_path, with_compiler=False)
    assert one == two


@pytest.mark.slow
def test_two_builds_with_operators_give_the_same_bytes(tmp_path: Path) -> None:
    if not any(shutil.which(name) for name in COMPILERS):
        pytest.skip("no C compiler")
    one, two = hashes(tmp_path, with_compiler=True)
    assert one == two
    with zipfile.ZipFile(next((tmp_path / "1").glob("*.whl"))) as archive:
        assert any("_operators" in name for name in archive.namelist())


def make_wheel(folder: Path, names: list[str]) -> Path:
    path = folder / "gpt_edge-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_names_are_in_order_and_rights_are_plain(tmp_path: Path) -> None:
    release.write_sorted(make_wheel(tmp_path, ["b", "a/c", "a/b"]), tmp_path / "sorted.whl")
    with zipfile.ZipFile(tmp_path / "sorted.whl") as archive:
        entries = archive.infolist()
        assert archive.read("a/c") == b"a/c"
    assert [entry.filename for entry in entries] == ["a/b", "a/c", "b"]
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


def test_the_bill_names_what_is_in_the_wheel_and_what_it_asks_for(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, ["gpt_edge/one.py", "gpt_edge/two.py"])
    document = release.bill_of_materials(wheel, "HEAD")
    assert document == release.bill_of_materials(wheel, "HEAD")
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    own = document["metadata"]["component"]
    assert own["hashes"][0]["content"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    inside = [component["name"] for component in own["components"]]
    assert inside == ["onnxruntime-web", "gpt_edge/one.py", "gpt_edge/two.py"]
    needed = {component["name"]: component for component in document["components"]}
    assert needed["onnxruntime"]["scope"] == "required"
    assert needed["torch"]["scope"] == "optional"
    assert "gpt-edge" not in needed
    assert needed["numpy"]["purl"] == f"pkg:pypi/numpy@{needed['numpy']['version']}"
    references = {part["ref"] for part in document["dependencies"]}
    assert set(document["dependencies"][0]["dependsOn"]) == references - {own["bom-ref"]}
    json.dumps(document)


@pytest.mark.slow
def test_the_script_writes_the_wheel_its_hash_and_its_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["release.py", str(tmp_path), "--without-compiler"])
    assert release.main() == 0
    (wheel,) = tmp_path.glob("*.whl")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert wheel.with_suffix(".sha256").read_text() == f"{sha256}  {wheel.name}\n"
    document = json.loads(wheel.with_suffix(".cdx.json").read_text())
    with zipfile.ZipFile(wheel) as archive:
        names = {f"file:{name}" for name in archive.namelist()}
    assert names < {part["bom-ref"] for part in document["metadata"]["component"]["components"]}
