/**
 * Labels of tokens, each with the part of the text that it covers: `gpt_edge/classify/token_labels.py`,
 * but places are those of JavaScript's strings, so that `text.slice(start, end)` is the token.
 */

import type { TaskSpec } from "../bundle/manifest.js";
import { TokenizerError } from "../errors.js";
import type { Session } from "../runtime/session.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { encodeTexts, softmax } from "./classifier.js";
import { TOKENS } from "./tasks.js";

export interface TokenLabel {
  readonly text: string;
  /** Its first code unit in the text, and the one after its last. */
  readonly start: number;
  readonly end: number;
  readonly label: string;
  readonly probability: number;
}

type Span = readonly [start: number, end: number];

/** Label every token of a text. Throws RangeError, ContextLengthError, TokenizerError. */
export async function tag(
  text: string,
  task: TaskSpec,
  session: Session,
  tokenizer: Tokenizer,
): Promise<TokenLabel[]> {
  if (task.kind !== TOKENS) throw new RangeError("this model labels texts, not tokens: use classify");
  const ids = encodeTexts([text], tokenizer, session.config.n_ctx, task).sequences[0]!;
  const spans = tokenSpans(tokenizer, text);
  const logits = await session.taskLogits([ids], true);
  const nLabels = task.labels.length;
  const found: TokenLabel[] = [];
  spans.forEach((span, row) => {
    if (span === null) return;
    const shares = softmax([...logits.subarray(row * nLabels, (row + 1) * nLabels)]);
    const best = shares.indexOf(Math.max(...shares));
    const [start, end] = span;
    const label = { label: task.labels[best]!, probability: shares[best]! };
    found.push({ text: text.slice(start, end), start, end, ...label });
  });
  return found;
}

/** The part of `text` that each token covers; null for those that are before every text. */
export function tokenSpans(tokenizer: Tokenizer, text: string): (Span | null)[] {
  const n = tokenizer.prefixLength;
  const pieces = tokenizer.encode(text).slice(n).map((id) => tokenizer.tokenBytes(id));
  const joined = pieces.flatMap((piece) => [...piece]);
  const bytes: number[] = [];
  const spanOf: Span[] = []; // of each byte's character
  let at = 0;
  for (const character of text) {
    for (const byte of new TextEncoder().encode(character)) {
      bytes.push(byte);
      spanOf.push([at, at + character.length]);
    }
    at += character.length;
  }
  const nBefore = joined.length - bytes.length; // a space that the tokenizer sets before
  const expected = nBefore < 0 ? [] : [...new Array<number>(nBefore).fill(0x20), ...bytes];
  if (joined.length !== expected.length || joined.some((byte, place) => byte !== expected[place])) {
    throw new TokenizerError("the tokens are no parts of the text, so they have no places in it");
  }
  let end = -nBefore;
  const spans = pieces.map((piece): Span => {
    const start = end;
    end += piece.length;
    const last = Math.max(start, end - 1);
    return [spanOf[Math.max(start, 0)]?.[0] ?? text.length, last < 0 ? 0 : spanOf[last]![1]];
  });
  return [...new Array<null>(n).fill(null), ...spans];
}
