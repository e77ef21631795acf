/** Manifest: what `manifest.json` says about a bundle, and its strict reader. */

import { BundleError } from "../errors.js";
import { sha256 } from "./hash.js";

export const FORMAT_VERSION = 1;
export const MANIFEST_FILE = "manifest.json";
const MAX_MANIFEST_BYTES = 1 << 20;
const MAX_FILES = 64;
const FILE_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const REBUILD = "copy the bundle again, or rebuild it with gpt-edge export";

/** The shape of a model, by the names of `config` in the manifest; only what runs here is read. */
export interface GPTConfig {
  readonly n_layer: number;
  readonly n_head: number;
  readonly n_embd: number;
  readonly n_ctx: number;
  readonly vocab_size: number;
  readonly n_label?: number;
}

/** What a manifest says about the tokenizer; see docs/tokenizers.md of the Python package. */
export interface TokenizerSpec {
  readonly kind: string;
  readonly file: string;
  readonly vocab_size: number;
  readonly end_token: number | null;
  readonly special_tokens: Readonly<Record<string, number>>;
  readonly pattern: string | null;
  readonly add_prefix_space?: boolean;
  readonly prefix?: readonly number[];
  readonly token_rules?: Readonly<Record<string, readonly string[]>>;
}

/** A classifier's task; see `gpt_edge/tasks.py`. */
export interface TaskSpec {
  readonly kind: string;
  readonly labels: readonly string[];
  readonly start?: number;
  readonly delimiter?: number;
  readonly extract?: number;
  readonly score_range?: readonly [number, number] | null;
  readonly problem?: string;
  readonly pad?: number | null;
  /** What logits are divided by before they become probabilities. */
  readonly temperature?: number;
}

/** How a model's maker wants it to generate. */
export interface GenerationDefaults {
  readonly do_sample?: boolean;
  readonly temperature?: number;
  readonly top_k?: number;
  readonly top_p?: number;
  readonly min_p?: number;
  readonly typical_p?: number;
  readonly repetition_penalty?: number;
  readonly no_repeat_ngram_size?: number;
  readonly eos_token_id?: number | readonly number[];
}

export interface FileRecord {
  readonly size: number;
  readonly sha256: string;
}

export interface Manifest {
  readonly format_version: number;
  readonly kind: "causal-lm" | "task";
  readonly name: string;
  readonly graph: "edge" | "portable";
  readonly scheme: string;
  readonly config: GPTConfig;
  readonly tokenizer: TokenizerSpec | null;
  readonly task?: TaskSpec;
  readonly generation_defaults?: GenerationDefaults;
  readonly files: Readonly<Record<string, FileRecord>>;
}

/** Read a manifest.json. Throws BundleError, which names `where`, the actual and the expected. */
export async function parseManifest(data: Uint8Array, where: string): Promise<Manifest> {
  if (data.length > MAX_MANIFEST_BYTES) {
    throw new BundleError(`${where} has more than ${MAX_MANIFEST_BYTES} bytes`);
  }
  let values: unknown;
  try {
    values = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch (error) {
    throw new BundleError(`${where} is not valid JSON: ${(error as Error).message}`, REBUILD);
  }
  if (!isObject(values)) throw new BundleError(`${where} must hold a JSON object`, REBUILD);
  checkVersion(values, where);
  await checkOwnHash(values, data, where);
  checkFields(values, where);
  return values as unknown as Manifest;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isWhole(value: unknown, least: number): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= least;
}

function checkVersion(values: Record<string, unknown>, where: string): void {
  const version = values["format_version"];
  if (!isWhole(version, 1)) {
    throw new BundleError(`${where} has no format_version from 1 to ${FORMAT_VERSION}`, REBUILD);
  }
  if (version > FORMAT_VERSION) {
    throw new BundleError(
      `${where} is of format version ${version}, this gpt-edge reads versions up to ` +
        `${FORMAT_VERSION}`,
      "install a newer gpt-edge",
    );
  }
}

/** The last line holds the SHA-256 of the file with zeros in its place. */
async function checkOwnHash(
  values: Record<string, unknown>,
  data: Uint8Array,
  where: string,
): Promise<void> {
  const found = values["manifest_sha256"];
  if (typeof found !== "string" || !SHA256.test(found)) {
    throw new BundleError(`${where}: manifest_sha256 must be 64 lowercase hex digits`, REBUILD);
  }
  const text = new TextDecoder().decode(data);
  const at = text.lastIndexOf(found);
  const blank = text.slice(0, at) + "0".repeat(64) + text.slice(at + 64);
  const computed = await sha256(new TextEncoder().encode(blank));
  if (computed !== found) {
    throw new BundleError(
      `${where} was changed after it was written: its SHA-256 is ${computed.slice(0, 12)}, it ` +
        `says ${found.slice(0, 12)}`,
      REBUILD,
    );
  }
}

function checkFields(values: Record<string, unknown>, where: string): void {
  const fail = (message: string): never => {
    throw new BundleError(`${where}: ${message}`, REBUILD);
  };
  if (values["kind"] !== "causal-lm" && values["kind"] !== "task") {
    fail(`kind must be causal-lm or task, got ${shown(values["kind"])}`);
  }
  if (values["graph"] !== "edge" && values["graph"] !== "portable") {
    fail(`graph must be edge or portable, got ${shown(values["graph"])}`);
  }
  const config = values["config"];
  if (!isObject(config)) return fail("config must be an object");
  for (const name of ["n_layer", "n_head", "n_embd", "n_ctx", "vocab_size"]) {
    if (!isWhole(config[name], 1)) {
      fail(`config.${name} must be a whole number of 1 or more, got ${shown(config[name])}`);
    }
  }
  if ((values["kind"] === "task") !== isObject(values["task"])) {
    fail("kind task and a task must come together");
  }
  if (values["tokenizer"] !== null && !isObject(values["tokenizer"])) {
    fail("tokenizer must be an object or null");
  }
  checkFiles(values["files"], fail);
}

function checkFiles(files: unknown, fail: (message: string) => never): void {
  if (!isObject(files) || !("model.onnx" in files)) fail("files must list model.onnx");
  const entries = Object.entries(files as Record<string, unknown>);
  if (entries.length > MAX_FILES) fail(`files must list at most ${MAX_FILES} files`);
  for (const [name, record] of entries) {
    if (!FILE_NAME.test(name) || name.toLowerCase() === MANIFEST_FILE) {
      fail(`a file must have a plain name of at most 80 characters, got ${shown(name)}`);
    }
    const isRecord =
      isObject(record) &&
      isWhole(record["size"], 0) &&
      typeof record["sha256"] === "string" &&
      SHA256.test(record["sha256"]);
    if (!isRecord) fail(`file ${name} must have a size and a sha256, got ${shown(record)}`);
  }
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? "nothing").slice(0, 80);
}
