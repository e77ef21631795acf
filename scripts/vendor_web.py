"""Build web/ and put what a browser needs into gpt_edge/web/static, so that no user needs node.

    python scripts/vendor_web.py

Needs node 20 and npm, which fetches the versions that web/package-lock.json names. Compiled are the
TypeScript sources, and the page's two scripts hold all that they import: fetched one by one through
a service worker, fifty modules took longer than the model. The library's modules lie beside them,
for pages of one's own. Copied are the page and onnxruntime-web's plain wasm build, the one build
that has every operator of the edge graph. The wasm lies there compressed, 14 MB in 3, and
`gpt-edge web` unpacks it. tests/web/test_vendored.py fails where the sources compile to something
else.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
WEB = REPO / "web"
STATIC = REPO / "gpt_edge" / "web" / "static"
ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
WASM = "ort-wasm-simd-threaded.wasm"
# its root; the other scripts lie in js/
SERVICE_WORKER = "service_worker.js"
# entry points of the npm package, whose imports only node and bundlers resolve
ENTRY_POINTS = ("index_browser.js", "index_node.js")
PAGE = "page"
PAGE_SCRIPTS = ("main.js", "worker.js")


def compile_sources() -> Path:
    """Run the TypeScript compiler; return the folder of its output."""
    if not (WEB / "node_modules" / "esbuild").is_dir():
        # the binaries of other execution providers would be hundreds of MB
        environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=WEB, env=environment, check=True)
    out = WEB / "dist"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(["node", "node_modules/typescript/bin/tsc"], cwd=WEB, check=True)
    return out


def scripts(compiled: Path) -> dict[str, bytes]:
    """The scripts of a site by their names in it."""
    found = {SERVICE_WORKER: (compiled / PAGE / SERVICE_WORKER).read_bytes()}
    found |= {f"js/{PAGE}/{name}": _with_imports(compiled / PAGE / name) for name in PAGE_SCRIPTS}
    for path in sorted(compiled.rglob("*.js")):
        name = path.relative_to(compiled)
        if name.parts[0] != PAGE and name.name not in ENTRY_POINTS:
            found[f"js/{name.as_posix()}"] = path.read_bytes()
    return found


def _with_imports(script: Path) -> bytes:
    """One script with every module that it imports, but onnxruntime's, which looks for its wasm
    beside itself.
    """
    bundler = WEB / "node_modules" / ".bin" / "esbuild"
    command = [str(bundler), script.name, "--bundle", "--format=esm", "--target=es2022"]
    command += ["--external:*.mjs", "--charset=utf8", "--log-level=warning"]
    done = subprocess.run(command, cwd=script.parent, check=True, stdout=subprocess.PIPE)
    return done.stdout


def main() -> int:
    compiled = compile_sources()
    runtime = WEB / "node_modules" / "onnxruntime-web" / "dist"
    notices = {name: (STATIC / "ort" / name).read_bytes() for name in ("LICENSE", "NOTICES.txt.xz")}
    files = scripts(compiled)
    files |= {path.name: path.read_bytes() for path in sorted((WEB / "page").iterdir())}
    files |= {f"ort/{name}": (runtime / name).read_bytes() for name in ORT_FILES}
    files |= {f"ort/{name}": content for name, content in notices.items()}
    packed = lzma.compress((runtime / WASM).read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    files[f"ort/{WASM}.xz"] = packed
    shutil.rmtree(STATIC)
    for name, content in files.items():
        path = STATIC / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(files)} files, {sum(map(len, files.values())):,} bytes in {STATIC}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
