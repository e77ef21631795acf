/** Classifier: a fine-tuned bundle that answers: texts in, labels and probabilities out. */

import type { TaskSpec } from "../bundle/manifest.js";
import { NumericError } from "../errors.js";
import { checkBytes, tooLong } from "../generate/prompt.js";
import type { Session } from "../runtime/session.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { EMBEDDING, type TaskInput, TOKENS, transform } from "./tasks.js";

/** What the model says to one example; as `gpt_edge.classify.classifier.Prediction`. */
export interface Prediction {
  /** The most likely class, or the answer chosen; null for a score. */
  readonly label: string | null;
  /** Of the classes, or of the answers, calibrated where the task is; empty for a score. */
  readonly labels: readonly string[];
  readonly probabilities: readonly number[];
  readonly score: number | null;
  readonly n_tokens: number;
}

/** One example: a text, or its texts in their order. */
export type Example = string | readonly string[];

/** Answer one example. Throws RangeError for what is no example, ContextLengthError. */
export async function predict(
  example: Example,
  task: TaskSpec,
  session: Session,
  tokenizer: Tokenizer,
): Promise<Prediction> {
  if (task.kind === EMBEDDING) {
    throw new RangeError("this model gives vectors of texts, no labels: use embed");
  }
  if (task.kind === TOKENS) throw new RangeError("this model labels tokens, not texts: use tag");
  const texts = typeof example === "string" ? [example] : example;
  const input = encodeTexts(texts, tokenizer, session.config.n_ctx, task);
  const nTokens = input.sequences.reduce((sum, sequence) => sum + sequence.length, 0);
  const logits = await answers(task, session, input.sequences);
  if (!logits.every(Number.isFinite)) throw new NumericError("the model gave NaN or infinite logits");
  return { ...prediction(task, logits, texts), n_tokens: nTokens };
}

/** One example as ids. Throws RangeError for an empty text, ContextLengthError. */
export function encodeTexts(
  texts: readonly string[],
  tokenizer: Tokenizer,
  nCtx: number,
  task: TaskSpec,
): TaskInput {
  const ids = texts.map((text) => {
    checkText(text);
    checkBytes("a text", text, tokenizer, nCtx);
    return tokenizer.encode(text);
  });
  const input = transform(task, ids, nCtx);
  if (input.nTruncated > 0) throw tooLong(`the text is ${input.nTruncated} tokens too long`, nCtx);
  return input;
}

/** No model was fine-tuned on nothing. */
export function checkText(text: unknown): void {
  if (typeof text !== "string" || text.trim() === "") throw new RangeError("a text is empty");
}

async function answers(
  task: TaskSpec,
  session: Session,
  sequences: readonly (readonly number[])[],
): Promise<number[]> {
  if (task.kind === "similarity") return [...(await session.taskLogits(sequences))];
  const logits: number[] = [];
  for (const ids of sequences) logits.push(...(await session.taskLogits([ids])));
  return logits;
}

function prediction(
  task: TaskSpec,
  logits: readonly number[],
  texts: readonly string[],
): Omit<Prediction, "n_tokens"> {
  const range = task.score_range ?? null;
  if (range !== null || task.problem === "regression") {
    const [low, high] = range ?? [0, 1];
    const value = logits[0]!;
    const score = range === null ? value : low + (high - low) * sigmoid(value);
    return { label: null, labels: [], probabilities: [], score };
  }
  const labels = task.kind === "multiple-choice" ? texts.slice(1) : task.labels;
  const values = logits.map((value) => value / (task.temperature ?? 1));
  const probabilities = task.problem === "multi-label" ? values.map(sigmoid) : softmax(values);
  const best = probabilities.indexOf(Math.max(...probabilities));
  return { label: labels[best]!, labels, probabilities, score: null };
}

function sigmoid(value: number): number {
  return value >= 0 ? 1 / (1 + Math.exp(-value)) : Math.exp(value) / (1 + Math.exp(value));
}

/** Of classes of which one is true. */
export function softmax(logits: readonly number[]): number[] {
  const largest = Math.max(...logits);
  const shares = logits.map((value) => Math.exp(value - largest));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}
