/** What the page and its worker say to each other, and what an engine offers the page. */

import type { LoadProgress } from "../bundle/bundle.js";
import type { TaskSpec } from "../bundle/manifest.js";
import type { Prediction } from "../classify/classifier.js";
import type { SamplingParams } from "../generate/params.js";

/** One of the models that the page may choose from; `task` of a classifier. */
export interface ModelEntry {
  readonly name: string;
  readonly kind: "causal-lm" | "task";
  readonly bytes: number | null;
  readonly scheme: string | null;
  readonly parameters: number | null;
}

/** `site.json`, which says where the models run: in this page, or on the server that sent it. */
export type Site =
  | { readonly engine: "wasm"; readonly version: string; readonly models: readonly ModelEntry[] }
  | { readonly engine: "server" };

/** A likely token in a token's place. */
export interface Alternative {
  readonly text: string;
  readonly probability: number;
  readonly isChosen: boolean;
}

/** Text that is certain, and what might have stood in place of the token that completed it. */
export interface Piece {
  readonly text: string;
  readonly alternatives: readonly Alternative[];
}

export interface Summary {
  readonly reason: string;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly firstTokenSeconds: number;
  readonly ids: readonly number[] | null;
  readonly memoryBytes: number | null;
}

export interface Loaded {
  readonly defaults: SamplingParams;
  readonly task: TaskSpec | null;
  readonly context: number | null;
  readonly threads: number | null;
  readonly memoryBytes: number | null;
}

/** Where models run. One thing happens at a time. */
export interface Engine {
  readonly models: readonly ModelEntry[];
  load(name: string, onProgress: (progress: LoadProgress) => void): Promise<Loaded>;
  /** Runs until the end or until `signal` is aborted, and says then how it ended. */
  generate(
    name: string,
    prompt: string,
    params: SamplingParams,
    onPiece: (piece: Piece) => void,
    signal: AbortSignal,
  ): Promise<Summary>;
  classify(name: string, texts: readonly string[]): Promise<Prediction>;
}

export type Request =
  | { readonly do: "load"; readonly url: string }
  | { readonly do: "generate"; readonly prompt: string; readonly params: SamplingParams }
  | { readonly do: "classify"; readonly texts: readonly string[] }
  | { readonly do: "stop" };

export type Reply =
  | { readonly is: "progress"; readonly progress: LoadProgress }
  | { readonly is: "loaded"; readonly loaded: Loaded }
  | { readonly is: "piece"; readonly piece: Piece }
  | { readonly is: "ended"; readonly summary: Summary }
  | { readonly is: "prediction"; readonly prediction: Prediction }
  | { readonly is: "failed"; readonly message: string; readonly hint: string | null };
