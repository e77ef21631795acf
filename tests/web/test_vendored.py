"""What the package carries of the page is what the sources in web/ compile to."""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.version import __version__
from gpt_edge.web.static_files import page_files, runtime_files
from scripts import vendor_web
from tests.conftest import REPO

WEB = REPO / "web"
MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")


@pytest.mark.slow
def test_the_scripts_are_what_the_sources_compile_to(node: str, tmp_path: Path) -> None:
    compiler = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.is_file() or not (WEB / "node_modules" / "esbuild").is_dir():
        pytest.skip("TypeScript and esbuild are not installed: npm ci in web/")
    subprocess.run([node, str(compiler), "--outDir", str(tmp_path)], cwd=WEB, check=True)
    compiled = vendor_web.scripts(tmp_path)
    carried = {name: data for name, data in page_files().items() if name.endswith(".js")}
    assert compiled == carried


def test_the_page_is_that_of_the_sources() -> None:
    files = page_files()
    for path in (WEB / "page").iterdir():
        assert files[path.name] == path.read_bytes()
    sources = {path.relative_to(WEB / "src").with_suffix("") for path in WEB.glob("src/**/*.ts")}
    left_out = {"onnxruntime.d", "index_node", "index_browser"}
    names = {path.as_posix() for path in sources if path.parts[0] != "page"} - left_out
    expected = {f"js/{name}.js" for name in names | {"page/main", "page/worker"}}
    assert {name for name in files if name.startswith("js/")} == expected


def test_the_scripts_of_the_page_import_nothing_but_onnxruntime() -> None:
    files = page_files()
    for name in ("main", "worker"):
        lines = files[f"js/page/{name}.js"].decode().splitlines()
        imports = [line for line in lines if line.startswith("import ")]
        expected = (
            ['import * as ort from "../../ort/ort.wasm.min.mjs";'] if name == "worker" else []
        )
        assert imports == expected


def test_onnxruntime_is_carried_with_its_licences() -> None:
    files = runtime_files()
    assert files["ort/ort-wasm-simd-threaded.wasm"].startswith(b"\x00asm")
    assert b"MIT License" in files["ort/LICENSE"]
    assert b"protobuf" in files["ort/NOTICES.txt"]
    packed = REPO / "gpt_edge" / "web" / "static" / "ort" / "ort-wasm-simd-threaded.wasm.xz"
    assert lzma.decompress(packed.read_bytes()) == files["ort/ort-wasm-simd-threaded.wasm"]
    assert packed.stat().st_size < 4_000_000


def test_no_script_inserts_markup_or_names_another_host() -> None:
    for name, content in page_files().items():
        text = content.decode()
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ):
            assert forbidden not in text, name
        addresses = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in addresses.replace('"http://', ""), name
        assert "https://" not in addresses, name


def test_the_npm_package_has_the_version_of_the_python_package() -> None:
    package = json.loads((WEB / "package.json").read_text())
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert package["version"] == lock["version"] == __version__
    assert "resolved" not in (WEB / "package-lock.json").read_text()
    engine = lock["packages"]["node_modules/onnxruntime-web"]["version"]
    assert package["devDependencies"]["onnxruntime-web"] == engine


@pytest.mark.network
@pytest.mark.slow
def test_the_tarball_runs_in_an_empty_folder(node: str, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or not (WEB / "node_modules").is_dir():
        pytest.skip("npm, or what npm ci installs in web/, is missing")
    packed = subprocess.run(
        [npm, "pack", "--json", "--pack-destination", str(tmp_path)],
        cwd=WEB,
        check=True,
        capture_output=True,
    )
    names = {entry["path"] for entry in json.loads(packed.stdout)[0]["files"]}
    assert {"dist/index_node.js", "dist/index_node.d.ts", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.startswith(("src/", "dist/page/", "tests/"))]
    (tarball,) = tmp_path.glob("*.tgz")
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    command = [npm, "install", "--no-audit", "--no-fund", str(tarball), "onnxruntime-node@1.30.0"]
    environment = {"PATH": f"{Path(node).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run(
        command, cwd=folder, check=True, env={**environment, "ONNXRUNTIME_NODE_INSTALL": "skip"}
    )
    (folder / "program.js").write_text(
        'import { load } from "gpt-edge";\n'
        "const model = await load(process.argv[2]);\n"
        'const done = await model.complete("Once upon a time", { max_new_tokens: 50 });\n'
        "console.log(JSON.stringify(done.ids));\n"
    )
    model = gpt_edge.load(native=False)
    done = subprocess.run(
        [node, "program.js", str(Bundle.open().path)],
        cwd=folder,
        check=True,
        capture_output=True,
        env=environment,
    )
    expected = model.complete("Once upon a time", max_new_tokens=50)
    assert json.loads(done.stdout) == list(expected.ids)
