/** LocalEngine: models in a worker of this page. Choosing another one ends the worker of the first. */

import type { LoadProgress } from "../bundle/bundle.js";
import type { Prediction } from "../classify/classifier.js";
import { GPTEdgeError } from "../errors.js";
import type { SamplingParams } from "../generate/params.js";
import type { Engine, Loaded, ModelEntry, Piece, Reply, Request, Summary } from "./protocol.js";

type Final = Exclude<Reply, { is: "progress" } | { is: "piece" }>;

export class LocalEngine implements Engine {
  private worker: Worker | null = null;
  private current: string | null = null;
  private loaded: Loaded | null = null;

  /** starting: a worker that has no model yet, started before the models were known. */
  constructor(
    readonly models: readonly ModelEntry[],
    private starting: Worker | null = null,
  ) {}

  async load(name: string, onProgress: (progress: LoadProgress) => void): Promise<Loaded> {
    if (this.current === name && this.loaded !== null) return this.loaded;
    this.end();
    this.worker = this.starting ?? startWorker();
    this.starting = null;
    const url = new URL(`models/${name}`, document.baseURI).href;
    const reply = await this.ask({ do: "load", url }, (update) => {
      if (update.is === "progress") onProgress(update.progress);
    });
    if (reply.is !== "loaded") throw unexpected(reply);
    this.current = name;
    this.loaded = reply.loaded;
    return reply.loaded;
  }

  async generate(
    name: string,
    prompt: string,
    params: SamplingParams,
    onPiece: (piece: Piece) => void,
    signal: AbortSignal,
  ): Promise<Summary> {
    await this.load(name, () => undefined);
    const stop = (): void => this.worker?.postMessage({ do: "stop" } satisfies Request);
    signal.addEventListener("abort", stop);
    try {
      const reply = await this.ask({ do: "generate", prompt, params }, (update) => {
        if (update.is === "piece") onPiece(update.piece);
      });
      if (reply.is !== "ended") throw unexpected(reply);
      return reply.summary;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  async classify(name: string, texts: readonly string[]): Promise<Prediction> {
    await this.load(name, () => undefined);
    const reply = await this.ask({ do: "classify", texts });
    if (reply.is !== "prediction") throw unexpected(reply);
    return reply.prediction;
  }

  /** Send a request and wait for its last reply. A worker that dies is an error, not silence. */
  private ask(request: Request, onUpdate: (update: Reply) => void = () => undefined): Promise<Final> {
    const worker = this.worker;
    if (worker === null) throw new GPTEdgeError("no model is loaded");
    return new Promise((resolve, reject) => {
      worker.onerror = (event) => {
        this.end();
        const detail = event.message || "its memory may be used up";
        reject(new GPTEdgeError(`the model's worker ended: ${detail}`, "load the page again"));
      };
      worker.onmessage = (event: MessageEvent<Reply>) => {
        const reply = event.data;
        if (reply.is === "progress" || reply.is === "piece") onUpdate(reply);
        else if (reply.is === "failed") reject(new GPTEdgeError(reply.message, reply.hint));
        else resolve(reply);
      };
      worker.postMessage(request);
    });
  }

  private end(): void {
    this.worker?.terminate();
    this.worker = null;
    this.current = null;
    this.loaded = null;
  }
}

/** A worker that starts onnxruntime, and loads a model when it is asked to. */
export function startWorker(): Worker {
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}

function unexpected(reply: Reply): GPTEdgeError {
  return new GPTEdgeError(`the worker answered ${reply.is}, which was not asked for`);
}
