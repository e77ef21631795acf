/**
 * What gpt-edge needs of onnxruntime's JavaScript API, which onnxruntime-web and onnxruntime-node
 * share. The entry points hand in the one that runs.
 */

import type { Manifest } from "../bundle/manifest.js";

export type Numbers = Float32Array | BigInt64Array | Int32Array | Uint8Array;

export interface OrtTensor {
  readonly type: string;
  readonly data: Numbers;
  readonly dims: readonly number[];
  dispose?(): void;
}

export interface OrtSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(
    feeds: Record<string, OrtTensor>,
    fetches: readonly string[] | Record<string, OrtTensor | null>,
  ): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

export interface Ort {
  readonly Tensor: new (type: string, data: Numbers, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options?: Record<string, unknown>): Promise<OrtSession>;
  };
}

/** An onnxruntime and how it wants to be used. */
export interface Backend {
  readonly ort: Ort;
  /** Options of every session. */
  readonly options: Record<string, unknown>;
  /** Further options for a graph, as the processor and the graph need them. */
  optionsFor(
    model: Uint8Array<ArrayBuffer>,
    graph: Manifest["graph"],
  ): Promise<Record<string, unknown>>;
  /** Awaited before every call: lets messages and clicks in, where a call blocks its thread. */
  breathe(): Promise<void>;
  /** Whether outputs that are bound to inputs are written in place, which wasm never does. */
  readonly writesInPlace: boolean;
}
