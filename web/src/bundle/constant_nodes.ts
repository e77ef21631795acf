/** Whether a graph has nodes that are better computed before its first call. */

import { type Field, fields } from "./onnx_wire.js";

/** They copy a few numbers, such as the scale of each token of the embedding. */
const CHEAP = new Set(["Constant", "Unsqueeze"]);

/**
 * Does a node read constants alone, weights that it unpacks, say? Where none does, onnxruntime has
 * nothing to compute in advance. Numbers of fields: onnx.proto3 of the ONNX specification. The graph was checked.
 */
export function hasConstantNodes(model: Uint8Array<ArrayBuffer>): boolean {
  const graph = [...fields(model)].find((one) => one.number === 7 && one.varint === null);
  if (graph === undefined) return false;
  const parts = [...fields(graph.bytes)].filter(({ varint }) => varint === null);
  const constants = new Set([""]); // an input that is left out
  for (const { bytes } of parts.filter(({ number }) => number === 5)) {
    constants.add(texts(fields(bytes), 8).at(-1) ?? "");
  }
  return parts
    .filter(({ number, bytes }) => number === 1 && !CHEAP.has(texts(fields(bytes), 4).at(-1) ?? ""))
    .some(({ bytes }) => texts(fields(bytes), 1).every((name) => constants.has(name)));
}

const decoder = new TextDecoder();

function texts(message: Iterable<Field>, number: number): string[] {
  return [...message]
    .filter((one) => one.number === number && one.varint === null)
    .map(({ bytes }) => decoder.decode(bytes));
}
