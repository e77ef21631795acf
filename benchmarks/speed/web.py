"""Bundles in a headless Chromium: the same ids as Python, and tokens a second, beside
transformers.js in the same browser.

    python benchmarks/speed/web.py fp32 int8 int8-block int4 \
        --portable portable --peer node_modules --out benchmarks/results/web.md

BUNDLE are folders of one model with gpt-edge's edge graph, --portable its portable graph, which
transformers.js runs. --peer is a node_modules folder in which `npm install
@huggingface/transformers@4.3` was run. Each engine writes 200 greedy tokens a round, in
alternation, so that a slow moment of the machine affects all; the figure is the median over the
rounds of the median seconds between two tokens. Ids are compared with Python on the very files of
the site, and on the bundle itself, whose graph is another one where wasm would be slow with it.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

import gpt_edge
from gpt_edge.bench.machine import cpu_name
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.web.local_server import bind_site
from gpt_edge.web.site import write_site

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tests.support.chromium import Chromium, Page  # noqa: E402
from tests.support.page_library import library_texts, run  # noqa: E402

N_TOKENS = 200
PROMPT = "Once upon a time"
PROMPTS = [
    f"{start} {who} {did}"
    for start in ("Once upon a time,", "One day,", "", "In a big house,", "It was cold and")
    for who in ("a little girl", "the dog", "Tom", "an old tree", "Lily and Ben")
    for did in ("was", "wanted to")
]
PEER = """
(async () => {
  const { AutoModelForCausalLM, Tensor, env } = await import(
    new URL("peer/transformers.web.js", document.baseURI).href);
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.useBrowserCache = false;
  env.useWasmCache = false;
  env.localModelPath = new URL("peer/models/", document.baseURI).href;
  env.backends.onnx.wasm.wasmPaths = new URL("peer/", document.baseURI).href;
  env.backends.onnx.wasm.numThreads = THREADS;
  env.backends.onnx.wasm.proxy = false;
  window.peer ??= await AutoModelForCausalLM.from_pretrained("portable", {
    subfolder: "", dtype: "fp32", use_external_data_format: true, device: "wasm",
  });
  const shape = [1, INPUT.length];
  const times = [];
  let at = 0;
  const streamer = {
    put() { const now = performance.now(); if (at) times.push(now - at); at = now; },
    end() {},
  };
  const result = await window.peer.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(INPUT.map(BigInt)), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(INPUT.length).fill(1n), shape),
    max_new_tokens: COUNT, do_sample: false, eos_token_id: -1, streamer,
  });
  return { ids: Array.from(result.data, Number).slice(INPUT.length), times: times.slice(1) };
})()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--portable", type=Path, help="the portable graph of the same model")
    parser.add_argument("--peer", type=Path, help="node_modules with @huggingface/transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        site = build_site(given, Path(scratch))
        with bind_site(site, 0) as server, Chromium() as browser:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page = browser.new_page(f"http://127.0.0.1:{server.server_port}/")
            page.wait("document.body.dataset.state === 'ready'")
            text = report(given, site, page)
            server.shutdown()
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    return 0


def build_site(given: Any, scratch: Path) -> Path:
    """A site with every bundle under the name of its folder, and the peer's files beside them."""
    named = []
    for path in (*given.bundles, *([given.portable] if given.portable else [])):
        bundle = Bundle.open(path)
        named.append(rename(bundle, scratch / "named" / path.name))
    site = write_site(named, scratch / "site")
    if given.peer is not None:
        peer = site / "peer"
        package = given.peer / "@huggingface" / "transformers" / "dist"
        shutil.copytree(given.peer / "onnxruntime-web" / "dist", peer)
        shutil.copy(package / "transformers.web.js", peer)
        shutil.copytree(given.portable, peer / "models" / "portable")
        localize(peer / "transformers.web.js", given.peer)
    return site


def rename(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of a bundle whose name is its folder's."""
    import dataclasses

    shutil.copytree(bundle.path, folder)
    manifest = dataclasses.replace(bundle.manifest, name=folder.name)
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return Bundle(folder, manifest)


def localize(script: Path, modules: Path) -> None:
    """Let the peer's imports of packages lead to files of the site."""
    text = script.read_text()
    common = modules / "onnxruntime-common" / "dist" / "esm"
    shutil.copytree(common, script.parent / "common")
    for name, place in (
        ("onnxruntime-web/webgpu", "./ort.webgpu.min.mjs"),
        ("onnxruntime-common", "./common/index.js"),
    ):
        text = text.replace(f'from "{name}"', f'from "{place}"')
    script.write_text(text)


def report(given: Any, site: Path, page: Page) -> str:
    """Both tables as Markdown."""
    prompts = PROMPTS[: given.prompts]
    lines = [
        f"{cpu_name()}, Chromium {version(page)}, {platform.system()}, "
        f"{given.threads} thread(s) of wasm.",
        "",
        f"{len(prompts)} prompts, 50 greedy tokens each:",
        "",
        "| bundle | as Python on the site's files | top-2 gap where they part | as Python on the "
        "bundle | top-2 gap where they part |",
        "|---|---|---|---|---|",
    ]
    names = [path.name for path in given.bundles]
    if given.portable is not None:
        names.append(given.portable.name)
    paths = {path.name: path for path in (*given.bundles, *filter(None, [given.portable]))}
    for name in names:
        found = library_texts(page, name, prompts, 50, given.threads)
        ids = [row["ids"] for row in found]
        cells = [name]
        for folder in (site / "models" / name, paths[name]):
            same, gaps = compare(folder, prompts, ids)
            shown = ", ".join(f"{gap:.2g}" for gap in sorted(gaps)) or "-"
            cells += [f"{same} of {len(prompts)} texts", shown]
        lines.append(f"| {' | '.join(cells)} |")
    speeds = measure(given, page, names)
    lines += [
        "",
        f"{N_TOKENS} greedy tokens after {PROMPT!r}, {given.rounds} alternating rounds:",
        "",
        "| engine | ms a token | tokens a second | times transformers.js |",
        "|---|---|---|---|",
    ]
    base = speeds.get("transformers.js")
    for name, milliseconds in speeds.items():
        ratio = "-" if base is None else f"{base / milliseconds:.2f}"
        lines.append(f"| {name} | {milliseconds:.2f} | {1000 / milliseconds:.0f} | {ratio} |")
    return "\n".join(lines)


def measure(given: Any, page: Page, names: list[str]) -> dict[str, float]:
    """Median milliseconds a token of each engine."""
    tokenizer = gpt_edge.load(given.bundles[0]).tokenizer
    rounds: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for name in names:
            (found,) = library_texts(page, name, [PROMPT], N_TOKENS, given.threads)
            rounds.setdefault(name, []).append(statistics.median(found["times"]))
        if given.peer is not None:
            ids = tokenizer.encode(PROMPT)
            found = run(page, PEER, INPUT=ids, THREADS=given.threads, COUNT=N_TOKENS)
            assert len(found["ids"]) == N_TOKENS
            rounds.setdefault("transformers.js", []).append(statistics.median(found["times"]))
    return {name: statistics.median(values) for name, values in rounds.items()}


def compare(bundle: Path, prompts: list[str], ids: list[list[int]]) -> tuple[int, list[float]]:
    """How many texts are Python's, and the gap between the two largest logits where others part."""
    model = gpt_edge.load(bundle)
    same, gaps = 0, []
    for prompt, found in zip(prompts, ids, strict=True):
        done = model.complete(prompt, max_new_tokens=len(found), ignore_end_token=True)
        if list(done.ids) == found:
            same += 1
            continue
        at = next(n for n, pair in enumerate(zip(done.ids, found, strict=True)) if len({*pair}) > 1)
        history = [*(model.tokenizer.encode(prompt) or [model.tokenizer.end_token]), *found[:at]]
        logits = np.sort(model.session.forward([history], model.session.new_cache())[0, -1])
        gaps.append(float(logits[-1] - logits[-2]))
    return same, gaps


def version(page: Page) -> str:
    product: str = page.browser.call("Browser.getVersion")["product"]
    return product.partition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
