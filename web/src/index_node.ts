/** The entry point of Node: bundles from a folder or an address, run by onnxruntime-node. */

import * as ort from "onnxruntime-node";
import { diskFiles } from "./bundle/disk_files.js";
import { fetchFiles } from "./bundle/fetch_files.js";
import { type LoadOptions, Model } from "./model.js";
import { nodeBackend } from "./runtime/node_backend.js";
import type { Ort } from "./runtime/ort.js";

export * from "./api.js";

export interface NodeLoadOptions extends LoadOptions {
  /** Threads of onnxruntime; by default its own choice. */
  threads?: number;
}

/** Load the bundle in a folder, or in the folder at an address that begins with http. */
export function load(urlOrFolder: string, options: NodeLoadOptions = {}): Promise<Model> {
  const isAddress = /^https?:\/\//.test(urlOrFolder);
  const read = isAddress ? fetchFiles(urlOrFolder) : diskFiles(urlOrFolder);
  const backend = nodeBackend(ort as unknown as Ort, options.threads ?? null);
  return Model.load(urlOrFolder, read, backend, options);
}
