/**
 * Truncations: which tokens may be drawn: top-p, min-p and typical. Sums are added from the first
 * entry to the last, in float64, as `gpt_edge/generate/truncation.py` adds them.
 *
 * values: float64 [n], logits divided by the temperature whose largest is 0, by ascending token id.
 * A result is a mask of those that stay; at least the likeliest does.
 */

import { cumulativeSums } from "./logits.js";

export type Truncation = (values: Float64Array) => boolean[];

/** Keep a token if those more likely have together less than `topP` (Holtzman et al. 2020). */
export function topPMask(values: Float64Array, topP: number): boolean[] {
  const probabilities = values.map(Math.exp);
  const total = cumulativeSums(probabilities).at(-1)!;
  // below this, tokens have together too little to matter; half of it, so that no rounding decides
  const floor = (((1 - topP) / 2) * total) / values.length;
  const likely = probabilities.filter((value) => value > floor).sort().reverse();
  let n = 0;
  let before = 0;
  while (n < likely.length && before < topP * total) {
    before += likely[n]!;
    n += 1;
  }
  return largestMask(probabilities, likely[n - 1]!, n);
}

/** Keep tokens at least `minP` times as likely as the likeliest (Nguyen et al. 2024). */
export function minPMask(values: Float64Array, minP: number): boolean[] {
  return Array.from(values, (value) => Math.exp(value) >= minP);
}

/** Keep the tokens whose surprise is nearest to the expected one (Meister et al. 2023). */
export function typicalMask(values: Float64Array, mass: number): boolean[] {
  const probabilities = values.map(Math.exp);
  const logTotal = Math.log(cumulativeSums(probabilities).at(-1)!);
  const total = Math.exp(logTotal);
  const shares = probabilities.map((value) => value / total);
  const surprise = values.map((value) => logTotal - value); // inf for what cannot be drawn
  const terms = shares.map((share, index) => (share > 0 ? share * surprise[index]! : 0));
  const expected = cumulativeSums(terms).at(-1)!;
  const distance = surprise.map((value) => Math.abs(value - expected));
  const order = Array.from(distance, (_, index) => index).sort(
    (one, other) => distance[one]! - distance[other]! || one - other,
  );
  const sums = cumulativeSums(Float64Array.from(order, (index) => shares[index]!));
  const nBelow = sums.findIndex((sum) => !(sum < mass));
  const last = nBelow < 0 ? order.length - 1 : nBelow;
  const limit = distance[order[last]!]!;
  return Array.from(distance, (value, index) => value <= limit && shares[index]! > 0);
}

/** Mask of the `n` largest, ties to the lower id. limit: the smallest of them. */
function largestMask(probabilities: Float64Array, limit: number, n: number): boolean[] {
  const kept = Array.from(probabilities, (value) => value > limit);
  let nTies = n - kept.filter(Boolean).length;
  for (let index = 0; index < kept.length && nTies > 0; index++) {
    if (probabilities[index] === limit) {
      kept[index] = true;
      nTies -= 1;
    }
  }
  return kept;
}
