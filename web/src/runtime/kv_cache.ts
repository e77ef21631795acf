/** KVCache: the keys and values of one sequence, and how a call gets and returns them. */

import type { GPTConfig, Manifest } from "../bundle/manifest.js";
import type { Backend, OrtTensor } from "./ort.js";

const HEAD_SIZE_MULTIPLE = 8; // GroupQueryAttention refuses other sizes
const FIRST_CAPACITY = 64;

/** Width of one head in the cache: the edge graph pads it to a multiple of 8. */
export function cacheHeadSize(config: GPTConfig, graph: Manifest["graph"]): number {
  const size = config.n_embd / config.n_head;
  if (graph === "portable") return size;
  return Math.ceil(size / HEAD_SIZE_MULTIPLE) * HEAD_SIZE_MULTIPLE;
}

/**
 * In wasm every call copies what goes in and out, so the past is exactly as long as the text and
 * the present of one call is the past of the next. Where outputs are written in place, past and
 * present of a layer are one array with room for more, which doubles when it is full.
 */
export class KVCache {
  length = 0;
  private capacity = 0;
  private tensors: OrtTensor[];

  constructor(
    private readonly backend: Backend,
    private readonly config: GPTConfig,
    private readonly graph: Manifest["graph"],
  ) {
    this.tensors = this.allocate(0);
  }

  /** Put the past into `feeds`, and the names or places of the present into `fetches`. */
  bind(
    total: number,
    feeds: Record<string, OrtTensor>,
    fetches: Record<string, OrtTensor | null>,
  ): void {
    const isInPlace = this.backend.writesInPlace && this.graph === "edge";
    if (isInPlace && total > this.capacity) this.grow(total);
    this.tensors.forEach((tensor, index) => {
      const [past, present] = names(index);
      feeds[past] = tensor;
      fetches[present] = isInPlace ? tensor : null;
    });
  }

  /** Take over the present of a call after which the text is `total` tokens long. */
  take(total: number, outputs: Record<string, OrtTensor>): void {
    this.tensors = this.tensors.map((_, index) => outputs[names(index)[1]]!);
    this.length = total;
  }

  private grow(total: number): void {
    let capacity = Math.max(FIRST_CAPACITY, this.capacity);
    while (capacity < total) capacity *= 2;
    const old = this.tensors;
    const before = this.capacity * cacheHeadSize(this.config, this.graph);
    this.capacity = Math.min(capacity, Math.max(total, this.config.n_ctx));
    const after = this.capacity * cacheHeadSize(this.config, this.graph);
    this.tensors = this.allocate(this.capacity);
    this.tensors.forEach((tensor, index) => {
      const from = old[index]!.data as Float32Array;
      for (let head = 0; head < this.config.n_head; head++) {
        const rows = from.subarray(head * before, (head + 1) * before);
        (tensor.data as Float32Array).set(rows, head * after);
      }
    });
  }

  private allocate(capacity: number): OrtTensor[] {
    const { n_layer, n_head } = this.config;
    const dims = [1, n_head, capacity, cacheHeadSize(this.config, this.graph)];
    const size = dims.reduce((product, dim) => product * dim, 1);
    return Array.from(
      { length: 2 * n_layer },
      () => new this.backend.ort.Tensor("float32", new Float32Array(size), dims),
    );
  }
}

function names(index: number): [past: string, present: string] {
  const part = `${index >> 1}.${index % 2 === 0 ? "key" : "value"}`;
  return [`past_key_values.${part}`, `present.${part}`];
}
