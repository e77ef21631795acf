/** The entry point of browsers: bundles from an address, run by onnxruntime-web's wasm build. */

import * as ort from "onnxruntime-web/wasm";
import { fetchFiles } from "./bundle/fetch_files.js";
import { type LoadOptions, Model } from "./model.js";
import { webBackend, type WebOrt } from "./runtime/web_backend.js";

export * from "./api.js";

export interface BrowserLoadOptions extends LoadOptions {
  /** Threads of wasm; by default up to 4 where the page is cross-origin isolated. */
  threads?: number;
}

/** Load the bundle in the folder at `url`, which `gpt-edge web` arranges so that wasm is fast. */
export function load(url: string, options: BrowserLoadOptions = {}): Promise<Model> {
  const backend = webBackend(ort as unknown as WebOrt, options.threads ?? null);
  return Model.load(url, fetchFiles(url), backend, options);
}
