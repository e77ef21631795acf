/** SamplingParams: how to choose tokens and when to stop, by the names and bounds of the Python API. */
export const DEFAULT_MAX_NEW_TOKENS = 400;
const DEFAULT_TEMPERATURE = 1.0;
const DEFAULT_TOP_K = 40;
const MAX_STOP_STRINGS = 4;
const MAX_STOP_CHARACTERS = 64;
export const MAX_SEED = (1n << 64n) - 1n;
const NUMBERS = [
    ["temperature", "a finite number >= 0", (value) => value >= 0],
    ["top_p", "a number above 0, at most 1", (value) => value > 0 && value <= 1],
    ["min_p", "a number from 0 to 1", (value) => value >= 0 && value <= 1],
    ["typical_p", "a number above 0, at most 1", (value) => value > 0 && value <= 1],
    ["repetition_penalty", "a finite number above 0", (value) => value > 0],
    ["presence_penalty", "a finite number", () => true],
    ["frequency_penalty", "a finite number", () => true],
];
const WHOLE = [
    ["max_new_tokens", 1, Infinity],
    ["top_k", 1, Infinity],
    ["no_repeat_ngram_size", 0, Infinity],
    ["min_new_tokens", 0, Infinity],
    ["logprobs", 0, 100],
];
const DEFAULTS = {
    max_new_tokens: DEFAULT_MAX_NEW_TOKENS,
    temperature: null,
    top_k: null,
    top_p: null,
    min_p: null,
    typical_p: null,
    seed: null,
    stop: [],
    ignore_end_token: false,
    repetition_penalty: 1,
    presence_penalty: 0,
    frequency_penalty: 0,
    no_repeat_ngram_size: 0,
    logit_bias: {},
    bad_words: [],
    min_new_tokens: 0,
    stop_token_ids: [],
    logprobs: null,
};
/** Params with their defaults. Throws RangeError naming the field and value, TypeError for a name. */
export function checkedParams(params) {
    for (const name of Object.keys(params)) {
        if (!(name in DEFAULTS))
            throw new TypeError(`${name} is no setting of SamplingParams`);
    }
    const given = Object.entries(params).filter(([, value]) => value !== undefined);
    const values = { ...DEFAULTS, ...Object.fromEntries(given) };
    for (const [name, expected, isWithin] of NUMBERS) {
        const value = values[name];
        if (value === null && DEFAULTS[name] === null)
            continue;
        if (!(typeof value === "number" && Number.isFinite(value) && isWithin(value))) {
            throw new RangeError(`${name} must be ${expected}, got ${String(value)}`);
        }
    }
    for (const [name, least, most] of WHOLE)
        checkWhole(name, values[name], least, most);
    checkStop(values.stop);
    for (const [id, bias] of Object.entries(values.logit_bias)) {
        if (!/^\d+$/.test(id) || typeof bias !== "number" || !(bias < Infinity)) {
            throw new RangeError(`logit_bias must map token ids to finite numbers, or to -Infinity, got ${id}: ${bias}`);
        }
    }
    checkWords(values.bad_words);
    values.stop_token_ids.forEach((id) => checkWhole("stop_token_ids", id, 0, Infinity));
    return { ...values, seed: checkedSeed(values.seed), ...effective(values) };
}
/** What a model's maker asks for; greedy without do_sample, where penalties count all the same. */
export function paramsFromDefaults(defaults, vocabSize) {
    if (defaults === undefined)
        return {};
    const params = {
        repetition_penalty: defaults.repetition_penalty ?? 1,
        no_repeat_ngram_size: defaults.no_repeat_ngram_size ?? 0,
    };
    if (!defaults.do_sample)
        return params;
    return {
        ...params,
        temperature: defaults.temperature ?? DEFAULT_TEMPERATURE,
        top_k: defaults.top_k === 0 ? vocabSize : (defaults.top_k ?? null),
        top_p: defaults.top_p ?? null,
        min_p: defaults.min_p ?? null,
        typical_p: defaults.typical_p ?? null,
    };
}
function effective(values) {
    const { temperature, top_k, top_p, min_p, typical_p } = values;
    const truncates = [top_p, min_p, typical_p].some((value) => value !== null);
    const asks = truncates || temperature !== null || top_k !== null;
    return {
        is_greedy: temperature === 0 || !asks,
        effective_top_k: top_k ?? (truncates ? Infinity : DEFAULT_TOP_K),
        effective_temperature: temperature || DEFAULT_TEMPERATURE,
    };
}
function checkWhole(name, value, least, most) {
    if (value === null && DEFAULTS[name] === null)
        return;
    const isWhole = typeof value === "number" && Number.isSafeInteger(value);
    if (!isWhole || value < least || value > most) {
        const bounds = most === Infinity ? `of ${least} or more` : `from ${least} to ${most}`;
        throw new RangeError(`${name} must be a whole number ${bounds}, got ${String(value)}`);
    }
}
function checkStop(stop) {
    if (!Array.isArray(stop) || stop.length > MAX_STOP_STRINGS) {
        throw new RangeError(`stop takes at most ${MAX_STOP_STRINGS} strings`);
    }
    for (const text of stop) {
        const length = typeof text === "string" ? [...text].length : 0;
        if (length < 1 || length > MAX_STOP_CHARACTERS) {
            throw new RangeError(`a stop string must have 1 to ${MAX_STOP_CHARACTERS} characters, got ${String(text)}`);
        }
    }
}
function checkWords(words) {
    if (!Array.isArray(words))
        throw new RangeError("bad_words must be texts or lists of token ids");
    for (const word of words) {
        const isWord = typeof word === "string" || Array.isArray(word);
        if (!isWord || word.length === 0) {
            throw new RangeError(`a bad word must be a text or a list of token ids, got ${String(word)}`);
        }
        if (typeof word !== "string")
            word.forEach((id) => checkWhole("bad_words", id, 0, Infinity));
    }
}
function checkedSeed(seed) {
    if (seed === null)
        return null;
    const isWhole = typeof seed === "bigint" || Number.isSafeInteger(seed);
    if (!isWhole || BigInt(seed) < 0n || BigInt(seed) > MAX_SEED) {
        throw new RangeError(`seed must be a whole number from 0 to ${MAX_SEED}, got ${String(seed)}`);
    }
    return BigInt(seed);
}
