import assert from "node:assert/strict";
import { test } from "node:test";
import { fixtures, script, wasmBackend } from "./fixtures.mjs";

const { Bundle } = await script("bundle/bundle");
const { hasConstantNodes } = await script("bundle/constant_nodes");
const { diskFiles } = await script("bundle/disk_files");
const { fields } = await script("bundle/onnx_wire");
const { unpackWeights } = await script("bundle/unpack_weights");
const { Session } = await script("runtime/session");
const backend = await wasmBackend();
const text = new TextDecoder();

/** The operators of a graph: field 4 of each node, which is field 1 of the graph, field 7. */
function operators(model) {
  const graph = [...fields(model)].find(({ number, varint }) => number === 7 && varint === null);
  const nodes = [...fields(graph.bytes)].filter(({ number }) => number === 1);
  return nodes.map(({ bytes }) => text.decode([...fields(bytes)].find(({ number }) => number === 4).bytes));
}

const open = ({ bundle }) => Bundle.open(bundle, diskFiles(bundle));

test("onnxruntime unpacks the same weights from the graph as it is", async () => {
  for (const one of fixtures.arranged) {
    const bundle = await open(one);
    const plain = { InferenceSession: { create: (_, options) => backend.ort.InferenceSession.create(
      bundle.file("model.onnx"), { ...options, externalData: bundle.weightFiles }) }, Tensor: backend.ort.Tensor };
    const rows = [];
    for (const ort of [backend.ort, plain]) {
      // what it fuses changes the last bits
      const session = await Session.start(bundle, { ...backend, ort, optionsFor: async () => ({}) });
      const cache = session.newCache();
      rows.push([await session.append([5, 6, 7, 8, 9], cache), await session.append([3], cache)]);
      await session.release?.();
    }
    assert.deepEqual(rows[0], rows[1], one.name);
  }
});

test("no weight of 8 bits is left for onnxruntime to unpack", async () => {
  for (const one of fixtures.arranged) {
    const bundle = await open(one);
    const before = operators(bundle.file("model.onnx"));
    assert.ok(before.includes("DequantizeLinear"), one.name);
    const { model, files } = unpackWeights(bundle.file("model.onnx"), bundle.weightFiles);
    const left = operators(model).filter((name) => name === "DequantizeLinear").length;
    if (one.name.endsWith("int8") || one.name.endsWith("int8-block")) assert.equal(left, 0, one.name);
    assert.ok(files.length >= bundle.weightFiles.length);
    // a second pass finds nothing to do
    const again = unpackWeights(model, files);
    if (left === 0) assert.equal(again.model, model);
  }
});

test("onnxruntime searches a graph where weights are left for it to unpack", async () => {
  for (const one of fixtures.arranged) {
    const bundle = await open(one);
    const packed = bundle.file("model.onnx");
    assert.ok(hasConstantNodes(packed), one.name);
    const { model } = unpackWeights(packed, bundle.weightFiles);
    const isLeft = operators(model).includes("DequantizeLinear");
    assert.equal(hasConstantNodes(model), isLeft, one.name);
    const options = await backend.optionsFor(model, "edge");
    assert.equal(options.graphOptimizationLevel, isLeft ? undefined : "disabled", one.name);
    assert.deepEqual(await backend.optionsFor(model, "portable"), {});
  }
});
