/** Prompt rules: from a text to the ids that the model processes; `gpt_edge/generate/prompt.py`. */
import { ContextLengthError } from "../errors.js";
/**
 * Ids of `text`, at least one and at most a context full; an empty text is one end token. Throws
 * TypeError, RangeError for an empty text of a model without an end token, ContextLengthError.
 */
export function encodePrompt(text, tokenizer, config, maxNewTokens, options = {}) {
    if (typeof text !== "string")
        throw new TypeError(`prompt must be a string, got ${typeof text}`);
    const truncate = options.truncate ?? null;
    if (truncate === null)
        checkBytes("the prompt", text, tokenizer, config.n_ctx);
    let ids = tokenizer.encode(text, options.special ?? false);
    if (ids.length === 0) {
        if (tokenizer.endToken === null) {
            throw new RangeError("the prompt is empty, and this model has no end token to start a text from");
        }
        ids = [tokenizer.endToken];
    }
    const { n_ctx } = config;
    if (truncate === "left")
        return ids.slice(-Math.max(n_ctx - maxNewTokens, n_ctx >> 1, 1));
    if (ids.length > n_ctx)
        throw tooLong(`the prompt has ${ids.length} tokens`, n_ctx);
    return ids;
}
/** Refuse a text by its size alone: to tokenize 10 MB takes long, only to refuse it. */
export function checkBytes(what, text, tokenizer, nCtx) {
    const widest = tokenizer.maxTokenBytes;
    if (widest === null || text.length * 3 <= widest * nCtx)
        return;
    const nBytes = new TextEncoder().encode(text).length;
    if (nBytes > widest * nCtx)
        throw tooLong(`${what} has ${nBytes} bytes`, nCtx);
}
export function tooLong(what, nCtx) {
    return new ContextLengthError(`${what}, the context of this model holds ${nCtx} tokens`, "shorten it");
}
