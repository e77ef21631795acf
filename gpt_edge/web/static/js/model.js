/** Model: a loaded bundle: a language model streams text, a classifier answers. */
import { Bundle } from "./bundle/bundle.js";
import { predict } from "./classify/classifier.js";
import { embed } from "./classify/embedder.js";
import { tag } from "./classify/token_labels.js";
import { BundleError } from "./errors.js";
import { checkedParams, paramsFromDefaults } from "./generate/params.js";
import { encodePrompt } from "./generate/prompt.js";
import { TextStream } from "./generate/text_stream.js";
import { Session } from "./runtime/session.js";
import { Tokenizer } from "./tokenizer/tokenizer.js";
export class Model {
    manifest;
    tokenizer;
    session;
    constructor(manifest, tokenizer, session) {
        this.manifest = manifest;
        this.tokenizer = tokenizer;
        this.session = session;
    }
    /** Read, check and start a bundle. Throws BundleError or TokenizerError saying what is wrong. */
    static async load(where, read, backend, options = {}) {
        const bundle = await Bundle.open(where, read, options.onProgress);
        const spec = bundle.manifest.tokenizer;
        if (spec === null) {
            throw new BundleError(`${where} has no tokenizer`, "export it with one");
        }
        const tokenizer = Tokenizer.from(spec, bundle.file(spec.file), `${where}/${spec.file}`);
        return new Model(bundle.manifest, tokenizer, await Session.start(bundle, backend));
    }
    get isClassifier() {
        return this.manifest.kind === "task";
    }
    /** What the bundle asks for, for `stream`; without it, generation is greedy. */
    get generationDefaults() {
        return paramsFromDefaults(this.manifest.generation_defaults, this.tokenizer.vocabSize);
    }
    /**
     * Continue a prompt: an async iterator over pieces of text, never half a character, never a stop
     * string; the model works only while the next piece is awaited. Throws RangeError or TypeError
     * for a setting, ContextLengthError, BundleError for a classifier.
     */
    stream(prompt, params = {}, options = {}) {
        this.checkKind(false);
        const { max_new_tokens } = checkedParams(params);
        const ids = encodePrompt(prompt, this.tokenizer, this.session.config, max_new_tokens, options);
        return new TextStream(this.session, this.tokenizer, ids, params, this.endTokens);
    }
    /** The whole text. */
    complete(prompt, params = {}, options = {}) {
        return this.stream(prompt, params, options).completion();
    }
    /** Answer examples, in their order. Throws BundleError for a language model. */
    async classify(texts) {
        this.checkKind(true);
        const found = [];
        for (const example of texts) {
            found.push(await predict(example, this.manifest.task, this.session, this.tokenizer));
        }
        return found;
    }
    /**
     * Label every token of texts, in their order. Throws BundleError for a language model, RangeError
     * for one that labels texts.
     */
    async tag(texts) {
        this.checkKind(true);
        const found = [];
        for (const text of texts) {
            found.push(await tag(text, this.manifest.task, this.session, this.tokenizer));
        }
        return found;
    }
    /** Vectors of texts, in their order, of any model. */
    async embed(texts, options = {}) {
        const task = this.manifest.task ?? null;
        const found = [];
        for (const text of texts) {
            found.push(await embed(text, task, this.session, this.tokenizer, options));
        }
        return found;
    }
    /** Let go of the weights. */
    close() {
        return this.session.close();
    }
    get endTokens() {
        const ids = this.manifest.generation_defaults?.eos_token_id ?? [];
        const own = this.tokenizer.endToken;
        return [...(typeof ids === "number" ? [ids] : ids), ...(own === null ? [] : [own])];
    }
    checkKind(isClassifier) {
        if (this.isClassifier === isClassifier)
            return;
        throw new BundleError(isClassifier
            ? `${this.manifest.name} is a language model: it has no task to answer`
            : `${this.manifest.name} is a classifier: it generates nothing`, isClassifier ? "use stream" : "use classify");
    }
}
