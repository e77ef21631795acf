import assert from "node:assert/strict";
import { test } from "node:test";
import { fixtures, loadModel, script, wasmBackend } from "./fixtures.mjs";

const { BundleError } = await script("errors");
const backend = await wasmBackend();

test("graphs that no export has are refused before onnxruntime sees them", async () => {
  assert.ok(fixtures.spoiled.length > 25);
  for (const { name, bundle } of fixtures.spoiled) {
    await assert.rejects(
      loadModel(bundle, { ...backend, ort: null }),
      (error) => error instanceof BundleError && /model\.onnx (has|asks|is no)/.test(error.message),
      name,
    );
  }
});

test("numbers of a graph that are no sizes are refused", async () => {
  const { fields, WireError } = await script("bundle/onnx_wire");
  const read = (...bytes) => [...fields(Uint8Array.from(bytes))];
  const none = new Uint8Array(0);
  const whole = Uint8Array.of(8, 0x96, 1);
  assert.deepEqual(read(...whole), [{ number: 1, varint: 150, bytes: none, whole }]);
  const minusOne = [8, ...new Array(9).fill(0xff), 1];
  assert.ok(read(...minusOne)[0].varint > Number.MAX_SAFE_INTEGER);
  for (const wrong of [[8], [8, 0x80], [18, 5, 1], [11], [13, 1], new Array(20).fill(0xff)]) {
    assert.throws(() => read(...wrong), WireError, String(wrong));
  }
});
