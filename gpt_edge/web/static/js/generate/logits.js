/** Arithmetic on a row of logits, in the order and precision of `gpt_edge/generate/logits.py`. */
import { NumericError } from "../errors.js";
/** The id of the largest logit, the lower one in a tie. Throws NumericError for NaN or infinities. */
export function largestId(row) {
    let best = 0;
    for (let id = 1; id < row.length; id++)
        if (row[id] > row[best])
            best = id;
    checkSound(row);
    return best;
}
/** Throws NumericError for NaN or +inf anywhere, or -inf everywhere. */
export function checkSound(row) {
    let hasFinite = false;
    for (let id = 0; id < row.length; id++) {
        const value = row[id];
        if (value < Infinity) {
            hasFinite ||= value > -Infinity;
            continue;
        }
        throw unsound(`${value} at token ${id}`); // +inf, or NaN, which compares false
    }
    if (!hasFinite)
        throw unsound("-inf for every token");
}
function unsound(what) {
    return new NumericError(`the model's logits hold ${what}; finite numbers are expected, so no token can be chosen`, "the weights are corrupt or overflow: run gpt-edge verify on the bundle");
}
/** The ids of the `k` largest logits, ascending, ties to the lower id; all of them from k = V. */
export function topKIds(row, k) {
    if (k >= row.length)
        return Int32Array.from(row, (_, id) => id);
    const limit = kthLargest(row, k);
    let nAbove = 0;
    for (const value of row)
        if (value > limit)
            nAbove += 1;
    const ids = new Int32Array(k);
    let nTies = k - nAbove;
    let n = 0;
    for (let id = 0; id < row.length && n < k; id++) {
        const value = row[id];
        if (value > limit)
            ids[n++] = id;
        else if (value === limit && nTies > 0) {
            nTies -= 1;
            ids[n++] = id;
        }
    }
    return ids;
}
/** The k-th largest of a row, through a heap of the k largest so far. k: from 1 to V. */
function kthLargest(row, k) {
    const heap = row.slice(0, k).sort(); // ascending, so a heap with the smallest first
    for (let id = k; id < row.length; id++) {
        const value = row[id];
        if (value <= heap[0])
            continue;
        let place = 0;
        for (;;) {
            let child = 2 * place + 1;
            if (child >= k)
                break;
            if (child + 1 < k && heap[child + 1] < heap[child])
                child += 1;
            if (heap[child] >= value)
                break;
            heap[place] = heap[child];
            place = child;
        }
        heap[place] = value;
    }
    return heap[0];
}
/** float64 [n]: (logits - largest) / temperature of some ids, so the largest is 0. */
export function scaledValues(row, ids, temperature) {
    const values = Float64Array.from(ids, (id) => row[id]);
    let largest = -Infinity;
    for (const value of values)
        if (value > largest)
            largest = value;
    for (let index = 0; index < values.length; index++) {
        values[index] = (values[index] - largest) / temperature;
    }
    return values;
}
/** Sums from the first entry to each, in float64. */
export function cumulativeSums(values) {
    const sums = new Float64Array(values.length);
    let sum = 0;
    for (let index = 0; index < values.length; index++) {
        sum += values[index];
        sums[index] = sum;
    }
    return sums;
}
