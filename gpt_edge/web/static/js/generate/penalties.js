/**
 * Logits processors that change single logits: bias, penalties and bans, in float32 as numpy
 * computes them in `gpt_edge/generate/penalties.py`, and in the order of `processors.py`.
 *
 * A processor takes (history, row) and returns a row; it never changes the one it was given.
 */
const f32 = Math.fround;
// what Python's lstrip takes away
const LEADING_SPACE = /^[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;
/** Those that `params` ask for. nPrompt: how many ids of the history are the prompt's. */
export function buildProcessors(params, nPrompt, tokenizer, endTokens) {
    const biases = Object.entries(params.logit_bias).map(([id, bias]) => [Number(id), bias]);
    const size = tokenizer.vocabSize;
    checkIds("logit_bias", biases.map(([id]) => id), size);
    checkIds("stop_token_ids", params.stop_token_ids, size);
    const processors = [];
    if (biases.length > 0)
        processors.push(addBias(biases));
    if (params.repetition_penalty !== 1)
        processors.push(penalizeRepetition(params.repetition_penalty));
    if (params.presence_penalty !== 0 || params.frequency_penalty !== 0) {
        processors.push(penalizeCounts(params.presence_penalty, params.frequency_penalty, nPrompt));
    }
    if (params.no_repeat_ngram_size > 0)
        processors.push(banRepeats(params.no_repeat_ngram_size));
    if (params.bad_words.length > 0) {
        const sequences = badSequences(params.bad_words, tokenizer);
        checkIds("bad_words", sequences.flat(), size);
        processors.push(banWords(sequences));
    }
    if (params.min_new_tokens > 0 && endTokens.size > 0) {
        processors.push(banEnd(params.min_new_tokens, nPrompt, endTokens));
    }
    return processors;
}
function addBias(biases) {
    return (_, row) => {
        const changed = row.slice();
        for (const [id, bias] of biases)
            changed[id] = f32(changed[id] + f32(bias));
        return changed;
    };
}
/** Source: Keskar et al. 2019 (CTRL), section 4.1. */
function penalizeRepetition(penalty) {
    const factor = f32(penalty);
    return (history, row) => {
        const changed = row.slice();
        for (const id of new Set(history)) {
            const value = row[id];
            changed[id] = value < 0 ? f32(value * factor) : f32(value / factor);
        }
        return changed;
    };
}
/** OpenAI's penalties: of the generated tokens alone. */
function penalizeCounts(presence, frequency, nPrompt) {
    return (history, row) => {
        const counts = new Map();
        for (const id of history.slice(nPrompt))
            counts.set(id, (counts.get(id) ?? 0) + 1);
        const changed = row.slice();
        for (const [id, times] of counts) {
            const penalty = f32(f32(presence) + f32(times * f32(frequency)));
            changed[id] = f32(changed[id] - penalty);
        }
        return changed;
    };
}
/** Source: Paulus, Xiong and Socher 2017, section 2.5. */
function banRepeats(n) {
    return (history, row) => {
        const changed = row.slice();
        const tail = history.length - n + 1; // where the last n - 1 ids begin
        for (let start = 0; start < tail; start++) {
            let isSame = true;
            for (let place = 0; place < n - 1; place++) {
                isSame &&= history[start + place] === history[tail + place];
            }
            if (isSame)
                changed[history[start + n - 1]] = -Infinity;
        }
        return changed;
    };
}
/** Ids of each word: a text as it is and after a space, which are different tokens. */
function badSequences(words, tokenizer) {
    const sequences = words.flatMap((word) => typeof word === "string"
        ? [word, ` ${word.replace(LEADING_SPACE, "")}`].map((text) => tokenizer.encodePart(text))
        : [[...word]]);
    return sequences.filter((ids) => ids.length > 0);
}
/** Removes the token that would complete one of `sequences`. */
function banWords(sequences) {
    return (history, row) => {
        const changed = row.slice();
        for (const ids of sequences) {
            const start = ids.slice(0, -1);
            const from = history.length - start.length;
            if (from >= 0 && start.every((id, place) => history[from + place] === id)) {
                changed[ids.at(-1)] = -Infinity;
            }
        }
        return changed;
    };
}
function banEnd(n, nPrompt, endTokens) {
    return (history, row) => {
        if (history.length - nPrompt >= n)
            return row;
        const changed = row.slice();
        for (const id of endTokens)
            changed[id] = -Infinity;
        return changed;
    };
}
function checkIds(name, ids, vocabSize) {
    for (const id of ids) {
        if (id >= vocabSize) {
            throw new RangeError(`${name} names token ${id}, but the vocabulary's tokens are 0 to ${vocabSize - 1}`);
        }
    }
}
