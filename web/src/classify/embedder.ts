/** Texts as vectors, from hidden states after the final norm: `gpt_edge/classify/embedder.py`. */

import type { TaskSpec } from "../bundle/manifest.js";
import { NumericError } from "../errors.js";
import { checkBytes, tooLong } from "../generate/prompt.js";
import type { Session } from "../runtime/session.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { checkText } from "./classifier.js";
import { EMBEDDING } from "./tasks.js";

export interface EmbedOptions {
  /** The mean over the tokens, or the last one's state, which a model trained for vectors lacks. */
  pooling?: "mean" | "last";
  /** To length 1, so that a product is the cosine; the default. */
  normalize?: boolean;
}

/** The vector of a text. Throws RangeError, ContextLengthError, BundleError without hidden states. */
export async function embed(
  text: string,
  task: TaskSpec | null,
  session: Session,
  tokenizer: Tokenizer,
  { pooling = "mean", normalize = true }: EmbedOptions = {},
): Promise<Float32Array> {
  if (pooling !== "mean" && pooling !== "last") {
    throw new RangeError(`pooling must be "mean" or "last", got ${String(pooling)}`);
  }
  const isTrained = task?.kind === EMBEDDING;
  if (isTrained && pooling !== "mean") {
    throw new RangeError('this model was trained for the pooling "mean"');
  }
  const ids = encode(text, task, tokenizer, session.config.n_ctx);
  const copies = task?.kind === "similarity" ? [ids, ids] : [ids]; // its graph adds pairs
  const states = await (isTrained ? session.taskLogits([ids], true) : session.states(copies));
  const size = states.length / ids.length;
  const vector = pooling === "last" ? [...states.slice(-size)] : meanOf(states, size);
  if (!vector.every(Number.isFinite)) throw new NumericError("the model gave NaN or infinite states");
  if (!normalize) return Float32Array.from(vector);
  const length = Math.hypot(...vector.map(Math.fround)) || 1;
  return Float32Array.from(vector, (value) => Math.fround(value) / length);
}

/** A fine-tuned model reads a text between its start and its extract token, as it learned to. */
function encode(text: string, task: TaskSpec | null, tokenizer: Tokenizer, nCtx: number): number[] {
  checkText(text);
  checkBytes("a text", text, tokenizer, nCtx);
  const isFramed = typeof task?.start === "number";
  const own = tokenizer.encode(text);
  const ids = isFramed ? [task.start, ...own, task.extract!] : own;
  if (ids.length > nCtx) throw tooLong(`the text has ${ids.length} tokens`, nCtx);
  return ids;
}

/** The mean of rows [T, size]. */
function meanOf(rows: Float32Array, size: number): number[] {
  const sums = new Array<number>(size).fill(0);
  rows.forEach((value, place) => (sums[place % size]! += value));
  return sums.map((sum) => sum / (rows.length / size));
}
