import assert from "node:assert/strict";
import { test } from "node:test";
import { fixtures, script } from "./fixtures.mjs";

const { Tokenizer } = await script("tokenizer/tokenizer");

function open({ spec, content }) {
  return Tokenizer.from(spec, new Uint8Array(Buffer.from(content, "base64")), "tokenizer");
}

test("texts have Python's ids, and ids Python's texts", () => {
  assert.ok(fixtures.tokenizers.length >= 5);
  for (const tokenizer of fixtures.tokenizers) {
    const opened = open(tokenizer);
    for (const { text, ids, special, decoded } of tokenizer.texts) {
      const label = `${tokenizer.name}: ${JSON.stringify(text.slice(0, 60))}`;
      assert.deepEqual(opened.encode(text, special), ids, label);
      assert.equal(opened.decode(ids), decoded, label);
    }
  }
});

test("a stream of ids has Python's pieces, and no half character", () => {
  for (const tokenizer of fixtures.tokenizers) {
    const detokenizer = open(tokenizer).detokenizer();
    for (const { ids, pieces, rest } of tokenizer.streams) {
      assert.deepEqual(ids.map((id) => detokenizer.push(id)), pieces, tokenizer.name);
      assert.equal(detokenizer.flush(), rest, tokenizer.name);
    }
  }
});

test("what cannot be read here is refused by name", () => {
  const { spec, content } = fixtures.tokenizers[0];
  assert.throws(() => open({ spec: { ...spec, kind: "hf" }, content }), /of kind hf/);
  assert.throws(() => open({ spec: { ...spec, pattern: "\\w+|x" }, content }), /split pattern/);
  const cut = Buffer.from(content, "base64").subarray(0, 100).toString("base64");
  assert.throws(() => open({ spec, content: cut }), /tokenizer/);
  assert.throws(() => open(fixtures.tokenizers[0]).decode([1e6]), /token id/);
});

test("a hundred thousand characters are tokenized within seconds", () => {
  const opened = open(fixtures.tokenizers[0]);
  for (const text of ["a".repeat(1e5), " ".repeat(1e5), "ab ".repeat(3e4), "^".repeat(1e5)]) {
    const started = performance.now();
    assert.equal(opened.decode(opened.encode(text)), text);
    assert.ok(performance.now() - started < 10_000, text.slice(0, 3));
  }
});
