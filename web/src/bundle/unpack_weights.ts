/**
 * Weights unpacked to floats before onnxruntime gets a graph. It would unpack them while a session
 * starts, in code of wasm that was compiled a moment ago: half a second for 7 M weights, which take
 * a tenth of it here. `gpt_edge/web/arrange.py` writes the nodes that are computed: DequantizeLinear
 * of constants, and Reshape and Expand of what goes into it.
 *
 * Numbers of fields: onnx.proto3 of the ONNX specification. The graph was checked.
 */

import { type Field, fields, joined, lengthField, textField, varintField, varints } from "./onnx_wire.js";

export interface WeightFile {
  readonly path: string;
  readonly data: Uint8Array<ArrayBuffer>;
}

const FLOAT32 = 1;
const UINT8 = 2;
const INT8 = 3;
const INT64 = 7;
/** Weights; onnxruntime unpacks larger models itself, as both copies of the floats exist at once. */
const MOST = 1 << 26;
const COMPUTED = new Set(["Reshape", "Expand", "DequantizeLinear"]);

/** A value that is known: `bytes` of a tensor, little-endian. */
interface Constant {
  readonly type: number;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

interface Node {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: ReadonlyMap<string, number>;
}

/** The graph and the files of its weights, both as they were where there is nothing to do. */
export function unpackWeights(
  model: Uint8Array<ArrayBuffer>,
  files: readonly WeightFile[],
): { model: Uint8Array<ArrayBuffer>; files: readonly WeightFile[] } {
  const outer = [...fields(model)];
  const graph = outer.find((one) => one.number === 7 && one.varint === null);
  if (graph === undefined) return { model, files };
  const unpacking = new Unpacking([...fields(graph.bytes)], files);
  if (!unpacking.run()) return { model, files };
  const rest = outer.filter((one) => one !== graph).map(({ whole }) => whole);
  return {
    model: joined([...rest, lengthField(7, unpacking.graph())]),
    files: [...files, ...unpacking.newFiles],
  };
}

class Unpacking {
  readonly newFiles: WeightFile[] = [];
  private readonly constants = new Map<string, Constant>();
  private readonly computed = new Set<string>();
  private readonly nodes: Field[] = [];
  private nWeights = 0;

  constructor(
    private readonly parts: readonly Field[],
    private readonly files: readonly WeightFile[],
  ) {}

  /** Compute what can be computed. False where no weight is, or they are too many. */
  run(): boolean {
    for (const tensor of this.parts.filter((one) => one.number === 5)) this.read(tensor.bytes);
    const levels = [...this.constants.values()].filter(({ type }) => type === UINT8 || type === INT8);
    if (levels.reduce((sum, { bytes }) => sum + bytes.length, 0) > MOST) return false;
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
  graph(): Uint8Array<ArrayBuffer> {
    const wanted = new Set(this.nodes.flatMap(({ bytes }) => nodeOf(bytes).inputs));
    const kept = this.parts.filter(({ number, bytes }) =>
      number === 5 ? wanted.has(textOf(bytes, 8)) : number !== 1,
    );
    const added = [...this.computed]
      .filter((name) => wanted.has(name))
      .map((name) => lengthField(5, this.tensor(name, this.constants.get(name)!)));
    return joined([...this.nodes.map(({ whole }) => whole), ...kept.map(({ whole }) => whole), ...added]);
  }

  /** A tensor whose bytes lie in a file of its own. */
  private tensor(name: string, { type, dims, bytes }: Constant): Uint8Array<ArrayBuffer> {
    const path = `unpacked.${this.newFiles.length}`;
    this.newFiles.push({ path, data: bytes });
    const entry = (key: string, value: string): Uint8Array<ArrayBuffer> =>
      lengthField(13, joined([textField(1, key), textField(2, value)]));
    return joined([
      ...dims.map((dim) => varintField(1, dim)),
      varintField(2, type),
      textField(8, name),
      entry("location", path),
      entry("offset", "0"),
      entry("length", String(bytes.length)),
      varintField(14, 1),
    ]);
  }

  /** Note an initializer whose bytes are in the graph or in a file. */
  private read(tensor: Uint8Array<ArrayBuffer>): void {
    const all = [...fields(tensor)];
    const type = all.findLast(({ number, varint }) => number === 2 && varint !== null)?.varint ?? 0;
    const dims = all
      .filter(({ number }) => number === 1)
      .flatMap(({ varint, bytes }) => (varint === null ? varints(bytes) : [varint]));
    const bytes = this.bytesOf(all);
    if (bytes !== null) this.constants.set(textOf(tensor, 8), { type, dims, bytes });
  }

  private bytesOf(tensor: readonly Field[]): Uint8Array<ArrayBuffer> | null {
    const entries = new Map(
      tensor
        .filter(({ number, varint }) => number === 13 && varint === null)
        .map(({ bytes }) => [textOf(bytes, 1), textOf(bytes, 2)]),
    );
    if (entries.size === 0) {
      const raw = tensor.find(({ number, varint }) => number === 9 && varint === null)?.bytes;
      return raw === undefined ? null : raw.slice();
    }
    const file = this.files.find(({ path }) => path === entries.get("location"));
    const length = entries.get("length");
    if (file === undefined || length === undefined) return null;
    const start = Number(entries.get("offset") ?? "0");
    return file.data.subarray(start, start + Number(length));
  }

  /** What a node computes; null where an input is no constant, or it is of another form. */
  private valueOf({ operator, inputs, attributes }: Node): Constant | null {
    const [first, second, third] = inputs.map((name) => this.constants.get(name));
    if (first === undefined || second === undefined) return null;
    if (operator === "DequantizeLinear") {
      if (inputs.length > 2 && third === undefined) return null;
      const value = dequantized(first, second, third, attributes);
      if (value !== null) this.nWeights += value.bytes.length / 4;
      return value;
    }
    if (second.type !== INT64) return null;
    const dims = [...new BigInt64Array(second.bytes.slice().buffer)].map(Number);
    const size = dims.reduce((product, dim) => product * dim, 1);
    if (operator === "Reshape") {
      const isSame = size === first.dims.reduce((product, dim) => product * dim, 1);
      return isSame && dims.every((dim) => dim > 0) ? { ...first, dims } : null;
    }
    if (first.type !== UINT8 || first.bytes.length !== 1 || !(size > 0 && size <= MOST)) return null;
    return { type: UINT8, dims, bytes: new Uint8Array(size).fill(first.bytes[0]!) };
  }
}

/** Levels [N, K] as floats: with a scale and a zero point for each block of a row, or a scale a column. */
function dequantized(
  levels: Constant,
  scales: Constant,
  zeros: Constant | undefined,
  attributes: ReadonlyMap<string, number>,
): Constant | null {
  const [height, width] = levels.dims;
  const block = attributes.get("block_size") ?? 0;
  const isKnown =
    levels.dims.length === 2 && (levels.type === UINT8 || levels.type === INT8) &&
    scales.type === FLOAT32 && (attributes.get("axis") ?? 1) === 1 &&
    (zeros === undefined || (zeros.type === levels.type && zeros.bytes.length === scales.bytes.length / 4));
  if (!isKnown || height! * width! > MOST) return null;
  const signed = levels.type === INT8;
  const from = signed ? asInt8(levels.bytes) : levels.bytes;
  const zero = zeros === undefined ? null : signed ? asInt8(zeros.bytes) : zeros.bytes;
  const scale = new Float32Array(scales.bytes.slice().buffer);
  const result = new Float32Array(height! * width!);
  if (block > 0) {
    if (scale.length * block !== result.length || width! % block !== 0) return null;
    for (let one = 0; one < scale.length; one++) {
      unpackBlock(from, result, one * block, block, scale[one]!, zero === null ? 0 : zero[one]!);
    }
  } else {
    if (scale.length !== width || zero !== null) return null;
    for (let row = 0; row < height!; row++) unpackRow(from, result, row * width, scale);
  }
  return { type: FLOAT32, dims: levels.dims, bytes: new Uint8Array(result.buffer) };
}

function unpackBlock(
  from: Uint8Array | Int8Array,
  to: Float32Array,
  start: number,
  length: number,
  scale: number,
  zero: number,
): void {
  for (let at = start; at < start + length; at++) to[at] = (from[at]! - zero) * scale;
}

function unpackRow(
  from: Uint8Array | Int8Array,
  to: Float32Array,
  start: number,
  scale: Float32Array,
): void {
  for (let at = 0; at < scale.length; at++) to[start + at] = from[start + at]! * scale[at]!;
}

function asInt8({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): Int8Array {
  return new Int8Array(buffer, byteOffset, length);
}

function nodeOf(message: Uint8Array<ArrayBuffer>): Node {
  const inputs: string[] = [];
  const attributes = new Map<string, number>();
  let output = "";
  let operator = "";
  for (const { number, varint, bytes } of fields(message)) {
    if (varint !== null) continue;
    if (number === 1) inputs.push(decoded(bytes));
    if (number === 2) output ||= decoded(bytes);
    if (number === 4) operator = decoded(bytes);
    if (number === 5) {
      const value = [...fields(bytes)].find((one) => one.number === 3 && one.varint !== null);
      if (value?.varint != null) attributes.set(textOf(bytes, 1), value.varint);
    }
  }
  return { operator, inputs, output, attributes };
}

function textOf(message: Uint8Array<ArrayBuffer>, number: number): string {
  const found = [...fields(message)].findLast((one) => one.number === number && one.varint === null);
  return found === undefined ? "" : decoded(found.bytes);
}

const decoder = new TextDecoder();

function decoded(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
