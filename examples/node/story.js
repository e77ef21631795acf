// Continues a prompt with a bundle, piece by piece: node story.js BUNDLE [PROMPT] [SEED]

import { load } from "gpt-edge";

const [bundle, prompt = "Once upon a time", seed = "7"] = process.argv.slice(2);
if (bundle === undefined) {
  console.error("usage: node story.js BUNDLE [PROMPT] [SEED]");
  process.exit(2);
}

try {
  const model = await load(bundle);
  const params = { ...model.generationDefaults, max_new_tokens: 60, seed: BigInt(seed) };
  const stream = model.stream(prompt, params);
  process.stdout.write(prompt);
  for await (const piece of stream) process.stdout.write(piece);
  const { ids, finish_reason, decode_seconds } = await stream.completion();
  const speed = ids.length > 1 ? (ids.length - 1) / decode_seconds : 0;
  console.log();
  console.error(`${ids.length} tokens, ${finish_reason}, ${speed.toFixed(0)} tokens/s`);
  await model.close();
} catch (error) {
  console.error(`error: ${error.message}`);
  if (error.hint) console.error(`hint: ${error.hint}`);
  process.exit(1);
}
