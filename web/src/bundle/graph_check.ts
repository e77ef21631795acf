/**
 * What is checked of a graph before onnxruntime sees it. Its operators are those of exports, it has
 * neither functions nor graphs in graphs, and its weights lie in files that the manifest lists,
 * within their bounds, with as many bytes as their shapes say. Python's gate checks more: every shape.
 *
 * Numbers of fields: onnx.proto3 of the ONNX specification.
 */

import { BundleError } from "../errors.js";
import { type Field, fields, varints, WireError } from "./onnx_wire.js";
import { MICROSOFT, MICROSOFT_OPERATORS, STANDARD_OPERATORS } from "./operator_list.js";

/** Bytes of an element, by onnx.TensorProto.DataType. */
const ELEMENT_BYTES: Readonly<Record<number, number>> = { 1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2 };
/** "ORTM" behind four bytes: onnxruntime takes such bytes for its own format, whatever their name. */
const ORT_MARK = [0x4f, 0x52, 0x54, 0x4d];
const REBUILD = "do not run it unless you know its maker: gpt-edge export writes no such graph";

/**
 * Throws BundleError for a graph that no export has. where: for messages. isEdge: whether it may
 * have operators of com.microsoft. sizes: bytes of the files that weights may lie in, by name.
 */
export function checkGraph(
  model: Uint8Array<ArrayBuffer>,
  where: string,
  isEdge: boolean,
  sizes: ReadonlyMap<string, number>,
): void {
  try {
    new GraphCheck(isEdge, sizes).model(model);
  } catch (error) {
    if (error instanceof WireError) {
      throw new BundleError(`${where} is no ONNX graph: ${error.message}`, "copy the bundle again");
    }
    if (error instanceof Refusal) throw new BundleError(`${where} ${error.message}`, REBUILD);
    throw error;
  }
}

class Refusal extends Error {}

class GraphCheck {
  constructor(
    private readonly isEdge: boolean,
    private readonly sizes: ReadonlyMap<string, number>,
  ) {}

  model(message: Uint8Array<ArrayBuffer>): void {
    if (ORT_MARK.every((byte, index) => message[4 + index] === byte)) {
      throw new Refusal("has the mark of an .ort file");
    }
    for (const { number, varint, bytes } of fields(message)) {
      if (varint !== null) continue;
      if (number === 7) this.graph(bytes);
      if (number === 8) this.operatorSet(bytes);
      if (number === 20) throw new Refusal("has a training step");
      if (number === 25) throw new Refusal("has a function of its own");
    }
  }

  private operatorSet(message: Uint8Array<ArrayBuffer>): void {
    const domain = textOf(message, 1);
    if (domain === "" || (this.isEdge && domain === MICROSOFT)) return;
    throw new Refusal(`asks for the operators ${shown(domain)}`);
  }

  private graph(message: Uint8Array<ArrayBuffer>): void {
    for (const { number, varint, bytes } of fields(message)) {
      if (varint !== null) continue;
      if (number === 1) this.node(bytes);
      if (number === 5) this.tensor(bytes, true);
      if (number === 15) throw new Refusal("has a sparse tensor");
    }
  }

  private node(message: Uint8Array<ArrayBuffer>): void {
    const operator = textOf(message, 4);
    const domain = textOf(message, 7);
    const isKnown =
      domain === ""
        ? STANDARD_OPERATORS.has(operator)
        : this.isEdge && domain === MICROSOFT && MICROSOFT_OPERATORS.has(operator);
    if (!isKnown) {
      const of = domain === "" ? "" : ` of ${shown(domain)}`;
      throw new Refusal(`has the operator ${shown(operator)}${of}, which no export has`);
    }
    for (const { number, varint, bytes } of fields(message)) {
      if (number === 5 && varint === null) this.attribute(bytes);
    }
  }

  private attribute(message: Uint8Array<ArrayBuffer>): void {
    for (const { number, varint, bytes } of fields(message)) {
      if (varint !== null) continue;
      if (number === 5 || number === 10) this.tensor(bytes, false);
      if (number === 6 || number === 11) throw new Refusal("has a graph in a graph");
      if (number === 22 || number === 23) throw new Refusal("has a sparse tensor");
    }
  }

  private tensor(message: Uint8Array<ArrayBuffer>, isWeight: boolean): void {
    const all = [...fields(message)];
    const entries = new Map(
      all.filter((one) => isBytes(one, 13)).map(({ bytes }) => [textOf(bytes, 1), textOf(bytes, 2)]),
    );
    const isOutside = all.some((one) => one.number === 14 && one.varint !== 0) || entries.size > 0;
    if (!isOutside) return;
    const name = textOf(message, 8);
    const what = `has weights ${shown(name)}`;
    if (!isWeight) throw new Refusal(`${what} of a node in a file`);
    if (all.some((one) => isBytes(one, 9))) throw new Refusal(`${what} in two places`);
    const location = entries.get("location") ?? "";
    const whole = this.sizes.get(location);
    if (whole === undefined) {
      throw new Refusal(`${what} in ${shown(location)}, which is no file of weights`);
    }
    const size = bytesOf(all, what);
    const length = entries.get("length");
    if (length !== undefined && placeOf(length, what) !== size) {
      throw new Refusal(`${what} whose length is not that of their shape`);
    }
    if (placeOf(entries.get("offset") ?? "0", what) + size > whole) {
      throw new Refusal(`${what} that reach beyond the end of ${location}`);
    }
  }
}

function isBytes(field: Field, number: number): boolean {
  return field.number === number && field.varint === null;
}

/** The last field of that number as a text, "" where there is none. */
function textOf(message: Uint8Array<ArrayBuffer>, number: number): string {
  let found = new Uint8Array(0);
  for (const field of fields(message)) {
    if (isBytes(field, number)) found = Uint8Array.from(field.bytes);
  }
  return new TextDecoder().decode(found);
}

function bytesOf(tensor: readonly Field[], what: string): number {
  const type = tensor.findLast((one) => one.number === 2 && one.varint !== null)?.varint ?? 0;
  const element = ELEMENT_BYTES[type];
  if (element === undefined) throw new Refusal(`${what} of another type than exports write`);
  const dims = tensor
    .filter((one) => one.number === 1)
    .flatMap(({ varint, bytes }) => (varint === null ? varints(bytes) : [varint]));
  const size = dims.reduce((product, dim) => product * dim, element);
  if (!Number.isSafeInteger(size)) throw new Refusal(`${what} of no such shape`);
  return size;
}

function placeOf(text: string, what: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new Refusal(`${what} at a place that is no number`);
  return Number(text);
}

/** A name out of a file: short, and in quotes. */
function shown(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}
