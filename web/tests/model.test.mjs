import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fixtures, loadModel, script, wasmBackend } from "./fixtures.mjs";

const { BundleError } = await script("errors");
const backend = await wasmBackend();
const scratch = mkdtempSync(join(tmpdir(), "gpt-edge-"));
after(() => rmSync(scratch, { recursive: true }));

test("wasm writes the ids and texts that Python writes with the same bundle", async () => {
  for (const { bundle, texts } of fixtures.models) {
    const model = await loadModel(bundle, backend);
    for (const { prompt, params, ids, text, finish_reason } of texts) {
      const done = await model.complete(prompt, params);
      const label = `${bundle} ${JSON.stringify(prompt)} ${JSON.stringify(params)}`;
      assert.deepEqual(done.ids, ids, label);
      assert.equal(done.text, text, label);
      assert.equal(done.finish_reason, finish_reason, label);
    }
    await model.close();
    await assert.rejects(model.complete("again"), /closed/);
  }
});

test("a classifier gives Python's labels and probabilities", async () => {
  const { bundle, texts, labels, probabilities } = fixtures.classifier;
  const model = await loadModel(bundle, backend);
  const found = await model.classify(texts);
  assert.deepEqual(found.map(({ label }) => label), labels);
  found.forEach((row, index) => {
    row.probabilities.forEach((share, label) => {
      assert.ok(Math.abs(share - probabilities[index][label]) < 2e-3);
    });
  });
  assert.throws(() => model.stream("x"), /classifier/);
  await assert.rejects(model.classify([" "]), /empty/);
  await assert.rejects(model.classify(["word ".repeat(5000)]), /context/);
  await model.close();
});

test("labels of tokens and their places are Python's", async () => {
  const { bundle, texts, rows } = fixtures.tags;
  const model = await loadModel(bundle, backend);
  const found = await model.tag(texts);
  found.forEach((labels, index) => {
    assert.equal(labels.length, rows[index].length);
    labels.forEach((label, at) => {
      const { probability, text, ...expected } = rows[index][at];
      assert.deepEqual({ ...label, ...expected }, label);
      assert.ok(Math.abs(label.probability - probability) < 2e-3);
      assert.equal(label.text, texts[index].slice(label.start, label.end));
    });
  });
  await assert.rejects(model.classify(texts), /labels tokens/);
  await assert.rejects(model.tag([" "]), /empty/);
  await model.close();
});

test("vectors are Python's", async () => {
  for (const { bundle, texts, cases } of fixtures.vectors) {
    const model = await loadModel(bundle, backend);
    for (const { options, rows } of cases) {
      const found = await model.embed(texts, options);
      found.forEach((vector, index) => {
        assert.equal(vector.length, rows[index].length);
        const largest = Math.max(...rows[index].map(Math.abs));
        vector.forEach((value, at) => {
          const gap = Math.abs(value - rows[index][at]);
          assert.ok(gap < 1e-4 * largest, `${bundle} ${JSON.stringify(options)}: ${gap}`);
        });
      });
    }
    await assert.rejects(model.embed(["word ".repeat(9000)]), /context/);
    await assert.rejects(model.embed(texts, { pooling: "max" }), /max/);
    await model.close();
  }
  const old = await loadModel(fixtures.models[1].bundle, backend);
  await assert.rejects(old.embed(["a b"]), /no hidden states/);
  await old.close();
});

test("a stream ends when it is left or cancelled, and yields nothing more", async () => {
  const model = await loadModel(fixtures.models[0].bundle, backend);
  const left = model.stream("Once", { max_new_tokens: 20 });
  for await (const piece of left) if (piece) break;
  assert.equal(left.finish_reason, "cancelled");
  assert.deepEqual(await left.next(), { value: undefined, done: true });
  const cancelled = model.stream("Once", { max_new_tokens: 20 });
  await cancelled.next();
  cancelled.cancel();
  const done = await cancelled.completion();
  assert.equal(done.finish_reason, "cancelled");
  assert.ok(done.ids.length <= 2);
  assert.throws(() => model.stream("word ".repeat(9000)), /context/);
  assert.throws(() => model.stream("x", { top_p: 2 }), /top_p/);
  await model.close();
});

test("timers run between the tokens of a text", async () => {
  const model = await loadModel(fixtures.models[0].bundle, backend);
  const stream = model.stream("Once", { max_new_tokens: 400, ignore_end_token: true });
  setTimeout(() => stream.cancel(), 30);
  const done = await stream.completion();
  assert.equal(done.finish_reason, "cancelled");
  await model.close();
});

test("corrupt bundles are refused before onnxruntime sees them", async () => {
  const source = fixtures.models[0].bundle;
  const manifest = JSON.parse(readFileSync(join(source, "manifest.json"), "utf8"));
  const names = ["manifest.json", ...Object.keys(manifest.files)];
  let n = 0;
  for (const name of names) {
    for (const change of ["flip first", "flip middle", "flip last", "cut", "grow", "remove"]) {
      const folder = join(scratch, String(n++));
      cpSync(source, folder, { recursive: true });
      damage(join(folder, name), change);
      await assert.rejects(
        loadModel(folder, { ...backend, ort: null }),
        (error) => error instanceof BundleError && error.message.includes(name),
        `${name} ${change}`,
      );
      rmSync(folder, { recursive: true });
    }
  }
  assert.ok(n >= 20);
});

function damage(path, change) {
  const content = readFileSync(path);
  const at = { "flip first": 0, "flip middle": content.length >> 1, "flip last": content.length - 2 };
  if (change === "remove") return rmSync(path);
  if (change === "cut") return writeFileSync(path, content.subarray(0, content.length - 7));
  if (change === "grow") return writeFileSync(path, Buffer.concat([content, Buffer.from("{}")]));
  content[at[change]] ^= 1;
  return writeFileSync(path, content);
}
