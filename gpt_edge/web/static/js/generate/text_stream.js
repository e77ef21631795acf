/**
 * One generation as it happens: an async iterator over pieces of text, which works only when it is
 * asked for the next piece. Ends and order: `gpt_edge/generate/stream.py`.
 */
import { NumericError } from "../errors.js";
import { PREFILL_CHUNK } from "../runtime/session.js";
import { tokenLogprob } from "./logprobs.js";
import { checkedParams } from "./params.js";
import { buildProcessors } from "./penalties.js";
import { Sampler } from "./sampler.js";
import { StopMatcher } from "./stop_strings.js";
export class TextStream {
    session;
    tokenizer;
    prompt;
    ids = [];
    logprobs = [];
    text = "";
    reason = null;
    isOver = false;
    isCancelled = false;
    prefillSeconds = 0;
    decodeSeconds = 0;
    params;
    history;
    sampler;
    endTokens;
    detokenizer;
    stops;
    cache;
    room;
    step = Promise.resolve({ value: "", done: false });
    /** prompt: ids, at least one and at most a context full. endTokens: the model's own. */
    constructor(session, tokenizer, prompt, params, endTokens) {
        this.session = session;
        this.tokenizer = tokenizer;
        this.prompt = prompt;
        this.params = checkedParams(params);
        const own = this.params.ignore_end_token ? [] : endTokens;
        this.endTokens = new Set([...own, ...this.params.stop_token_ids]);
        this.history = [...prompt];
        const processors = buildProcessors(this.params, prompt.length, tokenizer, this.endTokens);
        this.sampler = new Sampler(this.params, processors);
        this.detokenizer = tokenizer.detokenizer();
        this.stops = new StopMatcher(this.params.stop);
        this.cache = session.newCache();
        // the last token is never processed, so it needs no room in the context
        this.room = session.config.n_ctx - prompt.length + 1;
    }
    /** The seed in use; null when greedy. */
    get seed() {
        return this.params.is_greedy ? null : this.sampler.seed;
    }
    /** null until the last piece was yielded. */
    get finish_reason() {
        return this.isOver ? this.reason : null;
    }
    [Symbol.asyncIterator]() {
        return this;
    }
    /** Calls wait for one another. */
    next() {
        const step = this.step.catch(() => undefined).then(() => this.nextPiece());
        this.step = step;
        return step;
    }
    /** Ends it, as leaving a `for await` loop does. */
    async return() {
        this.reason ??= "cancelled";
        this.isOver = true;
        return { value: undefined, done: true };
    }
    /** End it before its next token; text that waits for what follows is still yielded. */
    cancel() {
        this.isCancelled = true;
    }
    /** The whole result. Reads the rest first, if there is one. */
    async completion() {
        while (!(await this.next()).done)
            ;
        return {
            text: this.text,
            ids: this.ids,
            finish_reason: this.reason ?? "cancelled",
            prompt_tokens: this.prompt.length,
            seed: this.seed,
            prefill_seconds: this.prefillSeconds,
            decode_seconds: this.decodeSeconds,
            logprobs: this.params.logprobs === null ? null : this.logprobs,
        };
    }
    async nextPiece() {
        try {
            while (!this.isOver) {
                const piece = await this.advance();
                this.text += piece;
                if (piece !== "")
                    return { value: piece, done: false };
            }
        }
        catch (error) {
            this.isOver = true; // the cache may be half-written
            throw error;
        }
        return { value: undefined, done: true };
    }
    /** The text of the next token, often "", or at the end the text that was held back. */
    async advance() {
        const id = this.reason === null ? await this.nextId() : null;
        let piece;
        if (id !== null) {
            piece = this.stops.push(this.detokenizer.push(id));
        }
        else {
            piece = this.stops.push(this.detokenizer.flush()) + this.stops.flush();
            this.isOver = true;
        }
        if (this.stops.isFound) {
            this.reason = "stop";
            this.isOver = true;
        }
        return piece;
    }
    /** The next id; null at the end, whose reason is then known. */
    async nextId() {
        const started = performance.now();
        const isFirst = this.ids.length === 0;
        const logits = this.isCancelled ? null : await this.nextLogits(isFirst);
        if (logits === null) {
            this.reason = "cancelled";
            return null;
        }
        const id = this.choose(logits);
        const seconds = (performance.now() - started) / 1000;
        if (isFirst)
            this.prefillSeconds = seconds;
        else
            this.decodeSeconds += seconds;
        return id;
    }
    async nextLogits(isFirst) {
        if (!isFirst)
            return this.session.append([this.ids.at(-1)], this.cache);
        let logits = null;
        for (let start = 0; start < this.prompt.length; start += PREFILL_CHUNK) {
            if (this.isCancelled)
                return null;
            logits = await this.session.append(this.prompt.slice(start, start + PREFILL_CHUNK), this.cache);
        }
        return logits;
    }
    choose(logits) {
        const row = logits.subarray(0, this.tokenizer.vocabSize);
        if (row.length === 0)
            throw new NumericError("the graph returned no logits");
        const id = this.sampler.sample(row, this.history);
        if (this.endTokens.has(id)) {
            this.reason = "stop";
            return null;
        }
        if (this.params.logprobs !== null) {
            this.logprobs.push(tokenLogprob(row, id, this.params.logprobs));
        }
        this.ids.push(id);
        this.history.push(id);
        if (this.ids.length === this.params.max_new_tokens)
            this.reason = "length";
        else if (this.ids.length === this.room)
            this.reason = "context_full";
        return id;
    }
}
