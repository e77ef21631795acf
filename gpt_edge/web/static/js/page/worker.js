// wasm_memory.js
var memories = [];
var Plain = WebAssembly.Memory;
WebAssembly.Memory = class extends Plain {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};
function memoryBytes() {
  return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

// worker.js
import * as ort from "../../ort/ort.wasm.min.mjs";

// ../errors.js
var GPTEdgeError = class extends Error {
  hint;
  constructor(message, hint = null) {
    super(message);
    this.name = new.target.name;
    this.hint = hint;
  }
};
var BundleError = class extends GPTEdgeError {
};
var TokenizerError = class extends GPTEdgeError {
};
var ContextLengthError = class extends GPTEdgeError {
};
var NumericError = class extends GPTEdgeError {
};

// ../bundle/fetch_files.js
var MAX_UNKNOWN = 1 << 20;
function fetchFiles(url) {
  const folder = url.replace(/\/+$/, "");
  return async (name, size, onBytes) => {
    const address = `${folder}/${name}`;
    let answer2;
    try {
      answer2 = await fetch(address);
    } catch (error) {
      throw new BundleError(`cannot fetch ${address}: ${error.message}`);
    }
    if (!answer2.ok || answer2.body === null) {
      throw new BundleError(`cannot fetch ${address}: the server answered ${answer2.status}`);
    }
    return collect(answer2.body, size, address, onBytes);
  };
}
async function collect(body, size, address, onBytes) {
  let content = new Uint8Array(size ?? MAX_UNKNOWN);
  let loaded = 0;
  const reader = body.getReader();
  for (; ; ) {
    const { value, done } = await reader.read().catch((error) => {
      throw new BundleError(`${address} broke off after ${loaded} bytes: ${error.message}`);
    });
    if (done)
      break;
    if (loaded + value.length > content.length) {
      void reader.cancel();
      throw new BundleError(`${address} has more than the ${content.length} bytes expected`);
    }
    content.set(value, loaded);
    loaded += value.length;
    onBytes(loaded);
  }
  if (loaded < content.length)
    content = content.slice(0, loaded);
  return content;
}

// ../bundle/onnx_wire.js
var WireError = class extends Error {
};
var NO_BYTES = new Uint8Array(0);
function* fields(message) {
  const reader = new VarintReader(message);
  while (!reader.isOver) {
    const start = reader.place;
    const key = reader.next();
    const number = Math.floor(key / 8);
    const kind = key % 8;
    if (kind === 0) {
      const varint2 = reader.next();
      yield { number, varint: varint2, bytes: NO_BYTES, whole: reader.since(start) };
    } else if (kind === 1 || kind === 2 || kind === 5) {
      const size = kind === 2 ? reader.next() : kind === 1 ? 8 : 4;
      yield { number, varint: null, bytes: reader.take(size), whole: reader.since(start) };
    } else {
      throw new WireError("an unknown kind of field");
    }
  }
}
function varints(packed) {
  const reader = new VarintReader(packed);
  const found = [];
  while (!reader.isOver)
    found.push(reader.next());
  return found;
}
function varintField(number, value) {
  return Uint8Array.from([...varint(number * 8), ...varint(value)]);
}
function lengthField(number, bytes) {
  return joined([Uint8Array.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
}
function textField(number, text) {
  return lengthField(number, new TextEncoder().encode(text));
}
function joined(parts) {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}
function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128))
    bytes.push(value % 128 + 128);
  return [...bytes, value];
}
var VarintReader = class {
  data;
  at = 0;
  constructor(data) {
    this.data = data;
  }
  get place() {
    return this.at;
  }
  since(start) {
    return this.data.subarray(start, this.at);
  }
  get isOver() {
    return this.at === this.data.length;
  }
  /** Exact below 2^53; a number beyond, and a negative one, is larger than any size of a file. */
  next() {
    let value = 0;
    for (let place = 1; place < 2 ** 70 && !this.isOver; place *= 128) {
      const byte = this.data[this.at++];
      value += (byte & 127) * place;
      if (byte < 128)
        return value;
    }
    throw new WireError("a number that does not end");
  }
  take(size) {
    if (size > this.data.length - this.at)
      throw new WireError("a field reaches beyond its message");
    const start = this.at;
    this.at += size;
    return this.data.subarray(start, this.at);
  }
};

// ../bundle/operator_list.js
var MICROSOFT = "com.microsoft";
var STANDARD_OPERATORS = /* @__PURE__ */ new Set([
  "Abs",
  "Add",
  "And",
  "Attention",
  "BitShift",
  "BitwiseAnd",
  "Cast",
  "Concat",
  "Constant",
  "DequantizeLinear",
  "DynamicQuantizeLinear",
  "Equal",
  "Expand",
  "Gather",
  "GatherND",
  "Gelu",
  "Gemm",
  "Greater",
  "LayerNormalization",
  "LessOrEqual",
  "MatMul",
  "MatMulInteger",
  "Max",
  "Mul",
  "Not",
  "Or",
  "QuantizeLinear",
  "Range",
  "ReduceMax",
  "ReduceMin",
  "ReduceSum",
  "Relu",
  "Reshape",
  "Shape",
  "Slice",
  "Squeeze",
  "Sub",
  "Transpose",
  "Unsqueeze"
]);
var MICROSOFT_OPERATORS = /* @__PURE__ */ new Set([
  "FastGelu",
  "FusedMatMul",
  "GatherBlockQuantized",
  "GroupQueryAttention",
  "MatMulIntegerToFloat",
  "MatMulNBits",
  "SkipLayerNormalization"
]);

// ../bundle/graph_check.js
var ELEMENT_BYTES = { 1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2 };
var ORT_MARK = [79, 82, 84, 77];
var REBUILD = "do not run it unless you know its maker: gpt-edge export writes no such graph";
function checkGraph(model2, where, isEdge, sizes) {
  try {
    new GraphCheck(isEdge, sizes).model(model2);
  } catch (error) {
    if (error instanceof WireError) {
      throw new BundleError(`${where} is no ONNX graph: ${error.message}`, "copy the bundle again");
    }
    if (error instanceof Refusal)
      throw new BundleError(`${where} ${error.message}`, REBUILD);
    throw error;
  }
}
var Refusal = class extends Error {
};
var GraphCheck = class {
  isEdge;
  sizes;
  constructor(isEdge, sizes) {
    this.isEdge = isEdge;
    this.sizes = sizes;
  }
  model(message) {
    if (ORT_MARK.every((byte, index) => message[4 + index] === byte)) {
      throw new Refusal("has the mark of an .ort file");
    }
    for (const { number, varint: varint2, bytes } of fields(message)) {
      if (varint2 !== null)
        continue;
      if (number === 7)
        this.graph(bytes);
      if (number === 8)
        this.operatorSet(bytes);
      if (number === 20)
        throw new Refusal("has a training step");
      if (number === 25)
        throw new Refusal("has a function of its own");
    }
  }
  operatorSet(message) {
    const domain = textOf(message, 1);
    if (domain === "" || this.isEdge && domain === MICROSOFT)
      return;
    throw new Refusal(`asks for the operators ${shown(domain)}`);
  }
  graph(message) {
    for (const { number, varint: varint2, bytes } of fields(message)) {
      if (varint2 !== null)
        continue;
      if (number === 1)
        this.node(bytes);
      if (number === 5)
        this.tensor(bytes, true);
      if (number === 15)
        throw new Refusal("has a sparse tensor");
    }
  }
  node(message) {
    const operator = textOf(message, 4);
    const domain = textOf(message, 7);
    const isKnown = domain === "" ? STANDARD_OPERATORS.has(operator) : this.isEdge && domain === MICROSOFT && MICROSOFT_OPERATORS.has(operator);
    if (!isKnown) {
      const of = domain === "" ? "" : ` of ${shown(domain)}`;
      throw new Refusal(`has the operator ${shown(operator)}${of}, which no export has`);
    }
    for (const { number, varint: varint2, bytes } of fields(message)) {
      if (number === 5 && varint2 === null)
        this.attribute(bytes);
    }
  }
  attribute(message) {
    for (const { number, varint: varint2, bytes } of fields(message)) {
      if (varint2 !== null)
        continue;
      if (number === 5 || number === 10)
        this.tensor(bytes, false);
      if (number === 6 || number === 11)
        throw new Refusal("has a graph in a graph");
      if (number === 22 || number === 23)
        throw new Refusal("has a sparse tensor");
    }
  }
  tensor(message, isWeight) {
    const all = [...fields(message)];
    const entries = new Map(all.filter((one) => isBytes(one, 13)).map(({ bytes }) => [textOf(bytes, 1), textOf(bytes, 2)]));
    const isOutside = all.some((one) => one.number === 14 && one.varint !== 0) || entries.size > 0;
    if (!isOutside)
      return;
    const name = textOf(message, 8);
    const what = `has weights ${shown(name)}`;
    if (!isWeight)
      throw new Refusal(`${what} of a node in a file`);
    if (all.some((one) => isBytes(one, 9)))
      throw new Refusal(`${what} in two places`);
    const location = entries.get("location") ?? "";
    const whole = this.sizes.get(location);
    if (whole === void 0) {
      throw new Refusal(`${what} in ${shown(location)}, which is no file of weights`);
    }
    const size = bytesOf(all, what);
    const length = entries.get("length");
    if (length !== void 0 && placeOf(length, what) !== size) {
      throw new Refusal(`${what} whose length is not that of their shape`);
    }
    if (placeOf(entries.get("offset") ?? "0", what) + size > whole) {
      throw new Refusal(`${what} that reach beyond the end of ${location}`);
    }
  }
};
function isBytes(field, number) {
  return field.number === number && field.varint === null;
}
function textOf(message, number) {
  let found = new Uint8Array(0);
  for (const field of fields(message)) {
    if (isBytes(field, number))
      found = Uint8Array.from(field.bytes);
  }
  return new TextDecoder().decode(found);
}
function bytesOf(tensor, what) {
  const type = tensor.findLast((one) => one.number === 2 && one.varint !== null)?.varint ?? 0;
  const element = ELEMENT_BYTES[type];
  if (element === void 0)
    throw new Refusal(`${what} of another type than exports write`);
  const dims = tensor.filter((one) => one.number === 1).flatMap(({ varint: varint2, bytes }) => varint2 === null ? varints(bytes) : [varint2]);
  const size = dims.reduce((product, dim) => product * dim, element);
  if (!Number.isSafeInteger(size))
    throw new Refusal(`${what} of no such shape`);
  return size;
}
function placeOf(text, what) {
  if (!/^[0-9]{1,15}$/.test(text))
    throw new Refusal(`${what} at a place that is no number`);
  return Number(text);
}
function shown(text) {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}

// ../bundle/hash.js
async function sha256(data) {
  const subtle = globalThis.crypto?.subtle;
  if (subtle === void 0) {
    throw new GPTEdgeError("this page cannot check its files: browsers offer SHA-256 to secure pages alone", "open it by https, or from localhost");
  }
  const digest = new Uint8Array(await subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ../bundle/manifest.js
var FORMAT_VERSION = 1;
var MANIFEST_FILE = "manifest.json";
var MAX_MANIFEST_BYTES = 1 << 20;
var MAX_FILES = 64;
var FILE_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$/;
var SHA256 = /^[0-9a-f]{64}$/;
var REBUILD2 = "copy the bundle again, or rebuild it with gpt-edge export";
async function parseManifest(data, where) {
  if (data.length > MAX_MANIFEST_BYTES) {
    throw new BundleError(`${where} has more than ${MAX_MANIFEST_BYTES} bytes`);
  }
  let values;
  try {
    values = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch (error) {
    throw new BundleError(`${where} is not valid JSON: ${error.message}`, REBUILD2);
  }
  if (!isObject(values))
    throw new BundleError(`${where} must hold a JSON object`, REBUILD2);
  checkVersion(values, where);
  await checkOwnHash(values, data, where);
  checkFields(values, where);
  return values;
}
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
function isWhole(value, least) {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= least;
}
function checkVersion(values, where) {
  const version = values["format_version"];
  if (!isWhole(version, 1)) {
    throw new BundleError(`${where} has no format_version from 1 to ${FORMAT_VERSION}`, REBUILD2);
  }
  if (version > FORMAT_VERSION) {
    throw new BundleError(`${where} is of format version ${version}, this gpt-edge reads versions up to ${FORMAT_VERSION}`, "install a newer gpt-edge");
  }
}
async function checkOwnHash(values, data, where) {
  const found = values["manifest_sha256"];
  if (typeof found !== "string" || !SHA256.test(found)) {
    throw new BundleError(`${where}: manifest_sha256 must be 64 lowercase hex digits`, REBUILD2);
  }
  const text = new TextDecoder().decode(data);
  const at = text.lastIndexOf(found);
  const blank = text.slice(0, at) + "0".repeat(64) + text.slice(at + 64);
  const computed = await sha256(new TextEncoder().encode(blank));
  if (computed !== found) {
    throw new BundleError(`${where} was changed after it was written: its SHA-256 is ${computed.slice(0, 12)}, it says ${found.slice(0, 12)}`, REBUILD2);
  }
}
function checkFields(values, where) {
  const fail = (message) => {
    throw new BundleError(`${where}: ${message}`, REBUILD2);
  };
  if (values["kind"] !== "causal-lm" && values["kind"] !== "task") {
    fail(`kind must be causal-lm or task, got ${shown2(values["kind"])}`);
  }
  if (values["graph"] !== "edge" && values["graph"] !== "portable") {
    fail(`graph must be edge or portable, got ${shown2(values["graph"])}`);
  }
  const config = values["config"];
  if (!isObject(config))
    return fail("config must be an object");
  for (const name of ["n_layer", "n_head", "n_embd", "n_ctx", "vocab_size"]) {
    if (!isWhole(config[name], 1)) {
      fail(`config.${name} must be a whole number of 1 or more, got ${shown2(config[name])}`);
    }
  }
  if (values["kind"] === "task" !== isObject(values["task"])) {
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
      fail(`a file must have a plain name of at most 80 characters, got ${shown2(name)}`);
    }
    const isRecord = isObject(record) && isWhole(record["size"], 0) && typeof record["sha256"] === "string" && SHA256.test(record["sha256"]);
    if (!isRecord)
      fail(`file ${name} must have a size and a sha256, got ${shown2(record)}`);
  }
}
function shown2(value) {
  return (JSON.stringify(value) ?? "nothing").slice(0, 80);
}

// ../bundle/bundle.js
var GRAPH_FILE = "model.onnx";
var Bundle = class _Bundle {
  where;
  manifest;
  files;
  constructor(where, manifest, files) {
    this.where = where;
    this.manifest = manifest;
    this.files = files;
  }
  /**
   * Read and check every file, the graph's operators among them. where: for messages. Throws
   * BundleError naming the file, what was found and what was expected; nothing reaches onnxruntime
   * before that.
   */
  static async open(where, read, onProgress = () => void 0) {
    const manifest = await parseManifest(await read(MANIFEST_FILE, null, () => void 0), `${where}/${MANIFEST_FILE}`);
    const names2 = Object.keys(manifest.files);
    const contents = await Promise.all(names2.map((name) => readChecked(where, manifest, name, read, onProgress)));
    const files = new Map(names2.map((name, index) => [name, contents[index]]));
    const bundle = new _Bundle(where, manifest, files);
    const sizes = new Map(bundle.weightFiles.map(({ path, data }) => [path, data.length]));
    const isEdge = manifest.graph === "edge";
    checkGraph(bundle.file(GRAPH_FILE), `${where}/${GRAPH_FILE}`, isEdge, sizes);
    return bundle;
  }
  /** The content of a file that the manifest lists. Throws BundleError for another. */
  file(name) {
    const content = this.files.get(name);
    if (content === void 0)
      throw new BundleError(`${this.where} has no file ${name}`);
    return content;
  }
  /** The files that hold the graph's weights: all but the graph and the texts. */
  get weightFiles() {
    return [...this.files].filter(([name]) => name.startsWith(GRAPH_FILE) && name !== GRAPH_FILE).map(([path, data]) => ({ path, data }));
  }
  get bytes() {
    return Object.values(this.manifest.files).reduce((sum, { size }) => sum + size, 0);
  }
};
async function readChecked(where, manifest, name, read, onProgress) {
  const { size, sha256: expected } = manifest.files[name];
  const report = (stage, loaded) => onProgress({ file: name, loaded, total: size, stage });
  report("loading", 0);
  const content = await read(name, size, (loaded) => report("loading", loaded));
  const hint = "copy the bundle again";
  if (content.length !== size) {
    throw new BundleError(`${where}/${name} has ${content.length} bytes, the manifest says ${size}`, hint);
  }
  const computed = await sha256(content);
  if (computed !== expected) {
    throw new BundleError(`${where}/${name} is corrupt: its SHA-256 is ${computed.slice(0, 12)}, the manifest says ${expected.slice(0, 12)}`, hint);
  }
  report("checked", size);
  return content;
}

// ../generate/prompt.js
function encodePrompt(text, tokenizer, config, maxNewTokens, options = {}) {
  if (typeof text !== "string")
    throw new TypeError(`prompt must be a string, got ${typeof text}`);
  const truncate = options.truncate ?? null;
  if (truncate === null)
    checkBytes("the prompt", text, tokenizer, config.n_ctx);
  let ids = tokenizer.encode(text, options.special ?? false);
  if (ids.length === 0) {
    if (tokenizer.endToken === null) {
      throw new RangeError("the prompt is empty, and this model has no end token to start a text from");
    }
    ids = [tokenizer.endToken];
  }
  const { n_ctx } = config;
  if (truncate === "left")
    return ids.slice(-Math.max(n_ctx - maxNewTokens, n_ctx >> 1, 1));
  if (ids.length > n_ctx)
    throw tooLong(`the prompt has ${ids.length} tokens`, n_ctx);
  return ids;
}
function checkBytes(what, text, tokenizer, nCtx) {
  const widest = tokenizer.maxTokenBytes;
  if (widest === null || text.length * 3 <= widest * nCtx)
    return;
  const nBytes = new TextEncoder().encode(text).length;
  if (nBytes > widest * nCtx)
    throw tooLong(`${what} has ${nBytes} bytes`, nCtx);
}
function tooLong(what, nCtx) {
  return new ContextLengthError(`${what}, the context of this model holds ${nCtx} tokens`, "shorten it");
}

// ../classify/tasks.js
var TOKENS = "token-classification";
var EMBEDDING = "embedding";
var PLAIN = ["text-classification", TOKENS];
function transform(task, texts2, nCtx) {
  checkNumber(task.kind, texts2.length);
  if (PLAIN.includes(task.kind)) {
    const kept2 = texts2[0].slice(0, nCtx);
    const nTruncated2 = texts2[0].length - kept2.length;
    return { sequences: [withoutPadding(kept2, task.pad ?? null)], nTruncated: nTruncated2 };
  }
  const nParts = task.kind === "classification" ? 1 : 2;
  const room = nCtx - 1 - nParts;
  let kept;
  let together;
  if (task.kind === "classification") {
    kept = [texts2[0].slice(0, room)];
    together = [kept];
  } else if (task.kind === "multiple-choice") {
    kept = cutChoices(texts2, room);
    together = kept.slice(1).map((answer2) => [kept[0], answer2]);
  } else {
    kept = cutPair(texts2[0], texts2[1], room);
    together = task.kind === "similarity" ? [kept, [...kept].reverse()] : [kept];
  }
  const nTruncated = total(texts2) - total(kept);
  return { sequences: together.map((parts) => sequence(task, parts)), nTruncated };
}
function checkNumber(kind, found) {
  const expected = kind === "entailment" || kind === "similarity" ? 2 : 1;
  if (kind === "multiple-choice" ? found < 3 : found !== expected) {
    const wanted = kind === "multiple-choice" ? "a context and at least 2 answers" : `${expected} text(s)`;
    throw new RangeError(`${kind} wants ${wanted}, got ${found}`);
  }
}
function sequence(task, parts) {
  const ids = [task.start];
  parts.forEach((part, index) => {
    if (index > 0)
      ids.push(task.delimiter);
    ids.push(...part);
  });
  ids.push(task.extract);
  return ids;
}
function withoutPadding(ids, pad) {
  let nKept = ids.length;
  while (nKept > 1 && ids[nKept - 1] === pad)
    nKept -= 1;
  return ids.slice(0, nKept);
}
function cutPair(first, second, room) {
  const half = Math.floor(room / 2);
  const nFirst = Math.min(first.length, Math.max(room - second.length, room - half));
  const nSecond = Math.min(second.length, room - nFirst);
  return [first.slice(0, nFirst), second.slice(0, nSecond)];
}
function cutChoices(texts2, room) {
  const [context, ...answers2] = texts2;
  const longest = Math.max(Math.floor(room / 2), room - context.length);
  const kept = answers2.map((answer2) => answer2.slice(0, longest));
  const nContext = Math.min(context.length, room - Math.max(...kept.map((answer2) => answer2.length)));
  return [context.slice(context.length - nContext), ...kept];
}
function total(texts2) {
  return texts2.reduce((sum, ids) => sum + ids.length, 0);
}

// ../classify/classifier.js
async function predict(example, task, session, tokenizer) {
  if (task.kind === EMBEDDING) {
    throw new RangeError("this model gives vectors of texts, no labels: use embed");
  }
  if (task.kind === TOKENS)
    throw new RangeError("this model labels tokens, not texts: use tag");
  const texts2 = typeof example === "string" ? [example] : example;
  const input = encodeTexts(texts2, tokenizer, session.config.n_ctx, task);
  const nTokens = input.sequences.reduce((sum, sequence2) => sum + sequence2.length, 0);
  const logits = await answers(task, session, input.sequences);
  if (!logits.every(Number.isFinite))
    throw new NumericError("the model gave NaN or infinite logits");
  return { ...prediction(task, logits, texts2), n_tokens: nTokens };
}
function encodeTexts(texts2, tokenizer, nCtx, task) {
  const ids = texts2.map((text) => {
    checkText(text);
    checkBytes("a text", text, tokenizer, nCtx);
    return tokenizer.encode(text);
  });
  const input = transform(task, ids, nCtx);
  if (input.nTruncated > 0)
    throw tooLong(`the text is ${input.nTruncated} tokens too long`, nCtx);
  return input;
}
function checkText(text) {
  if (typeof text !== "string" || text.trim() === "")
    throw new RangeError("a text is empty");
}
async function answers(task, session, sequences) {
  if (task.kind === "similarity")
    return [...await session.taskLogits(sequences)];
  const logits = [];
  for (const ids of sequences)
    logits.push(...await session.taskLogits([ids]));
  return logits;
}
function prediction(task, logits, texts2) {
  const range = task.score_range ?? null;
  if (range !== null || task.problem === "regression") {
    const [low, high] = range ?? [0, 1];
    const value = logits[0];
    const score = range === null ? value : low + (high - low) * sigmoid(value);
    return { label: null, labels: [], probabilities: [], score };
  }
  const labels = task.kind === "multiple-choice" ? texts2.slice(1) : task.labels;
  const values = logits.map((value) => value / (task.temperature ?? 1));
  const probabilities = task.problem === "multi-label" ? values.map(sigmoid) : softmax(values);
  const best = probabilities.indexOf(Math.max(...probabilities));
  return { label: labels[best], labels, probabilities, score: null };
}
function sigmoid(value) {
  return value >= 0 ? 1 / (1 + Math.exp(-value)) : Math.exp(value) / (1 + Math.exp(value));
}
function softmax(logits) {
  const largest = Math.max(...logits);
  const shares = logits.map((value) => Math.exp(value - largest));
  const sum = shares.reduce((total2, share) => total2 + share, 0);
  return shares.map((share) => share / sum);
}

// ../classify/embedder.js
async function embed(text, task, session, tokenizer, { pooling = "mean", normalize = true } = {}) {
  if (pooling !== "mean" && pooling !== "last") {
    throw new RangeError(`pooling must be "mean" or "last", got ${String(pooling)}`);
  }
  const isTrained = task?.kind === EMBEDDING;
  if (isTrained && pooling !== "mean") {
    throw new RangeError('this model was trained for the pooling "mean"');
  }
  const ids = encode(text, task, tokenizer, session.config.n_ctx);
  const copies = task?.kind === "similarity" ? [ids, ids] : [ids];
  const states = await (isTrained ? session.taskLogits([ids], true) : session.states(copies));
  const size = states.length / ids.length;
  const vector = pooling === "last" ? [...states.slice(-size)] : meanOf(states, size);
  if (!vector.every(Number.isFinite))
    throw new NumericError("the model gave NaN or infinite states");
  if (!normalize)
    return Float32Array.from(vector);
  const length = Math.hypot(...vector.map(Math.fround)) || 1;
  return Float32Array.from(vector, (value) => Math.fround(value) / length);
}
function encode(text, task, tokenizer, nCtx) {
  checkText(text);
  checkBytes("a text", text, tokenizer, nCtx);
  const isFramed = typeof task?.start === "number";
  const own = tokenizer.encode(text);
  const ids = isFramed ? [task.start, ...own, task.extract] : own;
  if (ids.length > nCtx)
    throw tooLong(`the text has ${ids.length} tokens`, nCtx);
  return ids;
}
function meanOf(rows, size) {
  const sums = new Array(size).fill(0);
  rows.forEach((value, place) => sums[place % size] += value);
  return sums.map((sum) => sum / (rows.length / size));
}

// ../classify/token_labels.js
async function tag(text, task, session, tokenizer) {
  if (task.kind !== TOKENS)
    throw new RangeError("this model labels texts, not tokens: use classify");
  const ids = encodeTexts([text], tokenizer, session.config.n_ctx, task).sequences[0];
  const spans = tokenSpans(tokenizer, text);
  const logits = await session.taskLogits([ids], true);
  const nLabels = task.labels.length;
  const found = [];
  spans.forEach((span, row) => {
    if (span === null)
      return;
    const shares = softmax([...logits.subarray(row * nLabels, (row + 1) * nLabels)]);
    const best = shares.indexOf(Math.max(...shares));
    const [start, end] = span;
    const label = { label: task.labels[best], probability: shares[best] };
    found.push({ text: text.slice(start, end), start, end, ...label });
  });
  return found;
}
function tokenSpans(tokenizer, text) {
  const n = tokenizer.prefixLength;
  const pieces = tokenizer.encode(text).slice(n).map((id) => tokenizer.tokenBytes(id));
  const joined2 = pieces.flatMap((piece) => [...piece]);
  const bytes = [];
  const spanOf = [];
  let at = 0;
  for (const character of text) {
    for (const byte of new TextEncoder().encode(character)) {
      bytes.push(byte);
      spanOf.push([at, at + character.length]);
    }
    at += character.length;
  }
  const nBefore = joined2.length - bytes.length;
  const expected = nBefore < 0 ? [] : [...new Array(nBefore).fill(32), ...bytes];
  if (joined2.length !== expected.length || joined2.some((byte, place) => byte !== expected[place])) {
    throw new TokenizerError("the tokens are no parts of the text, so they have no places in it");
  }
  let end = -nBefore;
  const spans = pieces.map((piece) => {
    const start = end;
    end += piece.length;
    const last = Math.max(start, end - 1);
    return [spanOf[Math.max(start, 0)]?.[0] ?? text.length, last < 0 ? 0 : spanOf[last][1]];
  });
  return [...new Array(n).fill(null), ...spans];
}

// ../generate/params.js
var DEFAULT_MAX_NEW_TOKENS = 400;
var DEFAULT_TEMPERATURE = 1;
var DEFAULT_TOP_K = 40;
var MAX_STOP_STRINGS = 4;
var MAX_STOP_CHARACTERS = 64;
var MAX_SEED = (1n << 64n) - 1n;
var NUMBERS = [
  ["temperature", "a finite number >= 0", (value) => value >= 0],
  ["top_p", "a number above 0, at most 1", (value) => value > 0 && value <= 1],
  ["min_p", "a number from 0 to 1", (value) => value >= 0 && value <= 1],
  ["typical_p", "a number above 0, at most 1", (value) => value > 0 && value <= 1],
  ["repetition_penalty", "a finite number above 0", (value) => value > 0],
  ["presence_penalty", "a finite number", () => true],
  ["frequency_penalty", "a finite number", () => true]
];
var WHOLE = [
  ["max_new_tokens", 1, Infinity],
  ["top_k", 1, Infinity],
  ["no_repeat_ngram_size", 0, Infinity],
  ["min_new_tokens", 0, Infinity],
  ["logprobs", 0, 100]
];
var DEFAULTS = {
  max_new_tokens: DEFAULT_MAX_NEW_TOKENS,
  temperature: null,
  top_k: null,
  top_p: null,
  min_p: null,
  typical_p: null,
  seed: null,
  stop: [],
  ignore_end_token: false,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  no_repeat_ngram_size: 0,
  logit_bias: {},
  bad_words: [],
  min_new_tokens: 0,
  stop_token_ids: [],
  logprobs: null
};
function checkedParams(params) {
  for (const name of Object.keys(params)) {
    if (!(name in DEFAULTS))
      throw new TypeError(`${name} is no setting of SamplingParams`);
  }
  const given = Object.entries(params).filter(([, value]) => value !== void 0);
  const values = { ...DEFAULTS, ...Object.fromEntries(given) };
  for (const [name, expected, isWithin] of NUMBERS) {
    const value = values[name];
    if (value === null && DEFAULTS[name] === null)
      continue;
    if (!(typeof value === "number" && Number.isFinite(value) && isWithin(value))) {
      throw new RangeError(`${name} must be ${expected}, got ${String(value)}`);
    }
  }
  for (const [name, least, most] of WHOLE)
    checkWhole(name, values[name], least, most);
  checkStop(values.stop);
  for (const [id, bias] of Object.entries(values.logit_bias)) {
    if (!/^\d+$/.test(id) || typeof bias !== "number" || !(bias < Infinity)) {
      throw new RangeError(`logit_bias must map token ids to finite numbers, or to -Infinity, got ${id}: ${bias}`);
    }
  }
  checkWords(values.bad_words);
  values.stop_token_ids.forEach((id) => checkWhole("stop_token_ids", id, 0, Infinity));
  return { ...values, seed: checkedSeed(values.seed), ...effective(values) };
}
function paramsFromDefaults(defaults, vocabSize) {
  if (defaults === void 0)
    return {};
  const params = {
    repetition_penalty: defaults.repetition_penalty ?? 1,
    no_repeat_ngram_size: defaults.no_repeat_ngram_size ?? 0
  };
  if (!defaults.do_sample)
    return params;
  return {
    ...params,
    temperature: defaults.temperature ?? DEFAULT_TEMPERATURE,
    top_k: defaults.top_k === 0 ? vocabSize : defaults.top_k ?? null,
    top_p: defaults.top_p ?? null,
    min_p: defaults.min_p ?? null,
    typical_p: defaults.typical_p ?? null
  };
}
function effective(values) {
  const { temperature, top_k, top_p, min_p, typical_p } = values;
  const truncates = [top_p, min_p, typical_p].some((value) => value !== null);
  const asks = truncates || temperature !== null || top_k !== null;
  return {
    is_greedy: temperature === 0 || !asks,
    effective_top_k: top_k ?? (truncates ? Infinity : DEFAULT_TOP_K),
    effective_temperature: temperature || DEFAULT_TEMPERATURE
  };
}
function checkWhole(name, value, least, most) {
  if (value === null && DEFAULTS[name] === null)
    return;
  const isWhole2 = typeof value === "number" && Number.isSafeInteger(value);
  if (!isWhole2 || value < least || value > most) {
    const bounds = most === Infinity ? `of ${least} or more` : `from ${least} to ${most}`;
    throw new RangeError(`${name} must be a whole number ${bounds}, got ${String(value)}`);
  }
}
function checkStop(stop) {
  if (!Array.isArray(stop) || stop.length > MAX_STOP_STRINGS) {
    throw new RangeError(`stop takes at most ${MAX_STOP_STRINGS} strings`);
  }
  for (const text of stop) {
    const length = typeof text === "string" ? [...text].length : 0;
    if (length < 1 || length > MAX_STOP_CHARACTERS) {
      throw new RangeError(`a stop string must have 1 to ${MAX_STOP_CHARACTERS} characters, got ${String(text)}`);
    }
  }
}
function checkWords(words) {
  if (!Array.isArray(words))
    throw new RangeError("bad_words must be texts or lists of token ids");
  for (const word of words) {
    const isWord = typeof word === "string" || Array.isArray(word);
    if (!isWord || word.length === 0) {
      throw new RangeError(`a bad word must be a text or a list of token ids, got ${String(word)}`);
    }
    if (typeof word !== "string")
      word.forEach((id) => checkWhole("bad_words", id, 0, Infinity));
  }
}
function checkedSeed(seed) {
  if (seed === null)
    return null;
  const isWhole2 = typeof seed === "bigint" || Number.isSafeInteger(seed);
  if (!isWhole2 || BigInt(seed) < 0n || BigInt(seed) > MAX_SEED) {
    throw new RangeError(`seed must be a whole number from 0 to ${MAX_SEED}, got ${String(seed)}`);
  }
  return BigInt(seed);
}

// ../bundle/unpack_weights.js
var FLOAT32 = 1;
var UINT8 = 2;
var INT8 = 3;
var INT64 = 7;
var MOST = 1 << 26;
var COMPUTED = /* @__PURE__ */ new Set(["Reshape", "Expand", "DequantizeLinear"]);
function unpackWeights(model2, files) {
  const outer = [...fields(model2)];
  const graph = outer.find((one) => one.number === 7 && one.varint === null);
  if (graph === void 0)
    return { model: model2, files };
  const unpacking = new Unpacking([...fields(graph.bytes)], files);
  if (!unpacking.run())
    return { model: model2, files };
  const rest = outer.filter((one) => one !== graph).map(({ whole }) => whole);
  return {
    model: joined([...rest, lengthField(7, unpacking.graph())]),
    files: [...files, ...unpacking.newFiles]
  };
}
var Unpacking = class {
  parts;
  files;
  newFiles = [];
  constants = /* @__PURE__ */ new Map();
  computed = /* @__PURE__ */ new Set();
  nodes = [];
  nWeights = 0;
  constructor(parts, files) {
    this.parts = parts;
    this.files = files;
  }
  /** Compute what can be computed. False where no weight is, or they are too many. */
  run() {
    for (const tensor of this.parts.filter((one) => one.number === 5))
      this.read(tensor.bytes);
    const levels = [...this.constants.values()].filter(({ type }) => type === UINT8 || type === INT8);
    if (levels.reduce((sum, { bytes }) => sum + bytes.length, 0) > MOST)
      return false;
    for (const whole of this.parts.filter((one) => one.number === 1)) {
      const node = nodeOf(whole.bytes);
      const value = COMPUTED.has(node.operator) ? this.valueOf(node) : null;
      if (value === null) {
        this.nodes.push(whole);
      } else {
        this.constants.set(node.output, value);
        this.computed.add(node.output);
      }
    }
    return this.nWeights > 0;
  }
  /** The graph without what was computed and what nothing reads any more. */
  graph() {
    const wanted = new Set(this.nodes.flatMap(({ bytes }) => nodeOf(bytes).inputs));
    const kept = this.parts.filter(({ number, bytes }) => number === 5 ? wanted.has(textOf2(bytes, 8)) : number !== 1);
    const added = [...this.computed].filter((name) => wanted.has(name)).map((name) => lengthField(5, this.tensor(name, this.constants.get(name))));
    return joined([...this.nodes.map(({ whole }) => whole), ...kept.map(({ whole }) => whole), ...added]);
  }
  /** A tensor whose bytes lie in a file of its own. */
  tensor(name, { type, dims, bytes }) {
    const path = `unpacked.${this.newFiles.length}`;
    this.newFiles.push({ path, data: bytes });
    const entry = (key, value) => lengthField(13, joined([textField(1, key), textField(2, value)]));
    return joined([
      ...dims.map((dim) => varintField(1, dim)),
      varintField(2, type),
      textField(8, name),
      entry("location", path),
      entry("offset", "0"),
      entry("length", String(bytes.length)),
      varintField(14, 1)
    ]);
  }
  /** Note an initializer whose bytes are in the graph or in a file. */
  read(tensor) {
    const all = [...fields(tensor)];
    const type = all.findLast(({ number, varint: varint2 }) => number === 2 && varint2 !== null)?.varint ?? 0;
    const dims = all.filter(({ number }) => number === 1).flatMap(({ varint: varint2, bytes: bytes2 }) => varint2 === null ? varints(bytes2) : [varint2]);
    const bytes = this.bytesOf(all);
    if (bytes !== null)
      this.constants.set(textOf2(tensor, 8), { type, dims, bytes });
  }
  bytesOf(tensor) {
    const entries = new Map(tensor.filter(({ number, varint: varint2 }) => number === 13 && varint2 === null).map(({ bytes }) => [textOf2(bytes, 1), textOf2(bytes, 2)]));
    if (entries.size === 0) {
      const raw = tensor.find(({ number, varint: varint2 }) => number === 9 && varint2 === null)?.bytes;
      return raw === void 0 ? null : raw.slice();
    }
    const file = this.files.find(({ path }) => path === entries.get("location"));
    const length = entries.get("length");
    if (file === void 0 || length === void 0)
      return null;
    const start = Number(entries.get("offset") ?? "0");
    return file.data.subarray(start, start + Number(length));
  }
  /** What a node computes; null where an input is no constant, or it is of another form. */
  valueOf({ operator, inputs, attributes }) {
    const [first, second, third] = inputs.map((name) => this.constants.get(name));
    if (first === void 0 || second === void 0)
      return null;
    if (operator === "DequantizeLinear") {
      if (inputs.length > 2 && third === void 0)
        return null;
      const value = dequantized(first, second, third, attributes);
      if (value !== null)
        this.nWeights += value.bytes.length / 4;
      return value;
    }
    if (second.type !== INT64)
      return null;
    const dims = [...new BigInt64Array(second.bytes.slice().buffer)].map(Number);
    const size = dims.reduce((product, dim) => product * dim, 1);
    if (operator === "Reshape") {
      const isSame = size === first.dims.reduce((product, dim) => product * dim, 1);
      return isSame && dims.every((dim) => dim > 0) ? { ...first, dims } : null;
    }
    if (first.type !== UINT8 || first.bytes.length !== 1 || !(size > 0 && size <= MOST))
      return null;
    return { type: UINT8, dims, bytes: new Uint8Array(size).fill(first.bytes[0]) };
  }
};
function dequantized(levels, scales, zeros, attributes) {
  const [height, width] = levels.dims;
  const block2 = attributes.get("block_size") ?? 0;
  const isKnown = levels.dims.length === 2 && (levels.type === UINT8 || levels.type === INT8) && scales.type === FLOAT32 && (attributes.get("axis") ?? 1) === 1 && (zeros === void 0 || zeros.type === levels.type && zeros.bytes.length === scales.bytes.length / 4);
  if (!isKnown || height * width > MOST)
    return null;
  const signed = levels.type === INT8;
  const from = signed ? asInt8(levels.bytes) : levels.bytes;
  const zero = zeros === void 0 ? null : signed ? asInt8(zeros.bytes) : zeros.bytes;
  const scale = new Float32Array(scales.bytes.slice().buffer);
  const result = new Float32Array(height * width);
  if (block2 > 0) {
    if (scale.length * block2 !== result.length || width % block2 !== 0)
      return null;
    for (let one = 0; one < scale.length; one++) {
      unpackBlock(from, result, one * block2, block2, scale[one], zero === null ? 0 : zero[one]);
    }
  } else {
    if (scale.length !== width || zero !== null)
      return null;
    for (let row = 0; row < height; row++)
      unpackRow(from, result, row * width, scale);
  }
  return { type: FLOAT32, dims: levels.dims, bytes: new Uint8Array(result.buffer) };
}
function unpackBlock(from, to, start, length, scale, zero) {
  for (let at = start; at < start + length; at++)
    to[at] = (from[at] - zero) * scale;
}
function unpackRow(from, to, start, scale) {
  for (let at = 0; at < scale.length; at++)
    to[start + at] = from[start + at] * scale[at];
}
function asInt8({ buffer, byteOffset, length }) {
  return new Int8Array(buffer, byteOffset, length);
}
function nodeOf(message) {
  const inputs = [];
  const attributes = /* @__PURE__ */ new Map();
  let output = "";
  let operator = "";
  for (const { number, varint: varint2, bytes } of fields(message)) {
    if (varint2 !== null)
      continue;
    if (number === 1)
      inputs.push(decoded(bytes));
    if (number === 2)
      output ||= decoded(bytes);
    if (number === 4)
      operator = decoded(bytes);
    if (number === 5) {
      const value = [...fields(bytes)].find((one) => one.number === 3 && one.varint !== null);
      if (value?.varint != null)
        attributes.set(textOf2(bytes, 1), value.varint);
    }
  }
  return { operator, inputs, output, attributes };
}
function textOf2(message, number) {
  const found = [...fields(message)].findLast((one) => one.number === number && one.varint === null);
  return found === void 0 ? "" : decoded(found.bytes);
}
var decoder = new TextDecoder();
function decoded(bytes) {
  return decoder.decode(bytes);
}

// ../runtime/kv_cache.js
var HEAD_SIZE_MULTIPLE = 8;
var FIRST_CAPACITY = 64;
function cacheHeadSize(config, graph) {
  const size = config.n_embd / config.n_head;
  if (graph === "portable")
    return size;
  return Math.ceil(size / HEAD_SIZE_MULTIPLE) * HEAD_SIZE_MULTIPLE;
}
var KVCache = class {
  backend;
  config;
  graph;
  length = 0;
  capacity = 0;
  tensors;
  constructor(backend2, config, graph) {
    this.backend = backend2;
    this.config = config;
    this.graph = graph;
    this.tensors = this.allocate(0);
  }
  /** Put the past into `feeds`, and the names or places of the present into `fetches`. */
  bind(total2, feeds, fetches) {
    const isInPlace = this.backend.writesInPlace && this.graph === "edge";
    if (isInPlace && total2 > this.capacity)
      this.grow(total2);
    this.tensors.forEach((tensor, index) => {
      const [past, present] = names(index);
      feeds[past] = tensor;
      fetches[present] = isInPlace ? tensor : null;
    });
  }
  /** Take over the present of a call after which the text is `total` tokens long. */
  take(total2, outputs) {
    this.tensors = this.tensors.map((_, index) => outputs[names(index)[1]]);
    this.length = total2;
  }
  grow(total2) {
    let capacity = Math.max(FIRST_CAPACITY, this.capacity);
    while (capacity < total2)
      capacity *= 2;
    const old = this.tensors;
    const before = this.capacity * cacheHeadSize(this.config, this.graph);
    this.capacity = Math.min(capacity, Math.max(total2, this.config.n_ctx));
    const after = this.capacity * cacheHeadSize(this.config, this.graph);
    this.tensors = this.allocate(this.capacity);
    this.tensors.forEach((tensor, index) => {
      const from = old[index].data;
      for (let head = 0; head < this.config.n_head; head++) {
        const rows = from.subarray(head * before, (head + 1) * before);
        tensor.data.set(rows, head * after);
      }
    });
  }
  allocate(capacity) {
    const { n_layer, n_head } = this.config;
    const dims = [1, n_head, capacity, cacheHeadSize(this.config, this.graph)];
    const size = dims.reduce((product, dim) => product * dim, 1);
    return Array.from({ length: 2 * n_layer }, () => new this.backend.ort.Tensor("float32", new Float32Array(size), dims));
  }
};
function names(index) {
  const part = `${index >> 1}.${index % 2 === 0 ? "key" : "value"}`;
  return [`past_key_values.${part}`, `present.${part}`];
}

// ../runtime/session.js
var PREFILL_CHUNK = 256;
var Session = class _Session {
  config;
  graph;
  backend;
  session;
  isClosed = false;
  constructor(config, graph, backend2, session) {
    this.config = config;
    this.graph = graph;
    this.backend = backend2;
    this.session = session;
  }
  /** Start the graph. Throws BundleError for one that onnxruntime refuses. */
  static async start(bundle, backend2) {
    const { config, graph } = bundle.manifest;
    const { model: model2, files } = unpackWeights(bundle.file(GRAPH_FILE), bundle.weightFiles);
    let session;
    try {
      session = await backend2.ort.InferenceSession.create(model2, {
        ...backend2.options,
        ...await backend2.optionsFor(model2, graph),
        externalData: files
      });
    } catch (error) {
      throw new BundleError(`onnxruntime cannot load ${bundle.where}: ${causeOf(error)}`);
    }
    const missing = ["input_ids"].filter((name) => !session.inputNames.includes(name));
    if (missing.length > 0 || !session.outputNames.includes("logits")) {
      throw new BundleError(`${bundle.where} has no inputs and outputs of a ${graph} graph`);
    }
    return new _Session(config, graph, backend2, session);
  }
  newCache() {
    return new KVCache(this.backend, this.config, this.graph);
  }
  /** Append ids to the cache's text; the logits float32 [V] after the last of them. */
  async append(ids, cache) {
    const past = cache.length;
    const total2 = past + ids.length;
    const feeds = {
      ...this.idFeeds([ids], total2),
      position_ids: this.int64(Array.from(ids, (_, index) => past + index), [1, ids.length]),
      ...this.graph === "edge" ? { logit_rows: this.int64([ids.length - 1], [1, 1]) } : {}
    };
    const fetches = { logits: null };
    cache.bind(total2, feeds, fetches);
    const outputs = await this.run(feeds, fetches);
    cache.take(total2, outputs);
    const logits = outputs["logits"].data;
    return logits.slice(logits.length - this.config.vocab_size);
  }
  /**
   * A task's logits of one sequence, or of similarity's two orders, padded at their ends: float32
   * [n_label], or [T, n_label] where every row is asked for.
   */
  async taskLogits(sequences, everyRow = false) {
    const width = Math.max(...sequences.map((ids) => ids.length));
    const padded = sequences.map((ids) => [...ids, ...new Array(width - ids.length).fill(0)]);
    const feeds = this.idFeeds(padded, width, sequences.map((ids) => ids.length));
    if (this.graph === "edge") {
      const rows = everyRow ? sequences.map(() => Array.from({ length: width }, (_, row) => row)) : sequences.map((ids) => [ids.length - 1]);
      feeds["logit_rows"] = this.int64(rows.flat(), [sequences.length, rows[0].length]);
    }
    const { logits } = await this.run(feeds, { logits: null });
    return logits.data.slice();
  }
  /**
   * Hidden states after the final norm, float32 [T, n_embd], of the first of some equal sequences.
   * Throws BundleError for a graph that gives none.
   */
  async states(sequences) {
    if (!this.session.outputNames.includes("hidden_states")) {
      throw new BundleError("the bundle gives no hidden states: gpt-edge did not make it, or an older one did", "make it again with gpt-edge export");
    }
    const hasPast = this.session.inputNames.includes("past_key_values.0.key");
    const width = sequences[0].length;
    const places = Array.from({ length: width }, (_, place) => place);
    const rows = hasPast ? [0] : places;
    const feeds = {
      ...this.idFeeds(sequences, width),
      position_ids: this.int64(sequences.flatMap(() => places), [sequences.length, width]),
      logit_rows: this.int64(sequences.flatMap(() => rows), [sequences.length, rows.length])
    };
    const fetches = { hidden_states: null };
    if (hasPast)
      this.newCache().bind(width, feeds, fetches);
    const { hidden_states } = await this.run(feeds, fetches);
    return hidden_states.data.slice(0, width * this.config.n_embd);
  }
  /** Let go of the weights; using it afterwards is an error. */
  async close() {
    if (this.isClosed)
      return;
    this.isClosed = true;
    await this.session.release();
  }
  idFeeds(rows, total2, lengths = rows.map(() => total2)) {
    const { Tensor } = this.backend.ort;
    const width = rows[0].length;
    const ids = this.int64(rows.flat(), [rows.length, width]);
    if (this.graph === "portable") {
      const mask = lengths.flatMap((length) => Array.from({ length: total2 }, (_, place) => place < length ? 1 : 0));
      return { input_ids: ids, attention_mask: this.int64(mask, [rows.length, total2]) };
    }
    return {
      input_ids: ids,
      seqlens_k: new Tensor("int32", Int32Array.from(lengths, (length) => length - 1), [rows.length]),
      total_sequence_length: new Tensor("int32", Int32Array.of(total2), [1])
    };
  }
  int64(values, dims) {
    return new this.backend.ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
  }
  async run(feeds, fetches) {
    if (this.isClosed)
      throw new GPTEdgeError("the model is closed: load it again");
    const known = Object.entries(feeds).filter(([name]) => this.session.inputNames.includes(name));
    const places = this.backend.writesInPlace ? fetches : Object.keys(fetches);
    await this.backend.breathe();
    try {
      return await this.session.run(Object.fromEntries(known), places);
    } catch (error) {
      throw new GPTEdgeError(`onnxruntime failed: ${causeOf(error)}`, "where memory is short, close other pages and load this one again");
    }
  }
};
function causeOf(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ").trim();
  return text.length <= 300 ? text : `...${text.slice(-300).trimStart()}`;
}

// ../generate/logits.js
function largestId(row) {
  let best = 0;
  for (let id = 1; id < row.length; id++)
    if (row[id] > row[best])
      best = id;
  checkSound(row);
  return best;
}
function checkSound(row) {
  let hasFinite = false;
  for (let id = 0; id < row.length; id++) {
    const value = row[id];
    if (value < Infinity) {
      hasFinite ||= value > -Infinity;
      continue;
    }
    throw unsound(`${value} at token ${id}`);
  }
  if (!hasFinite)
    throw unsound("-inf for every token");
}
function unsound(what) {
  return new NumericError(`the model's logits hold ${what}; finite numbers are expected, so no token can be chosen`, "the weights are corrupt or overflow: run gpt-edge verify on the bundle");
}
function topKIds(row, k) {
  if (k >= row.length)
    return Int32Array.from(row, (_, id) => id);
  const limit = kthLargest(row, k);
  let nAbove = 0;
  for (const value of row)
    if (value > limit)
      nAbove += 1;
  const ids = new Int32Array(k);
  let nTies = k - nAbove;
  let n = 0;
  for (let id = 0; id < row.length && n < k; id++) {
    const value = row[id];
    if (value > limit)
      ids[n++] = id;
    else if (value === limit && nTies > 0) {
      nTies -= 1;
      ids[n++] = id;
    }
  }
  return ids;
}
function kthLargest(row, k) {
  const heap = row.slice(0, k).sort();
  for (let id = k; id < row.length; id++) {
    const value = row[id];
    if (value <= heap[0])
      continue;
    let place = 0;
    for (; ; ) {
      let child = 2 * place + 1;
      if (child >= k)
        break;
      if (child + 1 < k && heap[child + 1] < heap[child])
        child += 1;
      if (heap[child] >= value)
        break;
      heap[place] = heap[child];
      place = child;
    }
    heap[place] = value;
  }
  return heap[0];
}
function scaledValues(row, ids, temperature) {
  const values = Float64Array.from(ids, (id) => row[id]);
  let largest = -Infinity;
  for (const value of values)
    if (value > largest)
      largest = value;
  for (let index = 0; index < values.length; index++) {
    values[index] = (values[index] - largest) / temperature;
  }
  return values;
}
function cumulativeSums(values) {
  const sums = new Float64Array(values.length);
  let sum = 0;
  for (let index = 0; index < values.length; index++) {
    sum += values[index];
    sums[index] = sum;
  }
  return sums;
}

// ../generate/logprobs.js
function tokenLogprob(row, id, nAlternatives) {
  let largest = -Infinity;
  for (const value of row)
    if (value > largest)
      largest = value;
  let sum = 0;
  for (const value of row)
    sum += Math.exp(value - largest);
  const logTotal = Math.log(sum);
  const logprob = (of) => row[of] - largest - logTotal;
  const likeliest = nAlternatives > 0 ? [...topKIds(row, nAlternatives)] : [];
  likeliest.sort((one, other) => row[other] - row[one] || one - other);
  return {
    id,
    logprob: logprob(id),
    alternatives: likeliest.map((other) => [other, logprob(other)])
  };
}

// ../generate/penalties.js
var f32 = Math.fround;
var LEADING_SPACE = /^[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;
function buildProcessors(params, nPrompt, tokenizer, endTokens) {
  const biases = Object.entries(params.logit_bias).map(([id, bias]) => [Number(id), bias]);
  const size = tokenizer.vocabSize;
  checkIds("logit_bias", biases.map(([id]) => id), size);
  checkIds("stop_token_ids", params.stop_token_ids, size);
  const processors = [];
  if (biases.length > 0)
    processors.push(addBias(biases));
  if (params.repetition_penalty !== 1)
    processors.push(penalizeRepetition(params.repetition_penalty));
  if (params.presence_penalty !== 0 || params.frequency_penalty !== 0) {
    processors.push(penalizeCounts(params.presence_penalty, params.frequency_penalty, nPrompt));
  }
  if (params.no_repeat_ngram_size > 0)
    processors.push(banRepeats(params.no_repeat_ngram_size));
  if (params.bad_words.length > 0) {
    const sequences = badSequences(params.bad_words, tokenizer);
    checkIds("bad_words", sequences.flat(), size);
    processors.push(banWords(sequences));
  }
  if (params.min_new_tokens > 0 && endTokens.size > 0) {
    processors.push(banEnd(params.min_new_tokens, nPrompt, endTokens));
  }
  return processors;
}
function addBias(biases) {
  return (_, row) => {
    const changed = row.slice();
    for (const [id, bias] of biases)
      changed[id] = f32(changed[id] + f32(bias));
    return changed;
  };
}
function penalizeRepetition(penalty) {
  const factor = f32(penalty);
  return (history, row) => {
    const changed = row.slice();
    for (const id of new Set(history)) {
      const value = row[id];
      changed[id] = value < 0 ? f32(value * factor) : f32(value / factor);
    }
    return changed;
  };
}
function penalizeCounts(presence, frequency, nPrompt) {
  return (history, row) => {
    const counts = /* @__PURE__ */ new Map();
    for (const id of history.slice(nPrompt))
      counts.set(id, (counts.get(id) ?? 0) + 1);
    const changed = row.slice();
    for (const [id, times] of counts) {
      const penalty = f32(f32(presence) + f32(times * f32(frequency)));
      changed[id] = f32(changed[id] - penalty);
    }
    return changed;
  };
}
function banRepeats(n) {
  return (history, row) => {
    const changed = row.slice();
    const tail = history.length - n + 1;
    for (let start = 0; start < tail; start++) {
      let isSame = true;
      for (let place = 0; place < n - 1; place++) {
        isSame &&= history[start + place] === history[tail + place];
      }
      if (isSame)
        changed[history[start + n - 1]] = -Infinity;
    }
    return changed;
  };
}
function badSequences(words, tokenizer) {
  const sequences = words.flatMap((word) => typeof word === "string" ? [word, ` ${word.replace(LEADING_SPACE, "")}`].map((text) => tokenizer.encodePart(text)) : [[...word]]);
  return sequences.filter((ids) => ids.length > 0);
}
function banWords(sequences) {
  return (history, row) => {
    const changed = row.slice();
    for (const ids of sequences) {
      const start = ids.slice(0, -1);
      const from = history.length - start.length;
      if (from >= 0 && start.every((id, place) => history[from + place] === id)) {
        changed[ids.at(-1)] = -Infinity;
      }
    }
    return changed;
  };
}
function banEnd(n, nPrompt, endTokens) {
  return (history, row) => {
    if (history.length - nPrompt >= n)
      return row;
    const changed = row.slice();
    for (const id of endTokens)
      changed[id] = -Infinity;
    return changed;
  };
}
function checkIds(name, ids, vocabSize) {
  for (const id of ids) {
    if (id >= vocabSize) {
      throw new RangeError(`${name} names token ${id}, but the vocabulary's tokens are 0 to ${vocabSize - 1}`);
    }
  }
}

// ../generate/philox.js
var MASK = (1n << 64n) - 1n;
var Philox = class {
  seed;
  counter = 0n;
  rest = [];
  /** seed: 0 to 2**64 - 1. */
  constructor(seed) {
    this.seed = seed;
  }
  next() {
    if (this.rest.length === 0) {
      this.counter += 1n;
      this.rest = block(this.seed, this.counter);
    }
    return this.rest.shift();
  }
  /** A float64 in [0, 1) from the top 53 bits of the next integer. */
  uniform() {
    return Number(this.next() >> 11n) * 2 ** -53;
  }
};
function block(seed, counter) {
  let [a, b, c, d] = [counter & MASK, counter >> 64n & MASK, 0n, 0n];
  let [key0, key1] = [seed & MASK, 0n];
  for (let round = 0; round < 10; round++) {
    const low = 0xd2e7470ee14c6c93n * a;
    const high = 0xca5a826395121157n * c;
    [a, b, c, d] = [high >> 64n ^ b ^ key0, high & MASK, low >> 64n ^ d ^ key1, low & MASK];
    key0 = key0 + 0x9e3779b97f4a7c15n & MASK;
    key1 = key1 + 0xbb67ae8584caa73bn & MASK;
  }
  return [a, b, c, d];
}

// ../generate/truncation.js
function topPMask(values, topP) {
  const probabilities = values.map(Math.exp);
  const total2 = cumulativeSums(probabilities).at(-1);
  const floor = (1 - topP) / 2 * total2 / values.length;
  const likely = probabilities.filter((value) => value > floor).sort().reverse();
  let n = 0;
  let before = 0;
  while (n < likely.length && before < topP * total2) {
    before += likely[n];
    n += 1;
  }
  return largestMask(probabilities, likely[n - 1], n);
}
function minPMask(values, minP) {
  return Array.from(values, (value) => Math.exp(value) >= minP);
}
function typicalMask(values, mass) {
  const probabilities = values.map(Math.exp);
  const logTotal = Math.log(cumulativeSums(probabilities).at(-1));
  const total2 = Math.exp(logTotal);
  const shares = probabilities.map((value) => value / total2);
  const surprise = values.map((value) => logTotal - value);
  const terms = shares.map((share, index) => share > 0 ? share * surprise[index] : 0);
  const expected = cumulativeSums(terms).at(-1);
  const distance = surprise.map((value) => Math.abs(value - expected));
  const order = Array.from(distance, (_, index) => index).sort((one, other) => distance[one] - distance[other] || one - other);
  const sums = cumulativeSums(Float64Array.from(order, (index) => shares[index]));
  const nBelow = sums.findIndex((sum) => !(sum < mass));
  const last = nBelow < 0 ? order.length - 1 : nBelow;
  const limit = distance[order[last]];
  return Array.from(distance, (value, index) => value <= limit && shares[index] > 0);
}
function largestMask(probabilities, limit, n) {
  const kept = Array.from(probabilities, (value) => value > limit);
  let nTies = n - kept.filter(Boolean).length;
  for (let index = 0; index < kept.length && nTies > 0; index++) {
    if (probabilities[index] === limit) {
      kept[index] = true;
      nTies -= 1;
    }
  }
  return kept;
}

// ../generate/sampler.js
var Sampler = class {
  params;
  processors;
  seed;
  random;
  truncations = [];
  constructor(params, processors) {
    this.params = params;
    this.processors = processors;
    this.seed = params.seed ?? drawnSeed();
    this.random = new Philox(this.seed);
    const { top_p, min_p, typical_p } = params;
    if (top_p !== null && top_p < 1)
      this.truncations.push((values) => topPMask(values, top_p));
    if (min_p)
      this.truncations.push((values) => minPMask(values, min_p));
    if (typical_p !== null && typical_p < 1) {
      this.truncations.push((values) => typicalMask(values, typical_p));
    }
  }
  /**
   * A token id whose probability is above 0. history: the ids before, the prompt's included.
   * Throws NumericError for NaN or +inf anywhere, or -inf everywhere.
   */
  sample(logits, history) {
    let row = logits;
    if (this.processors.length > 0) {
      checkSound(row);
      for (const process of this.processors)
        row = process(history, row);
      if (!row.some((value) => value > -Infinity)) {
        throw new NumericError("-inf for every token is what the logits processors leave, so no token can be chosen", "loosen logit_bias or no_repeat_ngram_size");
      }
    }
    if (this.params.is_greedy || this.params.top_k === 1)
      return largestId(row);
    checkSound(row);
    let ids = topKIds(row, this.params.effective_top_k);
    let values = scaledValues(row, ids, this.params.effective_temperature);
    for (const truncate of this.truncations) {
      const kept = truncate(values);
      ids = ids.filter((_, index) => kept[index]);
      values = values.filter((_, index) => kept[index]);
    }
    return ids[this.draw(values)];
  }
  /** An index, with the probabilities of softmax(values), by inverting their cumulative sum. */
  draw(values) {
    let largest = -Infinity;
    for (const value of values)
      if (value > largest)
        largest = value;
    const sums = cumulativeSums(values.map((value) => Math.exp(value - largest)));
    const total2 = sums.at(-1);
    const limit = this.random.uniform() * total2;
    const index = sums.findIndex((sum) => sum > limit);
    return index >= 0 ? index : sums.findIndex((sum) => sum >= total2);
  }
};
function drawnSeed() {
  return crypto.getRandomValues(new BigUint64Array(1))[0];
}

// ../generate/stop_strings.js
var StopMatcher = class {
  stops;
  held = "";
  isFound = false;
  constructor(stops) {
    this.stops = stops.map((text) => ({ text, borders: bordersOf(text), matched: 0 }));
  }
  /** The text that is certain to come before any stop string; "" once one was found. */
  push(piece) {
    if (this.stops.length === 0 || this.isFound)
      return this.isFound ? "" : piece;
    const text = this.held + piece;
    for (let index = this.held.length; index < text.length; index++) {
      const length = this.advance(text[index]);
      if (length > 0) {
        this.isFound = true;
        this.held = "";
        return text.slice(0, index + 1 - length);
      }
    }
    const certain = text.length - Math.max(...this.stops.map((stop) => stop.matched));
    this.held = text.slice(certain);
    return text.slice(0, certain);
  }
  /** What was held back: the text has ended, so it is no stop string. */
  flush() {
    const rest = this.held;
    this.held = "";
    return rest;
  }
  /** Length of the longest stop string that ends with `unit`, 0 for none. */
  advance(unit) {
    let longest = 0;
    for (const stop of this.stops) {
      let matched = stop.matched;
      while (matched > 0 && stop.text[matched] !== unit)
        matched = stop.borders[matched - 1];
      if (stop.text[matched] === unit)
        matched += 1;
      stop.matched = matched;
      if (matched === stop.text.length)
        longest = Math.max(longest, matched);
    }
    return longest;
  }
};
function bordersOf(stop) {
  const borders = new Array(stop.length).fill(0);
  let length = 0;
  for (let place = 1; place < stop.length; place++) {
    while (length > 0 && stop[place] !== stop[length])
      length = borders[length - 1];
    if (stop[place] === stop[length])
      length += 1;
    borders[place] = length;
  }
  return borders;
}

// ../generate/text_stream.js
var TextStream = class {
  session;
  tokenizer;
  prompt;
  ids = [];
  logprobs = [];
  text = "";
  reason = null;
  isOver = false;
  isCancelled = false;
  prefillSeconds = 0;
  decodeSeconds = 0;
  params;
  history;
  sampler;
  endTokens;
  detokenizer;
  stops;
  cache;
  room;
  step = Promise.resolve({ value: "", done: false });
  /** prompt: ids, at least one and at most a context full. endTokens: the model's own. */
  constructor(session, tokenizer, prompt, params, endTokens) {
    this.session = session;
    this.tokenizer = tokenizer;
    this.prompt = prompt;
    this.params = checkedParams(params);
    const own = this.params.ignore_end_token ? [] : endTokens;
    this.endTokens = /* @__PURE__ */ new Set([...own, ...this.params.stop_token_ids]);
    this.history = [...prompt];
    const processors = buildProcessors(this.params, prompt.length, tokenizer, this.endTokens);
    this.sampler = new Sampler(this.params, processors);
    this.detokenizer = tokenizer.detokenizer();
    this.stops = new StopMatcher(this.params.stop);
    this.cache = session.newCache();
    this.room = session.config.n_ctx - prompt.length + 1;
  }
  /** The seed in use; null when greedy. */
  get seed() {
    return this.params.is_greedy ? null : this.sampler.seed;
  }
  /** null until the last piece was yielded. */
  get finish_reason() {
    return this.isOver ? this.reason : null;
  }
  [Symbol.asyncIterator]() {
    return this;
  }
  /** Calls wait for one another. */
  next() {
    const step = this.step.catch(() => void 0).then(() => this.nextPiece());
    this.step = step;
    return step;
  }
  /** Ends it, as leaving a `for await` loop does. */
  async return() {
    this.reason ??= "cancelled";
    this.isOver = true;
    return { value: void 0, done: true };
  }
  /** End it before its next token; text that waits for what follows is still yielded. */
  cancel() {
    this.isCancelled = true;
  }
  /** The whole result. Reads the rest first, if there is one. */
  async completion() {
    while (!(await this.next()).done)
      ;
    return {
      text: this.text,
      ids: this.ids,
      finish_reason: this.reason ?? "cancelled",
      prompt_tokens: this.prompt.length,
      seed: this.seed,
      prefill_seconds: this.prefillSeconds,
      decode_seconds: this.decodeSeconds,
      logprobs: this.params.logprobs === null ? null : this.logprobs
    };
  }
  async nextPiece() {
    try {
      while (!this.isOver) {
        const piece = await this.advance();
        this.text += piece;
        if (piece !== "")
          return { value: piece, done: false };
      }
    } catch (error) {
      this.isOver = true;
      throw error;
    }
    return { value: void 0, done: true };
  }
  /** The text of the next token, often "", or at the end the text that was held back. */
  async advance() {
    const id = this.reason === null ? await this.nextId() : null;
    let piece;
    if (id !== null) {
      piece = this.stops.push(this.detokenizer.push(id));
    } else {
      piece = this.stops.push(this.detokenizer.flush()) + this.stops.flush();
      this.isOver = true;
    }
    if (this.stops.isFound) {
      this.reason = "stop";
      this.isOver = true;
    }
    return piece;
  }
  /** The next id; null at the end, whose reason is then known. */
  async nextId() {
    const started = performance.now();
    const isFirst = this.ids.length === 0;
    const logits = this.isCancelled ? null : await this.nextLogits(isFirst);
    if (logits === null) {
      this.reason = "cancelled";
      return null;
    }
    const id = this.choose(logits);
    const seconds = (performance.now() - started) / 1e3;
    if (isFirst)
      this.prefillSeconds = seconds;
    else
      this.decodeSeconds += seconds;
    return id;
  }
  async nextLogits(isFirst) {
    if (!isFirst)
      return this.session.append([this.ids.at(-1)], this.cache);
    let logits = null;
    for (let start = 0; start < this.prompt.length; start += PREFILL_CHUNK) {
      if (this.isCancelled)
        return null;
      logits = await this.session.append(this.prompt.slice(start, start + PREFILL_CHUNK), this.cache);
    }
    return logits;
  }
  choose(logits) {
    const row = logits.subarray(0, this.tokenizer.vocabSize);
    if (row.length === 0)
      throw new NumericError("the graph returned no logits");
    const id = this.sampler.sample(row, this.history);
    if (this.endTokens.has(id)) {
      this.reason = "stop";
      return null;
    }
    if (this.params.logprobs !== null) {
      this.logprobs.push(tokenLogprob(row, id, this.params.logprobs));
    }
    this.ids.push(id);
    this.history.push(id);
    if (this.ids.length === this.params.max_new_tokens)
      this.reason = "length";
    else if (this.ids.length === this.room)
      this.reason = "context_full";
    return id;
  }
};

// ../tokenizer/byte_pairs.js
var NONE = Infinity;
var FEW = 64;
function joinByRank(piece, rankOf) {
  const whole = rankOf.get(piece);
  if (whole !== void 0)
    return [whole];
  const chain = new Chain(piece, rankOf);
  if (piece.length <= FEW)
    chain.joinFew();
  else
    chain.joinMany();
  return chain.ranks();
}
var Chain = class {
  piece;
  rankOf;
  next;
  before;
  pairRank;
  // of the part that begins here and the next one
  constructor(piece, rankOf) {
    this.piece = piece;
    this.rankOf = rankOf;
    const n = piece.length;
    this.next = Int32Array.from({ length: n }, (_, at) => at + 1);
    this.before = Int32Array.from({ length: n }, (_, at) => at - 1);
    this.pairRank = new Float64Array(n);
    for (let at = 0; at < n; at++)
      this.pairRank[at] = this.rankAt(at);
  }
  joinFew() {
    for (; ; ) {
      let best = -1;
      for (let at = 0; at < this.piece.length; at = this.next[at]) {
        if (this.pairRank[at] < (best < 0 ? NONE : this.pairRank[best]))
          best = at;
      }
      if (best < 0)
        return;
      this.join(best);
    }
  }
  joinMany() {
    const heap = new PairHeap();
    for (let at = 0; at < this.piece.length; at++)
      heap.push(this.pairRank[at], at);
    for (let entry = heap.pop(); entry !== void 0; entry = heap.pop()) {
      const [rank, at] = entry;
      if (this.pairRank[at] !== rank)
        continue;
      this.join(at);
      heap.push(this.pairRank[at], at);
      if (this.before[at] >= 0)
        heap.push(this.pairRank[this.before[at]], this.before[at]);
    }
  }
  ranks() {
    const ranks = [];
    for (let at = 0; at < this.piece.length; at = this.next[at]) {
      ranks.push(this.rankOf.get(this.piece.slice(at, this.next[at])));
    }
    return ranks;
  }
  rankAt(at) {
    const middle = this.next[at];
    if (middle >= this.piece.length)
      return NONE;
    return this.rankOf.get(this.piece.slice(at, this.next[middle])) ?? NONE;
  }
  join(at) {
    const gone = this.next[at];
    this.next[at] = this.next[gone];
    if (this.next[at] < this.piece.length)
      this.before[this.next[at]] = at;
    this.pairRank[gone] = NONE;
    this.pairRank[at] = this.rankAt(at);
    const before = this.before[at];
    if (before >= 0)
      this.pairRank[before] = this.rankAt(before);
  }
};
var PairHeap = class {
  entries = [];
  push(rank, at) {
    if (rank === NONE)
      return;
    const entries = this.entries;
    let place = entries.push([rank, at]) - 1;
    while (place > 0) {
      const parent = place - 1 >> 1;
      if (!isBefore(entries[place], entries[parent]))
        return;
      [entries[place], entries[parent]] = [entries[parent], entries[place]];
      place = parent;
    }
  }
  pop() {
    const entries = this.entries;
    const first = entries[0];
    const last = entries.pop();
    if (first === void 0 || entries.length === 0)
      return first;
    entries[0] = last;
    for (let place = 0; ; ) {
      let child = 2 * place + 1;
      if (child >= entries.length)
        return first;
      if (child + 1 < entries.length && isBefore(entries[child + 1], entries[child]))
        child += 1;
      if (!isBefore(entries[child], entries[place]))
        return first;
      [entries[place], entries[child]] = [entries[child], entries[place]];
      place = child;
    }
  }
};
function isBefore(one, other) {
  return one[0] < other[0] || one[0] === other[0] && one[1] < other[1];
}

// ../tokenizer/detokenizer.js
var END_OF_WORD = "</w>";
function lookUp(table, id) {
  const entry = table[id];
  if (entry === void 0) {
    throw new RangeError(`a token id must be from 0 to ${table.length - 1}, got ${id}`);
  }
  return entry;
}
var ByteDetokenizer = class {
  bytesOf;
  decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  constructor(bytesOf2) {
    this.bytesOf = bytesOf2;
  }
  push(id) {
    const bytes = Uint8Array.from(lookUp(this.bytesOf, id), (byte) => byte.charCodeAt(0));
    return this.decoder.decode(bytes, { stream: true });
  }
  flush() {
    const rest = this.decoder.decode();
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return rest;
  }
};
var CharacterDetokenizer = class {
  characters;
  constructor(characters2) {
    this.characters = characters2;
  }
  push(id) {
    return lookUp(this.characters, id);
  }
  flush() {
    return "";
  }
};
var WordDetokenizer = class {
  tokenOf;
  held = "";
  hasBegun = false;
  constructor(tokenOf) {
    this.tokenOf = tokenOf;
  }
  push(id) {
    let text = (this.held + lookUp(this.tokenOf, id)).replaceAll(END_OF_WORD, " ");
    if (!this.hasBegun)
      text = text.trimStart();
    const certain = withoutPartialEnd(text).trimEnd();
    this.held = text.slice(certain.length);
    this.hasBegun ||= certain !== "";
    return certain;
  }
  flush() {
    const rest = this.held.trimEnd();
    this.held = "";
    this.hasBegun = false;
    return rest;
  }
};
function withoutPartialEnd(text) {
  for (let length = END_OF_WORD.length - 1; length > 0; length--) {
    if (text.endsWith(END_OF_WORD.slice(0, length)))
      return text.slice(0, -length);
  }
  return text;
}

// ../tokenizer/rank_file.js
var LINE = /^([A-Za-z0-9+/]*={0,2}) (\d{1,7})(?: (\d{1,7}))?$/;
var N_BYTES = 256;
function parseRanks(content, where) {
  const rankOf = /* @__PURE__ */ new Map();
  const idOfRank = /* @__PURE__ */ new Map();
  let hasIds = false;
  let longest = 0;
  const lines = new TextDecoder("latin1").decode(content).replace(/\n$/, "").split("\n");
  lines.forEach((line, index) => {
    const found = LINE.exec(line);
    if (found === null) {
      throw new TokenizerError(`${where}, line ${index + 1}: found ${JSON.stringify(line.slice(0, 60))}, expected 'base64(token) rank'`);
    }
    const token = atob(found[1]);
    const rank = Number(found[2]);
    hasIds ||= found[3] !== void 0;
    if (rankOf.has(token) || idOfRank.has(rank)) {
      throw new TokenizerError(`${where}, line ${index + 1}: a token or rank comes twice`);
    }
    rankOf.set(token, rank);
    idOfRank.set(rank, found[3] === void 0 ? rank : Number(found[3]));
    longest = Math.max(longest, token.length);
  });
  for (let byte = 0; byte < N_BYTES; byte++) {
    if (!rankOf.has(String.fromCharCode(byte))) {
      throw new TokenizerError(`${where}: no token for byte 0x${byte.toString(16)}`);
    }
  }
  return { rankOf, idOfRank: hasIds ? idOfRank : null, longest };
}
function bytesById(table, specialTokens, vocabSize, where) {
  const bytesOf2 = new Array(vocabSize);
  const put = (token, id) => {
    if (id >= vocabSize || bytesOf2[id] !== void 0) {
      throw new TokenizerError(`${where}: id ${id} comes twice, or is not below ${vocabSize}`);
    }
    bytesOf2[id] = token;
  };
  for (const [token, rank] of table.rankOf)
    put(token, table.idOfRank?.get(rank) ?? rank);
  for (const [text, id] of Object.entries(specialTokens))
    put(utf8(text), id);
  const missing = bytesOf2.findIndex((token) => token === void 0);
  if (missing >= 0) {
    throw new TokenizerError(`${where}: no token has id ${missing}, ids 0 to ${vocabSize - 1} were expected`);
  }
  return bytesOf2;
}
function utf8(text) {
  let bytes = "";
  for (const byte of new TextEncoder().encode(text))
    bytes += String.fromCharCode(byte);
  return bytes;
}

// ../tokenizer/gpt1.js
var UNKNOWN = "<unk>";
var CHINESE = /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/u;
var GPT1Words = class {
  maxTokenBytes = null;
  // control characters vanish: no length of text is too long
  vocab;
  rankOf;
  // of "left right"
  tokenOf;
  unknown;
  remembered = /* @__PURE__ */ new Map();
  constructor(spec, content, where) {
    const model2 = readModel(content, where);
    this.vocab = new Map(Object.entries(model2.vocab));
    this.rankOf = new Map(model2.merges.map((merge, rank) => [merge.join(" "), rank]));
    const unknown = this.vocab.get(UNKNOWN);
    if (unknown === void 0) {
      throw new TokenizerError(`${where}: a GPT-1 vocabulary needs the token ${UNKNOWN}`);
    }
    this.unknown = unknown;
    this.tokenOf = new Array(spec.vocab_size);
    for (const [token, id] of [...this.vocab, ...Object.entries(spec.special_tokens)]) {
      this.tokenOf[id] = token;
    }
  }
  encode(text) {
    const ids = [];
    const lower = Array.from(text, (character) => character.toLowerCase()).join("");
    lower.split(UNKNOWN).forEach((part, number) => {
      if (number > 0)
        ids.push(this.unknown);
      for (const word of spacedWords(part).split(/\s+/u)) {
        if (word !== "")
          ids.push(...this.encodeWord(word));
      }
    });
    return ids;
  }
  detokenizer() {
    return new WordDetokenizer(this.tokenOf);
  }
  bytesOf(id) {
    const token = this.tokenOf[id];
    return token === void 0 ? void 0 : utf8(token.replace(END_OF_WORD, " "));
  }
  encodeWord(word) {
    const known = this.remembered.get(word);
    if (known !== void 0)
      return known;
    const parts = Array.from(word);
    parts.push(parts.pop() + END_OF_WORD);
    for (; ; ) {
      let best = -1;
      let bestRank = Infinity;
      for (let place = 0; place + 1 < parts.length; place++) {
        const rank = this.rankOf.get(`${parts[place]} ${parts[place + 1]}`) ?? Infinity;
        if (rank < bestRank)
          [best, bestRank] = [place, rank];
      }
      if (best < 0)
        break;
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
    const ids = parts.map((part) => this.vocab.get(part) ?? this.unknown);
    if (this.remembered.size < 1 << 14)
      this.remembered.set(word, ids);
    return ids;
  }
};
function spacedWords(text) {
  const clean = Array.from(text, cleaned).join("").normalize("NFC");
  return Array.from(clean.toLowerCase().normalize("NFD"), split).join("");
}
function cleaned(character) {
  if ("	\n\r".includes(character))
    return " ";
  if (/[\p{C}\ufffd]/u.test(character))
    return "";
  if (/\p{Zs}/u.test(character))
    return " ";
  return CHINESE.test(character) ? ` ${character} ` : character;
}
function split(character) {
  if (/\p{Mn}/u.test(character))
    return "";
  return /[!-/:-@[-`{-~\p{P}]/u.test(character) ? ` ${character} ` : character;
}
function readModel(content, where) {
  let document;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new TokenizerError(`${where} is not valid JSON: ${error.message}`);
  }
  const model2 = isObject(document) ? document["model"] : null;
  if (!isObject(model2) || model2["end_of_word_suffix"] !== END_OF_WORD || !isObject(model2["vocab"]) || !Array.isArray(model2["merges"])) {
    throw new TokenizerError(`${where} is not a GPT-1 tokenizer.json`);
  }
  const merges = model2["merges"].map((merge) => typeof merge === "string" ? merge.split(" ") : merge);
  return { vocab: model2["vocab"], merges };
}

// ../tokenizer/patterns.js
var SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
var S = `[${SPACE}]`;
var NOT_S = `[^${SPACE}]`;
var SIGNS = `[^${SPACE}\\p{L}\\p{N}]+`;
var CONTRACTION = "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])";
var UPPER = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
var LOWER = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
var LAST = [`${S}+(?!${NOT_S})`, `${S}+`];
var SOURCES = {
  gpt2: ["'(?:[sdmt]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+", ` ?${SIGNS}`, ...LAST].join("|"),
  cl100k: [
    CONTRACTION,
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
    "\\p{N}{1,3}",
    ` ?${SIGNS}[\\r\\n]*`,
    `${S}*[\\r\\n]+`,
    ...LAST
  ].join("|"),
  o200k: [
    `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]*[${LOWER}]+(?:${CONTRACTION})?`,
    `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]+[${LOWER}]*(?:${CONTRACTION})?`,
    "\\p{N}{1,3}",
    ` ?${SIGNS}[\\r\\n/]*`,
    `${S}*[\\r\\n]+`,
    ...LAST
  ].join("|")
};
function splitPattern(name) {
  const source = SOURCES[name ?? ""];
  if (source === void 0) {
    throw new TokenizerError(`the split pattern ${JSON.stringify(name).slice(0, 60)} runs in Python alone; here are ` + Object.keys(SOURCES).join(", "), "run this bundle with the Python package, or through gpt-edge serve");
  }
  return new RegExp(source, "gu");
}

// ../tokenizer/special_tokens.js
var WORD = "[\\p{L}\\p{N}_]";
var SpecialTokenFinder = class {
  ids;
  always;
  all;
  constructor(ids, rules) {
    this.ids = ids;
    const of = (text) => rules[text] ?? [];
    const texts2 = Object.keys(ids);
    const expression = (chosen) => chosen.length === 0 ? null : new RegExp(chosen.sort((one, other) => other.length - one.length).map((text) => expressionOf(text, of(text))).join("|"), "gu");
    this.always = expression(texts2.filter((text) => of(text).includes("always")));
    this.all = expression(texts2.filter((text) => !of(text).includes("never")));
  }
  /** The parts of `text` in order: ids of tokens, and the texts between, none empty. */
  split(text, special) {
    const pattern = special ? this.all : this.always;
    const parts = [];
    let start = 0;
    for (const match of pattern === null ? [] : text.matchAll(pattern)) {
      if (match.index > start)
        parts.push(text.slice(start, match.index));
      parts.push(this.idOf(match[0]));
      start = match.index + match[0].length;
    }
    if (start < text.length)
      parts.push(text.slice(start));
    return parts;
  }
  idOf(found) {
    for (const text of [found, found.trimStart(), found.trimEnd(), found.trim()]) {
      const id = Object.hasOwn(this.ids, text) ? this.ids[text] : void 0;
      if (id !== void 0)
        return id;
    }
    throw new Error(`${found} matched no special token`);
  }
};
function expressionOf(text, rules) {
  let expression = text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&").replace(/\\-/g, "\\x2d");
  if (rules.includes("single_word"))
    expression = `(?<!${WORD})${expression}(?!${WORD})`;
  if (rules.includes("lstrip"))
    expression = `\\s*${expression}`;
  return rules.includes("rstrip") ? `${expression}\\s*` : expression;
}

// ../tokenizer/tokenizer.js
var LIMIT_REMEMBERED = 1 << 14;
var Tokenizer = class _Tokenizer {
  kind;
  vocabSize;
  /** The id that ends a text. */
  endToken;
  maxTokenBytes;
  finder;
  prefix;
  addsSpace;
  /** Throws TokenizerError for a kind or a file that cannot be read here. */
  static from(spec, content, where) {
    switch (spec.kind) {
      case "gpt2":
        return new _Tokenizer(spec, byteLevel(spec, content, where));
      case "gpt1":
        return new _Tokenizer(spec, new GPT1Words(spec, content, where));
      case "characters":
        return new _Tokenizer(spec, characters(spec, content, where));
      default:
        throw new TokenizerError(`a tokenizer of kind ${spec.kind} runs in Python alone; here are gpt2, gpt1, characters`, "run this bundle with the Python package, or through gpt-edge serve");
    }
  }
  constructor(spec, kind) {
    this.kind = kind;
    this.vocabSize = spec.vocab_size;
    this.endToken = spec.end_token;
    this.maxTokenBytes = kind.maxTokenBytes;
    this.prefix = spec.prefix ?? [];
    this.addsSpace = spec.add_prefix_space ?? false;
    this.finder = new SpecialTokenFinder(spec.special_tokens, spec.token_rules ?? {});
  }
  /**
   * Ids of a whole text. special: whether special tokens in it become their ids; else they are
   * plain text. A lone surrogate counts as U+FFFD.
   */
  encode(text, special = false) {
    return [...this.prefix, ...this.idsOf(text, special, true)];
  }
  /** Ids of a later part of a text: nothing is put before it, and special tokens are plain text. */
  encodePart(text) {
    return this.idsOf(text, false, false);
  }
  idsOf(text, special, isWhole2) {
    const ids = [];
    let isStart = isWhole2;
    for (const part of this.finder.split(text.replace(/\p{Surrogate}/gu, "�"), special)) {
      if (typeof part === "number") {
        ids.push(part);
        isStart = true;
        continue;
      }
      const spaced = isStart && this.addsSpace && !part.startsWith(" ") ? ` ${part}` : part;
      for (const id of this.kind.encode(spaced))
        ids.push(id);
      isStart = false;
    }
    return ids;
  }
  /** Text of ids; bytes that are not UTF-8 become U+FFFD. Throws RangeError for an unknown id. */
  decode(ids) {
    const detokenizer = this.detokenizer();
    let text = "";
    for (const id of ids)
      text += detokenizer.push(id);
    return text + detokenizer.flush();
  }
  /** The UTF-8 bytes, perhaps part of a character, that an id adds. Throws as `decode`. */
  tokenBytes(id) {
    const bytes = this.kind.bytesOf(id);
    if (bytes === void 0) {
      throw new RangeError(`a token id must be from 0 to ${this.vocabSize - 1}, got ${id}`);
    }
    return Uint8Array.from(bytes, (byte) => byte.charCodeAt(0));
  }
  /** How many ids stand before every text. */
  get prefixLength() {
    return this.prefix.length;
  }
  /** A new streaming decoder. */
  detokenizer() {
    return this.kind.detokenizer();
  }
};
function byteLevel(spec, content, where) {
  const table = parseRanks(content, where);
  const bytesOf2 = bytesById(table, spec.special_tokens, spec.vocab_size, where);
  const pattern = splitPattern(spec.pattern);
  const remembered = /* @__PURE__ */ new Map();
  const encodePiece = (piece) => {
    const known = remembered.get(piece);
    if (known !== void 0)
      return known;
    const ranks = joinByRank(utf8(piece), table.rankOf);
    const ids = table.idOfRank === null ? ranks : ranks.map((rank) => table.idOfRank.get(rank));
    if (remembered.size < LIMIT_REMEMBERED && piece.length < 64)
      remembered.set(piece, ids);
    return ids;
  };
  return {
    encode: (text) => [...text.matchAll(pattern)].flatMap((match) => encodePiece(match[0])),
    detokenizer: () => new ByteDetokenizer(bytesOf2),
    bytesOf: (id) => bytesOf2[id],
    maxTokenBytes: table.longest
  };
}
function characters(spec, content, where) {
  let list;
  try {
    list = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    list = null;
  }
  if (!Array.isArray(list) || list.length !== spec.vocab_size) {
    throw new TokenizerError(`${where} must be a JSON list of ${spec.vocab_size} characters`);
  }
  const table = list;
  const idOf = new Map(table.map((character, id) => [character, id]));
  const encode2 = (text) => [...text].map((character) => {
    const id = idOf.get(character);
    if (id === void 0) {
      throw new TokenizerError(`the text holds ${JSON.stringify(character)}: not in the model's vocabulary of ${spec.vocab_size} characters`, "write the text with the characters that the model was trained on");
    }
    return id;
  });
  return {
    encode: encode2,
    detokenizer: () => new CharacterDetokenizer(table),
    bytesOf: (id) => table[id] === void 0 ? void 0 : utf8(table[id]),
    maxTokenBytes: 4
  };
}

// ../model.js
var Model = class _Model {
  manifest;
  tokenizer;
  session;
  constructor(manifest, tokenizer, session) {
    this.manifest = manifest;
    this.tokenizer = tokenizer;
    this.session = session;
  }
  /** Read, check and start a bundle. Throws BundleError or TokenizerError saying what is wrong. */
  static async load(where, read, backend2, options = {}) {
    const bundle = await Bundle.open(where, read, options.onProgress);
    const spec = bundle.manifest.tokenizer;
    if (spec === null) {
      throw new BundleError(`${where} has no tokenizer`, "export it with one");
    }
    const tokenizer = Tokenizer.from(spec, bundle.file(spec.file), `${where}/${spec.file}`);
    return new _Model(bundle.manifest, tokenizer, await Session.start(bundle, backend2));
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
  async classify(texts2) {
    this.checkKind(true);
    const found = [];
    for (const example of texts2) {
      found.push(await predict(example, this.manifest.task, this.session, this.tokenizer));
    }
    return found;
  }
  /**
   * Label every token of texts, in their order. Throws BundleError for a language model, RangeError
   * for one that labels texts.
   */
  async tag(texts2) {
    this.checkKind(true);
    const found = [];
    for (const text of texts2) {
      found.push(await tag(text, this.manifest.task, this.session, this.tokenizer));
    }
    return found;
  }
  /** Vectors of texts, in their order, of any model. */
  async embed(texts2, options = {}) {
    const task = this.manifest.task ?? null;
    const found = [];
    for (const text of texts2) {
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
    return [...typeof ids === "number" ? [ids] : ids, ...own === null ? [] : [own]];
  }
  checkKind(isClassifier) {
    if (this.isClassifier === isClassifier)
      return;
    throw new BundleError(isClassifier ? `${this.manifest.name} is a language model: it has no task to answer` : `${this.manifest.name} is a classifier: it generates nothing`, isClassifier ? "use stream" : "use classify");
  }
};

// ../runtime/warm_up.js
var IDENTITY = "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a0208014202100d";
async function warmUp({ ort: ort2, options }) {
  const bytes = IDENTITY.match(/../g).map((pair) => Number.parseInt(pair, 16));
  try {
    const session = await ort2.InferenceSession.create(Uint8Array.from(bytes), options);
    await session.release();
  } catch {
  }
}

// ../bundle/constant_nodes.js
var CHEAP = /* @__PURE__ */ new Set(["Constant", "Unsqueeze"]);
function hasConstantNodes(model2) {
  const graph = [...fields(model2)].find((one) => one.number === 7 && one.varint === null);
  if (graph === void 0)
    return false;
  const parts = [...fields(graph.bytes)].filter(({ varint: varint2 }) => varint2 === null);
  const constants = /* @__PURE__ */ new Set([""]);
  for (const { bytes } of parts.filter(({ number }) => number === 5)) {
    constants.add(texts(fields(bytes), 8).at(-1) ?? "");
  }
  return parts.filter(({ number, bytes }) => number === 1 && !CHEAP.has(texts(fields(bytes), 4).at(-1) ?? "")).some(({ bytes }) => texts(fields(bytes), 1).every((name) => constants.has(name)));
}
var decoder2 = new TextDecoder();
function texts(message, number) {
  return [...message].filter((one) => one.number === number && one.varint === null).map(({ bytes }) => decoder2.decode(bytes));
}

// ../runtime/web_backend.js
var MAX_THREADS = 4;
function webBackend(ort2, threads = null) {
  const isIsolated = globalThis.crossOriginIsolated === true;
  const half = Math.ceil((globalThis.navigator?.hardwareConcurrency ?? 1) / 2);
  ort2.env.wasm.numThreads = threads ?? (isIsolated ? Math.min(half, MAX_THREADS) : 1);
  ort2.env.logLevel = "error";
  return {
    ort: ort2,
    options: {
      executionProviders: ["wasm"],
      // it grows in powers of two and keeps what the longest prompt took
      enableCpuMemArena: false,
      // patterns are kept per input shape, and every step has its own
      enableMemPattern: false,
      logSeverityLevel: 3,
      // else weights that DequantizeLinear unpacks would be unpacked at every call
      extra: { session: { disable_quant_qdq: "1" } }
    },
    // the edge graph has its fused operators already: a search for more takes longer than to start
    optionsFor: async (model2, graph) => graph === "edge" && !hasConstantNodes(model2) ? { graphOptimizationLevel: "disabled" } : {},
    breathe,
    writesInPlace: false
  };
}
function breathe() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

// worker.js
var N_ALTERNATIVES = 5;
var runtime = ort;
var backend = webBackend(runtime);
void warmUp(backend);
var model = null;
var stream = null;
self.onmessage = (event) => {
  const request = event.data;
  if (request.do === "stop") {
    stream?.cancel();
    return;
  }
  answer(request).then(send, (error) => {
    const hint = error instanceof GPTEdgeError ? error.hint : null;
    send({ is: "failed", message: messageOf(error), hint });
  });
};
function send(reply) {
  self.postMessage(reply);
}
function answer(request) {
  switch (request.do) {
    case "load":
      return load(request.url);
    case "generate":
      return generate(request.prompt, request.params);
    case "classify":
      return classify(request.texts);
  }
}
async function load(url) {
  const onProgress = (progress) => send({ is: "progress", progress });
  model = await Model.load(url, fetchFiles(url), backend, { onProgress });
  const loaded = {
    defaults: model.isClassifier ? {} : model.generationDefaults,
    task: model.manifest.task ?? null,
    context: model.manifest.config.n_ctx,
    threads: runtime.env.wasm.numThreads ?? 1,
    memoryBytes: memoryBytes()
  };
  return { is: "loaded", loaded };
}
async function generate(prompt, params) {
  const current = loadedModel();
  stream = current.stream(prompt, { ...params, logprobs: N_ALTERNATIVES }, { truncate: "left" });
  const spell = spellings(current);
  const started = performance.now();
  let firstTokenSeconds = 0;
  for await (const text of stream) {
    firstTokenSeconds ||= (performance.now() - started) / 1e3;
    const latest = stream.logprobs.at(-1);
    const alternatives = latest === void 0 ? [] : alternativesOf(latest, spell);
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
    memoryBytes: memoryBytes()
  };
  return { is: "ended", summary };
}
async function classify(texts2) {
  const [prediction2] = await loadedModel().classify([texts2]);
  return { is: "prediction", prediction: prediction2 };
}
function loadedModel() {
  if (model === null)
    throw new GPTEdgeError("no model is loaded");
  return model;
}
function spellings(of) {
  const known = /* @__PURE__ */ new Map();
  return (id) => {
    const text = known.get(id) ?? of.tokenizer.decode([id]);
    known.set(id, text);
    return text;
  };
}
function alternativesOf(entry, spell) {
  const rows = entry.alternatives.map(([id, logprob]) => ({ id, logprob }));
  if (!rows.some(({ id }) => id === entry.id))
    rows.push({ id: entry.id, logprob: entry.logprob });
  return rows.map(({ id, logprob }) => ({
    text: spell(id),
    probability: Math.exp(logprob),
    isChosen: id === entry.id
  }));
}
function messageOf(error) {
  if (error instanceof RangeError && /memory|allocation/i.test(error.message)) {
    return "this browser has no memory left for the model: close other pages, or load a smaller one";
  }
  return error instanceof Error ? error.message : String(error);
}
