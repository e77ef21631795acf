"""Build web/ and put what a browser needs into gpt_edge/web/static, so that no user needs node.

    python scripts/vendor_web.py

Needs node 20 and npm, which fetches the versions that web/package-lock.json names. Compiled are the
TypeScript sources; copied are the page and onnxruntime-web's plain wasm build, the one build that
has every operator of the edge graph. The wasm lies there compressed, 14 MB in 3, and
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


def compile_sources() -> Path:
    """Run the TypeScript compiler; return the folder of its output."""
    if not (WEB / "node_modules" / "typescript").is_dir():
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
    found = {}
    for path in sorted(compiled.rglob("*.js")):
        if path.name == SERVICE_WORKER:
            found[SERVICE_WORKER] = path.read_bytes()
        elif path.name not in ENTRY_POINTS:
            found[f"js/{path.relative_to(compiled).as_posix()}"] = path.read_bytes()
    return found


def main() -> int:
    compiled = compile_sources()
    runtime = WEB / "node_modules" / "onnxruntime-web" / "dist"
    notices = {name: (STATIC / "ort" / name).read_bytes() for name in ("LICENSE", "NOTICES.txt.xz")}
    shutil.rmtree(STATIC)
    files = scripts(compiled)
    files |= {path.name: path.read_bytes() for path in sorted((WEB / "page").iterdir())}
    files |= {f"ort/{name}": (runtime / name).read_bytes() for name in ORT_FILES}
    files |= {f"ort/{name}": content for name, content in notices.items()}
    packed = lzma.compress((runtime / WASM).read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    files[f"ort/{WASM}.xz"] = packed
    for name, content in files.items():
        path = STATIC / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(files)} files, {sum(map(len, files.values())):,} bytes in {STATIC}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
