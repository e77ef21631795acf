// What Python computed for these tests: tests/web/fixtures.py writes the file, and
// tests/web/test_javascript.py runs `node --test` with its name in the environment.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const path = process.env.GPT_EDGE_FIXTURES;
if (path === undefined) {
  throw new Error("run these tests with: python -m pytest -n0 tests/web/test_javascript.py");
}

export const fixtures = JSON.parse(readFileSync(path, "utf8"));

/** A module of the compiled sources. */
export function script(name) {
  return import(pathToFileURL(`${fixtures.scripts}/${name}.js`).href);
}

/** A tokenizer from the content of its file in base64. */
export async function openTokenizer({ spec, content }) {
  const { Tokenizer } = await script("tokenizer/tokenizer");
  return Tokenizer.from(spec, new Uint8Array(Buffer.from(content, "base64")), "tokenizer");
}

/** Rows are float32 in base64. */
export function row(text) {
  return new Float32Array(new Uint8Array(Buffer.from(text, "base64")).buffer);
}

/** onnxruntime-web's wasm build with one thread, as a page has it. */
export async function wasmBackend() {
  const ort = await import(pathToFileURL(`${fixtures.runtime}/ort.wasm.min.mjs`).href);
  const { webBackend } = await script("runtime/web_backend");
  return webBackend(ort, 1);
}

export async function loadModel(folder, backend) {
  const { Model } = await script("model");
  const { diskFiles } = await script("bundle/disk_files");
  return Model.load(folder, diskFiles(folder), backend);
}
