/** LocalEngine: models in a worker of this page. Choosing another one ends the worker of the first. */
import { GPTEdgeError } from "../errors.js";
export class LocalEngine {
    models;
    worker = null;
    current = null;
    loaded = null;
    constructor(models) {
        this.models = models;
    }
    async load(name, onProgress) {
        if (this.current === name && this.loaded !== null)
            return this.loaded;
        this.end();
        this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
        const url = new URL(`models/${name}`, document.baseURI).href;
        const reply = await this.ask({ do: "load", url }, (update) => {
            if (update.is === "progress")
                onProgress(update.progress);
        });
        if (reply.is !== "loaded")
            throw unexpected(reply);
        this.current = name;
        this.loaded = reply.loaded;
        return reply.loaded;
    }
    async generate(name, prompt, params, onPiece, signal) {
        await this.load(name, () => undefined);
        const stop = () => this.worker?.postMessage({ do: "stop" });
        signal.addEventListener("abort", stop);
        try {
            const reply = await this.ask({ do: "generate", prompt, params }, (update) => {
                if (update.is === "piece")
                    onPiece(update.piece);
            });
            if (reply.is !== "ended")
                throw unexpected(reply);
            return reply.summary;
        }
        finally {
            signal.removeEventListener("abort", stop);
        }
    }
    async classify(name, texts) {
        await this.load(name, () => undefined);
        const reply = await this.ask({ do: "classify", texts });
        if (reply.is !== "prediction")
            throw unexpected(reply);
        return reply.prediction;
    }
    /** Send a request and wait for its last reply. A worker that dies is an error, not silence. */
    ask(request, onUpdate = () => undefined) {
        const worker = this.worker;
        if (worker === null)
            throw new GPTEdgeError("no model is loaded");
        return new Promise((resolve, reject) => {
            worker.onerror = (event) => {
                this.end();
                const detail = event.message || "its memory may be used up";
                reject(new GPTEdgeError(`the model's worker ended: ${detail}`, "load the page again"));
            };
            worker.onmessage = (event) => {
                const reply = event.data;
                if (reply.is === "progress" || reply.is === "piece")
                    onUpdate(reply);
                else if (reply.is === "failed")
                    reject(new GPTEdgeError(reply.message, reply.hint));
                else
                    resolve(reply);
            };
            worker.postMessage(request);
        });
    }
    end() {
        this.worker?.terminate();
        this.worker = null;
        this.current = null;
        this.loaded = null;
    }
}
function unexpected(reply) {
    return new GPTEdgeError(`the worker answered ${reply.is}, which was not asked for`);
}
