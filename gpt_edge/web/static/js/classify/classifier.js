/** Classifier: a fine-tuned bundle that answers: texts in, labels and probabilities out. */
import { NumericError } from "../errors.js";
import { checkBytes, tooLong } from "../generate/prompt.js";
import { EMBEDDING, TOKENS, transform } from "./tasks.js";
/** Answer one example. Throws RangeError for what is no example, ContextLengthError. */
export async function predict(example, task, session, tokenizer) {
    if (task.kind === EMBEDDING)
        throw new RangeError("this model gives vectors of texts, no labels");
    if (task.kind === TOKENS) {
        throw new RangeError("this model labels tokens, not texts: use the Python package's tag");
    }
    const texts = typeof example === "string" ? [example] : example;
    const { n_ctx } = session.config;
    const ids = texts.map((text) => {
        if (typeof text !== "string" || text.trim() === "")
            throw new RangeError("a text is empty");
        checkBytes("a text", text, tokenizer, n_ctx);
        return tokenizer.encode(text);
    });
    const input = transform(task, ids, n_ctx);
    const nTokens = input.sequences.reduce((sum, sequence) => sum + sequence.length, 0);
    if (input.nTruncated > 0)
        throw tooLong(`the text is ${input.nTruncated} tokens too long`, n_ctx);
    const logits = await answers(task, session, input.sequences);
    if (!logits.every(Number.isFinite))
        throw new NumericError("the model gave NaN or infinite logits");
    return { ...prediction(task, logits, texts), n_tokens: nTokens };
}
async function answers(task, session, sequences) {
    if (task.kind === "similarity")
        return [...(await session.taskLogits(sequences))];
    const logits = [];
    for (const ids of sequences)
        logits.push(...(await session.taskLogits([ids])));
    return logits;
}
function prediction(task, logits, texts) {
    const range = task.score_range ?? null;
    if (range !== null || task.problem === "regression") {
        const [low, high] = range ?? [0, 1];
        const value = logits[0];
        const score = range === null ? value : low + (high - low) * sigmoid(value);
        return { label: null, labels: [], probabilities: [], score };
    }
    const labels = task.kind === "multiple-choice" ? texts.slice(1) : task.labels;
    const values = logits.map((value) => value / (task.temperature ?? 1));
    const probabilities = task.problem === "multi-label" ? values.map(sigmoid) : softmax(values);
    const best = probabilities.indexOf(Math.max(...probabilities));
    return { label: labels[best], labels, probabilities, score: null };
}
function sigmoid(value) {
    return value >= 0 ? 1 / (1 + Math.exp(-value)) : Math.exp(value) / (1 + Math.exp(value));
}
function softmax(logits) {
    const largest = Math.max(...logits);
    const shares = logits.map((value) => Math.exp(value - largest));
    const sum = shares.reduce((total, share) => total + share, 0);
    return shares.map((share) => share / sum);
}
