import assert from "node:assert/strict";
import { test } from "node:test";
import { fixtures, openTokenizer, row, script } from "./fixtures.mjs";

const { Philox } = await script("generate/philox");
const { checkedParams } = await script("generate/params");
const { buildProcessors } = await script("generate/penalties");
const { Sampler } = await script("generate/sampler");
const { StopMatcher } = await script("generate/stop_strings");

test("random numbers are Python's", () => {
  for (const { seed, numbers } of fixtures.philox) {
    const random = new Philox(BigInt(seed));
    assert.deepEqual(numbers.map(() => String(random.next())), numbers);
  }
});

test("the sampler chooses the ids that Python's chooses", async () => {
  const tokenizer = await openTokenizer(fixtures.vocabulary);
  assert.ok(fixtures.sampler.length > 20);
  for (const { params, rows, histories, n_prompt, end_tokens, ids } of fixtures.sampler) {
    const checked = checkedParams(params);
    const processors = buildProcessors(checked, n_prompt, tokenizer, new Set(end_tokens));
    const sampler = new Sampler(checked, processors);
    const found = rows.map((text, index) => sampler.sample(row(text), histories[index]));
    assert.deepEqual(found, ids, JSON.stringify(params));
  }
});

test("logits that are not finite are refused", () => {
  const sampler = new Sampler(checkedParams({ temperature: 1 }), []);
  for (const bad of [NaN, Infinity]) {
    assert.throws(() => sampler.sample(Float32Array.of(0, bad, 1), []), /at token 1/);
  }
  const none = new Float32Array(3).fill(-Infinity);
  assert.throws(() => sampler.sample(none, []), /-inf for every token/);
  assert.throws(() => new Sampler(checkedParams({}), []).sample(none, []), /-inf for every/);
});

test("stop strings cut and hold back as Python's do", () => {
  for (const { stops, pieces, outputs, rest, is_found } of fixtures.stops) {
    const matcher = new StopMatcher(stops);
    assert.deepEqual(pieces.map((piece) => matcher.push(piece)), outputs);
    assert.equal(matcher.flush(), rest);
    assert.equal(matcher.isFound, is_found);
  }
});

test("a wrong setting is named with its value", () => {
  const wrong = [
    [{ temperature: -1 }, /temperature.*-1/],
    [{ top_k: 0 }, /top_k.*0/],
    [{ top_p: 1.5 }, /top_p.*1.5/],
    [{ seed: -1 }, /seed.*-1/],
    [{ stop: ["a", "b", "c", "d", "e"] }, /at most 4/],
    [{ bad_words: "the" }, /bad_words must be/],
    [{ bad_words: [""] }, /bad word/],
    [{ bad_words: [[1.5]] }, /bad_words.*1.5/],
    [{ max_new_tokens: 0.5 }, /max_new_tokens.*0.5/],
    [{ temprature: 1 }, /temprature is no setting/],
  ];
  for (const [params, message] of wrong) assert.throws(() => checkedParams(params), message);
});
