/** Sampler: chooses token ids from rows of logits, as `gpt_edge/generate/sampler.py` chooses them. */
import { NumericError } from "../errors.js";
import { checkSound, cumulativeSums, largestId, scaledValues, topKIds } from "./logits.js";
import { Philox } from "./philox.js";
import { minPMask, topPMask, typicalMask } from "./truncation.js";
/** Holds the random state of one generation. seed: the one in use. */
export class Sampler {
    params;
    processors;
    seed;
    random;
    truncations = [];
    constructor(params, processors) {
        this.params = params;
        this.processors = processors;
        this.seed = params.seed ?? drawnSeed();
        this.random = new Philox(this.seed);
        const { top_p, min_p, typical_p } = params;
        if (top_p !== null && top_p < 1)
            this.truncations.push((values) => topPMask(values, top_p));
        if (min_p)
            this.truncations.push((values) => minPMask(values, min_p));
        if (typical_p !== null && typical_p < 1) {
            this.truncations.push((values) => typicalMask(values, typical_p));
        }
    }
    /**
     * A token id whose probability is above 0. history: the ids before, the prompt's included.
     * Throws NumericError for NaN or +inf anywhere, or -inf everywhere.
     */
    sample(logits, history) {
        let row = logits;
        if (this.processors.length > 0) {
            checkSound(row);
            for (const process of this.processors)
                row = process(history, row);
            if (!row.some((value) => value > -Infinity)) {
                throw new NumericError("-inf for every token is what the logits processors leave, so no token can be chosen", "loosen logit_bias or no_repeat_ngram_size");
            }
        }
        if (this.params.is_greedy || this.params.top_k === 1)
            return largestId(row);
        checkSound(row);
        let ids = topKIds(row, this.params.effective_top_k);
        let values = scaledValues(row, ids, this.params.effective_temperature);
        for (const truncate of this.truncations) {
            const kept = truncate(values);
            ids = ids.filter((_, index) => kept[index]);
            values = values.filter((_, index) => kept[index]);
        }
        return ids[this.draw(values)];
    }
    /** An index, with the probabilities of softmax(values), by inverting their cumulative sum. */
    draw(values) {
        let largest = -Infinity;
        for (const value of values)
            if (value > largest)
                largest = value;
        const sums = cumulativeSums(values.map((value) => Math.exp(value - largest)));
        const total = sums.at(-1);
        const limit = this.random.uniform() * total;
        const index = sums.findIndex((sum) => sum > limit);
        // u * total may be rounded up to total
        return index >= 0 ? index : sums.findIndex((sum) => sum >= total);
    }
}
function drawnSeed() {
    return crypto.getRandomValues(new BigUint64Array(1))[0];
}
