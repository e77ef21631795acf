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
/** Read a manifest.json. Throws BundleError, which names `where`, the actual and the expected. */
export async function parseManifest(data, where) {
    if (data.length > MAX_MANIFEST_BYTES) {
        throw new BundleError(`${where} has more than ${MAX_MANIFEST_BYTES} bytes`);
    }
    let values;
    try {
        values = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
    }
    catch (error) {
        throw new BundleError(`${where} is not valid JSON: ${error.message}`, REBUILD);
    }
    if (!isObject(values))
        throw new BundleError(`${where} must hold a JSON object`, REBUILD);
    checkVersion(values, where);
    await checkOwnHash(values, data, where);
    checkFields(values, where);
    return values;
}
export function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}
function isWhole(value, least) {
    return typeof value === "number" && Number.isSafeInteger(value) && value >= least;
}
function checkVersion(values, where) {
    const version = values["format_version"];
    if (!isWhole(version, 1)) {
        throw new BundleError(`${where} has no format_version from 1 to ${FORMAT_VERSION}`, REBUILD);
    }
    if (version > FORMAT_VERSION) {
        throw new BundleError(`${where} is of format version ${version}, this gpt-edge reads versions up to ` +
            `${FORMAT_VERSION}`, "install a newer gpt-edge");
    }
}
/** The last line holds the SHA-256 of the file with zeros in its place. */
async function checkOwnHash(values, data, where) {
    const found = values["manifest_sha256"];
    if (typeof found !== "string" || !SHA256.test(found)) {
        throw new BundleError(`${where}: manifest_sha256 must be 64 lowercase hex digits`, REBUILD);
    }
    const text = new TextDecoder().decode(data);
    const at = text.lastIndexOf(found);
    const blank = text.slice(0, at) + "0".repeat(64) + text.slice(at + 64);
    const computed = await sha256(new TextEncoder().encode(blank));
    if (computed !== found) {
        throw new BundleError(`${where} was changed after it was written: its SHA-256 is ${computed.slice(0, 12)}, it ` +
            `says ${found.slice(0, 12)}`, REBUILD);
    }
}
function checkFields(values, where) {
    const fail = (message) => {
        throw new BundleError(`${where}: ${message}`, REBUILD);
    };
    if (values["kind"] !== "causal-lm" && values["kind"] !== "task") {
        fail(`kind must be causal-lm or task, got ${shown(values["kind"])}`);
    }
    if (values["graph"] !== "edge" && values["graph"] !== "portable") {
        fail(`graph must be edge or portable, got ${shown(values["graph"])}`);
    }
    const config = values["config"];
    if (!isObject(config))
        return fail("config must be an object");
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
function checkFiles(files, fail) {
    if (!isObject(files) || !("model.onnx" in files))
        fail("files must list model.onnx");
    const entries = Object.entries(files);
    if (entries.length > MAX_FILES)
        fail(`files must list at most ${MAX_FILES} files`);
    for (const [name, record] of entries) {
        if (!FILE_NAME.test(name) || name.toLowerCase() === MANIFEST_FILE) {
            fail(`a file must have a plain name of at most 80 characters, got ${shown(name)}`);
        }
        const isRecord = isObject(record) &&
            isWhole(record["size"], 0) &&
            typeof record["sha256"] === "string" &&
            SHA256.test(record["sha256"]);
        if (!isRecord)
            fail(`file ${name} must have a size and a sha256, got ${shown(record)}`);
    }
}
function shown(value) {
    return (JSON.stringify(value) ?? "nothing").slice(0, 80);
}
