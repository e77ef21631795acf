/**
 * Session: a bundle's graph in onnxruntime: token ids and a cache in, logits out. Names and shapes
 * are those of `gpt_edge/onnx_contract.py`.
 */
import { GRAPH_FILE } from "../bundle/bundle.js";
import { unpackWeights } from "../bundle/unpack_weights.js";
import { BundleError, GPTEdgeError } from "../errors.js";
import { KVCache } from "./kv_cache.js";
export const PREFILL_CHUNK = 256; // tokens of one call, as in Python
export class Session {
    config;
    graph;
    backend;
    session;
    isClosed = false;
    constructor(config, graph, backend, session) {
        this.config = config;
        this.graph = graph;
        this.backend = backend;
        this.session = session;
    }
    /** Start the graph. Throws BundleError for one that onnxruntime refuses. */
    static async start(bundle, backend) {
        const { config, graph } = bundle.manifest;
        const { model, files } = unpackWeights(bundle.file(GRAPH_FILE), bundle.weightFiles);
        let session;
        try {
            session = await backend.ort.InferenceSession.create(model, {
                ...backend.options,
                ...(await backend.optionsFor(model, graph)),
                externalData: files,
            });
        }
        catch (error) {
            throw new BundleError(`onnxruntime cannot load ${bundle.where}: ${causeOf(error)}`);
        }
        const missing = ["input_ids"].filter((name) => !session.inputNames.includes(name));
        if (missing.length > 0 || !session.outputNames.includes("logits")) {
            throw new BundleError(`${bundle.where} has no inputs and outputs of a ${graph} graph`);
        }
        return new Session(config, graph, backend, session);
    }
    newCache() {
        return new KVCache(this.backend, this.config, this.graph);
    }
    /** Append ids to the cache's text; the logits float32 [V] after the last of them. */
    async append(ids, cache) {
        const past = cache.length;
        const total = past + ids.length;
        const feeds = {
            ...this.idFeeds([ids], total),
            position_ids: this.int64(Array.from(ids, (_, index) => past + index), [1, ids.length]),
            ...(this.graph === "edge" ? { logit_rows: this.int64([ids.length - 1], [1, 1]) } : {}),
        };
        const fetches = { logits: null };
        cache.bind(total, feeds, fetches);
        const outputs = await this.run(feeds, fetches);
        cache.take(total, outputs);
        const logits = outputs["logits"].data;
        return logits.slice(logits.length - this.config.vocab_size);
    }
    /**
     * A task's logits of one sequence, or of similarity's two orders, padded at their ends: float32
     * [n_label], or [T, n_label] where every row is asked for.
     */
    async taskLogits(sequences, everyRow = false) {
        const width = Math.max(...sequences.map((ids) => ids.length));
        const padded = sequences.map((ids) => [...ids, ...new Array(width - ids.length).fill(0)]);
        const feeds = this.idFeeds(padded, width, sequences.map((ids) => ids.length));
        if (this.graph === "edge") {
            const rows = everyRow
                ? sequences.map(() => Array.from({ length: width }, (_, row) => row))
                : sequences.map((ids) => [ids.length - 1]);
            feeds["logit_rows"] = this.int64(rows.flat(), [sequences.length, rows[0].length]);
        }
        const { logits } = await this.run(feeds, { logits: null });
        return logits.data.slice();
    }
    /**
     * Hidden states after the final norm, float32 [T, n_embd], of the first of some equal sequences.
     * Throws BundleError for a graph that gives none.
     */
    async states(sequences) {
        if (!this.session.outputNames.includes("hidden_states")) {
            throw new BundleError("the bundle gives no hidden states: gpt-edge did not make it, or an older one did", "make it again with gpt-edge export");
        }
        const hasPast = this.session.inputNames.includes("past_key_values.0.key");
        const width = sequences[0].length;
        const places = Array.from({ length: width }, (_, place) => place);
        const rows = hasPast ? [0] : places; // a language model's head has nothing to do
        const feeds = {
            ...this.idFeeds(sequences, width),
            position_ids: this.int64(sequences.flatMap(() => places), [sequences.length, width]),
            logit_rows: this.int64(sequences.flatMap(() => rows), [sequences.length, rows.length]),
        };
        const fetches = { hidden_states: null };
        if (hasPast)
            this.newCache().bind(width, feeds, fetches);
        const { hidden_states } = await this.run(feeds, fetches);
        return hidden_states.data.slice(0, width * this.config.n_embd);
    }
    /** Let go of the weights; using it afterwards is an error. */
    async close() {
        if (this.isClosed)
            return;
        this.isClosed = true;
        await this.session.release();
    }
    idFeeds(rows, total, lengths = rows.map(() => total)) {
        const { Tensor } = this.backend.ort;
        const width = rows[0].length;
        const ids = this.int64(rows.flat(), [rows.length, width]);
        if (this.graph === "portable") {
            const mask = lengths.flatMap((length) => Array.from({ length: total }, (_, place) => (place < length ? 1 : 0)));
            return { input_ids: ids, attention_mask: this.int64(mask, [rows.length, total]) };
        }
        return {
            input_ids: ids,
            seqlens_k: new Tensor("int32", Int32Array.from(lengths, (length) => length - 1), [rows.length]),
            total_sequence_length: new Tensor("int32", Int32Array.of(total), [1]),
        };
    }
    int64(values, dims) {
        return new this.backend.ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
    }
    async run(feeds, fetches) {
        if (this.isClosed)
            throw new GPTEdgeError("the model is closed: load it again");
        const known = Object.entries(feeds).filter(([name]) => this.session.inputNames.includes(name));
        const places = this.backend.writesInPlace ? fetches : Object.keys(fetches);
        await this.backend.breathe();
        try {
            return await this.session.run(Object.fromEntries(known), places);
        }
        catch (error) {
            throw new GPTEdgeError(`onnxruntime failed: ${causeOf(error)}`, "where memory is short, close other pages and load this one again");
        }
    }
}
/** What onnxruntime says, in one line; a long message keeps its end, where the cause is. */
export function causeOf(error) {
    const text = String(error?.message ?? error).replace(/\s+/g, " ").trim();
    return text.length <= 300 ? text : `...${text.slice(-300).trimStart()}`;
}
