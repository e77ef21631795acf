/** The worker in which a model runs, so that the page stays responsive. */

import { memoryBytes } from "./wasm_memory.js";
import * as ort from "../../ort/ort.wasm.min.mjs";
import { fetchFiles } from "../bundle/fetch_files.js";
import { GPTEdgeError } from "../errors.js";
import type { TokenLogprob } from "../generate/logprobs.js";
import type { SamplingParams } from "../generate/params.js";
import type { TextStream } from "../generate/text_stream.js";
import { Model } from "../model.js";
import { warmUp } from "../runtime/warm_up.js";
import { webBackend, type WebOrt } from "../runtime/web_backend.js";
import type { Alternative, Loaded, Reply, Request } from "./protocol.js";

const N_ALTERNATIVES = 5;
const runtime = ort as unknown as WebOrt;
const backend = webBackend(runtime);
void warmUp(backend);
let model: Model | null = null;
let stream: TextStream | null = null;

self.onmessage = (event: MessageEvent<Request>): void => {
  const request = event.data;
  if (request.do === "stop") {
    stream?.cancel();
    return;
  }
  answer(request).then(send, (error: unknown) => {
    const hint = error instanceof GPTEdgeError ? error.hint : null;
    send({ is: "failed", message: messageOf(error), hint });
  });
};

function send(reply: Reply): void {
  self.postMessage(reply);
}

function answer(request: Exclude<Request, { do: "stop" }>): Promise<Reply> {
  switch (request.do) {
    case "load":
      return load(request.url);
    case "generate":
      return generate(request.prompt, request.params);
    case "classify":
      return classify(request.texts);
  }
}

/** A memory of wasm only grows, so this worker loads one model and is ended with it. */
async function load(url: string): Promise<Reply> {
  const onProgress = (progress: Extract<Reply, { is: "progress" }>["progress"]): void =>
    send({ is: "progress", progress });
  model = await Model.load(url, fetchFiles(url), backend, { onProgress });
  const loaded: Loaded = {
    defaults: model.isClassifier ? {} : model.generationDefaults,
    task: model.manifest.task ?? null,
    context: model.manifest.config.n_ctx,
    threads: runtime.env.wasm.numThreads ?? 1,
    memoryBytes: memoryBytes(),
  };
  return { is: "loaded", loaded };
}

async function generate(prompt: string, params: SamplingParams): Promise<Reply> {
  const current = loadedModel();
  stream = current.stream(prompt, { ...params, logprobs: N_ALTERNATIVES }, { truncate: "left" });
  const spell = spellings(current);
  const started = performance.now();
  let firstTokenSeconds = 0;
  for await (const text of stream) {
    firstTokenSeconds ||= (performance.now() - started) / 1000;
    const latest = stream.logprobs.at(-1);
    const alternatives = latest === undefined ? [] : alternativesOf(latest, spell);
    send({ is: "piece", piece: { text, alternatives } });
  }
  const done = await stream.completion();
  stream = null;
  const n = done.ids.length;
  const summary = {
    reason: done.finish_reason,
    tokens: n,
    tokensPerSecond: n > 1 ? (n - 1) / done.decode_seconds : 0,
    firstTokenSeconds,
    ids: done.ids,
    memoryBytes: memoryBytes(),
  };
  return { is: "ended", summary };
}

async function classify(texts: readonly string[]): Promise<Reply> {
  const [prediction] = await loadedModel().classify([texts]);
  return { is: "prediction", prediction: prediction! };
}

function loadedModel(): Model {
  if (model === null) throw new GPTEdgeError("no model is loaded");
  return model;
}

/** The text of single tokens, remembered. */
function spellings(of: Model): (id: number) => string {
  const known = new Map<number, string>();
  return (id) => {
    const text = known.get(id) ?? of.tokenizer.decode([id]);
    known.set(id, text);
    return text;
  };
}

function alternativesOf(entry: TokenLogprob, spell: (id: number) => string): Alternative[] {
  const rows = entry.alternatives.map(([id, logprob]) => ({ id, logprob }));
  if (!rows.some(({ id }) => id === entry.id)) rows.push({ id: entry.id, logprob: entry.logprob });
  return rows.map(({ id, logprob }) => ({
    text: spell(id),
    probability: Math.exp(logprob),
    isChosen: id === entry.id,
  }));
}

function messageOf(error: unknown): string {
  if (error instanceof RangeError && /memory|allocation/i.test(error.message)) {
    return "this browser has no memory left for the model: close other pages, or load a smaller one";
  }
  return error instanceof Error ? error.message : String(error);
}
