/**
 * The random numbers of sampling: Philox4x64-10 with key (seed, 0) and counter 1, 2, ..., which is
 * numpy's Philox(key=seed). Source: Salmon, Moraes, Dror and Shaw 2011.
 */
const MASK = (1n << 64n) - 1n;
/** Uniform 64-bit integers, the same as `gpt_edge/generate/philox.py` gives for a seed. */
export class Philox {
    seed;
    counter = 0n;
    rest = [];
    /** seed: 0 to 2**64 - 1. */
    constructor(seed) {
        this.seed = seed;
    }
    next() {
        if (this.rest.length === 0) {
            this.counter += 1n;
            this.rest = block(this.seed, this.counter);
        }
        return this.rest.shift();
    }
    /** A float64 in [0, 1) from the top 53 bits of the next integer. */
    uniform() {
        return Number(this.next() >> 11n) * 2 ** -53;
    }
}
/** The four integers of one counter, after ten rounds. */
function block(seed, counter) {
    let [a, b, c, d] = [counter & MASK, (counter >> 64n) & MASK, 0n, 0n];
    let [key0, key1] = [seed & MASK, 0n];
    for (let round = 0; round < 10; round++) {
        const low = 0xd2e7470ee14c6c93n * a;
        const high = 0xca5a826395121157n * c;
        [a, b, c, d] = [(high >> 64n) ^ b ^ key0, high & MASK, (low >> 64n) ^ d ^ key1, low & MASK];
        key0 = (key0 + 0x9e3779b97f4a7c15n) & MASK;
        key1 = (key1 + 0xbb67ae8584caa73bn) & MASK;
    }
    return [a, b, c, d];
}
