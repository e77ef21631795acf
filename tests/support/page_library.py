"""The JavaScript library inside a page of a site, without the page's own controls."""

from __future__ import annotations

import json
from typing import Any

from tests.support.chromium import Page

# ids of many prompts, and the milliseconds between two tokens
TEXTS = """
(async () => {
  const load = (name) => import(new URL(name, document.baseURI).href);
  const ort = await load("ort/ort.wasm.min.mjs");
  const { Model } = await load("js/model.js");
  const { fetchFiles } = await load("js/bundle/fetch_files.js");
  const { webBackend } = await load("js/runtime/web_backend.js");
  const url = new URL("models/" + NAME, document.baseURI).href;
  const model = await Model.load(url, fetchFiles(url), webBackend(ort, THREADS));
  const found = [];
  for (const prompt of PROMPTS) {
    const stream = model.stream(prompt, { max_new_tokens: COUNT, ignore_end_token: true });
    const times = [];
    let n = 0;
    for (let at = performance.now(); !(await stream.next()).done; at = performance.now()) {
      const tokens = stream.ids.length - n;
      if (n > 0 && tokens > 0) times.push((performance.now() - at) / tokens);
      n = stream.ids.length;
    }
    found.push({ ids: stream.ids, times });
  }
  await model.close();
  return found;
})()
"""


def run(page: Page, script: str, **values: Any) -> Any:
    """Run a script with constants in place of names in capitals."""
    for name, value in values.items():
        script = script.replace(name, json.dumps(value))
    return page.run(script)


def library_texts(
    page: Page, name: str, prompts: list[str], count: int, threads: int = 1
) -> list[dict[str, Any]]:
    """Greedy texts by a model of the site: of each prompt `ids`, `count` of them, and `times`."""
    values = {"NAME": name, "PROMPTS": prompts, "COUNT": count, "THREADS": threads}
    found: list[dict[str, Any]] = run(page, TEXTS, **values)
    return found
