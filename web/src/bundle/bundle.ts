/** Bundle: the files of a model, each read once and checked against the manifest's size and hash. */

import { BundleError } from "../errors.js";
import { checkGraph } from "./graph_check.js";
import { sha256 } from "./hash.js";
import type { WeightFile } from "./unpack_weights.js";
import { MANIFEST_FILE, type Manifest, parseManifest } from "./manifest.js";

export const GRAPH_FILE = "model.onnx";

/** Bytes of one file that have arrived. `stage`: "checked" once its hash was compared. */
export interface LoadProgress {
  readonly file: string;
  readonly loaded: number;
  readonly total: number;
  readonly stage: "loading" | "checked";
}

export type OnProgress = (progress: LoadProgress) => void;

/**
 * Reads one file of a bundle. `size`: the bytes to expect, or null for the manifest; a reader gives
 * up beyond it. Throws BundleError for a file that is not there.
 */
export type FileReader = (
  name: string,
  size: number | null,
  onBytes: (loaded: number) => void,
) => Promise<Uint8Array<ArrayBuffer>>;

export class Bundle {
  private constructor(
    readonly where: string,
    readonly manifest: Manifest,
    private readonly files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  ) {}

  /**
   * Read and check every file, the graph's operators among them. where: for messages. Throws
   * BundleError naming the file, what was found and what was expected; nothing reaches onnxruntime
   * before that.
   */
  static async open(
    where: string,
    read: FileReader,
    onProgress: OnProgress = () => undefined,
  ): Promise<Bundle> {
    const manifest = await parseManifest(
      await read(MANIFEST_FILE, null, () => undefined),
      `${where}/${MANIFEST_FILE}`,
    );
    const names = Object.keys(manifest.files);
    const contents = await Promise.all(
      names.map((name) => readChecked(where, manifest, name, read, onProgress)),
    );
    const files = new Map(names.map((name, index) => [name, contents[index]!]));
    const bundle = new Bundle(where, manifest, files);
    const sizes = new Map(bundle.weightFiles.map(({ path, data }) => [path, data.length]));
    const isEdge = manifest.graph === "edge";
    checkGraph(bundle.file(GRAPH_FILE), `${where}/${GRAPH_FILE}`, isEdge, sizes);
    return bundle;
  }

  /** The content of a file that the manifest lists. Throws BundleError for another. */
  file(name: string): Uint8Array<ArrayBuffer> {
    const content = this.files.get(name);
    if (content === undefined) throw new BundleError(`${this.where} has no file ${name}`);
    return content;
  }

  /** The files that hold the graph's weights: all but the graph and the texts. */
  get weightFiles(): WeightFile[] {
    return [...this.files]
      .filter(([name]) => name.startsWith(GRAPH_FILE) && name !== GRAPH_FILE)
      .map(([path, data]) => ({ path, data }));
  }

  get bytes(): number {
    return Object.values(this.manifest.files).reduce((sum, { size }) => sum + size, 0);
  }
}

async function readChecked(
  where: string,
  manifest: Manifest,
  name: string,
  read: FileReader,
  onProgress: OnProgress,
): Promise<Uint8Array<ArrayBuffer>> {
  const { size, sha256: expected } = manifest.files[name]!;
  const report = (stage: LoadProgress["stage"], loaded: number): void =>
    onProgress({ file: name, loaded, total: size, stage });
  report("loading", 0);
  const content = await read(name, size, (loaded) => report("loading", loaded));
  const hint = "copy the bundle again";
  if (content.length !== size) {
    throw new BundleError(
      `${where}/${name} has ${content.length} bytes, the manifest says ${size}`,
      hint,
    );
  }
  const computed = await sha256(content);
  if (computed !== expected) {
    throw new BundleError(
      `${where}/${name} is corrupt: its SHA-256 is ${computed.slice(0, 12)}, the manifest says ` +
        `${expected.slice(0, 12)}`,
      hint,
    );
  }
  report("checked", size);
  return content;
}
