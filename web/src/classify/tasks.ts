/** How the texts of one example become sequences of ids: `gpt_edge/tasks.py`, and its sources. */

import type { TaskSpec } from "../bundle/manifest.js";

export const TOKENS = "token-classification";
export const EMBEDDING = "embedding";
const PLAIN = ["text-classification", TOKENS]; // transformers' kinds: a text is read as it is

/** Sequences of one example: one; for similarity both orders; for multiple choice one per answer. */
export interface TaskInput {
  readonly sequences: readonly (readonly number[])[];
  readonly nTruncated: number;
}

type Ids = readonly number[];

/** Throws RangeError for another number of texts than the task wants. */
export function transform(task: TaskSpec, texts: readonly Ids[], nCtx: number): TaskInput {
  checkNumber(task.kind, texts.length);
  if (PLAIN.includes(task.kind)) {
    const kept = texts[0]!.slice(0, nCtx);
    const nTruncated = texts[0]!.length - kept.length;
    return { sequences: [withoutPadding(kept, task.pad ?? null)], nTruncated };
  }
  const nParts = task.kind === "classification" ? 1 : 2;
  const room = nCtx - 1 - nParts; // start, and a delimiter or extract after each text
  let kept: Ids[];
  let together: Ids[][];
  if (task.kind === "classification") {
    kept = [texts[0]!.slice(0, room)];
    together = [kept];
  } else if (task.kind === "multiple-choice") {
    kept = cutChoices(texts, room);
    together = kept.slice(1).map((answer) => [kept[0]!, answer]);
  } else {
    kept = cutPair(texts[0]!, texts[1]!, room);
    together = task.kind === "similarity" ? [kept, [...kept].reverse()] : [kept];
  }
  const nTruncated = total(texts) - total(kept);
  return { sequences: together.map((parts) => sequence(task, parts)), nTruncated };
}

function checkNumber(kind: string, found: number): void {
  const expected = kind === "entailment" || kind === "similarity" ? 2 : 1;
  if (kind === "multiple-choice" ? found < 3 : found !== expected) {
    const wanted = kind === "multiple-choice" ? "a context and at least 2 answers" : `${expected} text(s)`;
    throw new RangeError(`${kind} wants ${wanted}, got ${found}`);
  }
}

function sequence(task: TaskSpec, parts: readonly Ids[]): number[] {
  const ids = [task.start!];
  parts.forEach((part, index) => {
    if (index > 0) ids.push(task.delimiter!);
    ids.push(...part);
  });
  ids.push(task.extract!);
  return ids;
}

/** Trailing ids of this value have no effect, but for the first one. */
function withoutPadding(ids: Ids, pad: number | null): Ids {
  let nKept = ids.length;
  while (nKept > 1 && ids[nKept - 1] === pad) nKept -= 1;
  return ids.slice(0, nKept);
}

/** The longer of the two loses its end first. */
function cutPair(first: Ids, second: Ids, room: number): Ids[] {
  const half = Math.floor(room / 2);
  const nFirst = Math.min(first.length, Math.max(room - second.length, room - half));
  const nSecond = Math.min(second.length, room - nFirst);
  return [first.slice(0, nFirst), second.slice(0, nSecond)];
}

/** An answer keeps at most half of the room, and the context keeps its end. */
function cutChoices(texts: readonly Ids[], room: number): Ids[] {
  const [context, ...answers] = texts as [Ids, ...Ids[]];
  const longest = Math.max(Math.floor(room / 2), room - context.length);
  const kept = answers.map((answer) => answer.slice(0, longest));
  const nContext = Math.min(context.length, room - Math.max(...kept.map((answer) => answer.length)));
  return [context.slice(context.length - nContext), ...kept];
}

function total(texts: readonly Ids[]): number {
  return texts.reduce((sum, ids) => sum + ids.length, 0);
}
