/** The wire format of protobuf, as far as an ONNX file needs it; as `gpt_edge/bundle/onnx_wire.py`. */

/** A message that breaks off, or is none. */
export class WireError extends Error {}

/** A field: a whole number, or the bytes of any other kind. */
export interface Field {
  readonly number: number;
  readonly varint: number | null;
  readonly bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

/** The fields of a message in order. Throws WireError where it is none. */
export function* fields(message: Uint8Array): Generator<Field> {
  const reader = new VarintReader(message);
  while (!reader.isOver) {
    const key = reader.next();
    const number = Math.floor(key / 8);
    const kind = key % 8;
    if (kind === 0) {
      yield { number, varint: reader.next(), bytes: NO_BYTES };
    } else if (kind === 1 || kind === 2 || kind === 5) {
      const size = kind === 2 ? reader.next() : kind === 1 ? 8 : 4;
      yield { number, varint: null, bytes: reader.take(size) };
    } else {
      throw new WireError("an unknown kind of field");
    }
  }
}

/** Whole numbers one behind the other. */
export function varints(packed: Uint8Array): number[] {
  const reader = new VarintReader(packed);
  const found: number[] = [];
  while (!reader.isOver) found.push(reader.next());
  return found;
}

class VarintReader {
  private at = 0;

  constructor(private readonly data: Uint8Array) {}

  get isOver(): boolean {
    return this.at === this.data.length;
  }

  /** Exact below 2^53; a number beyond, and a negative one, is larger than any size of a file. */
  next(): number {
    let value = 0;
    for (let place = 1; place < 2 ** 70 && !this.isOver; place *= 128) {
      const byte = this.data[this.at++]!;
      value += (byte & 127) * place;
      if (byte < 128) return value;
    }
    throw new WireError("a number that does not end");
  }

  take(size: number): Uint8Array {
    if (size > this.data.length - this.at) throw new WireError("a field reaches beyond its message");
    const start = this.at;
    this.at += size;
    return this.data.subarray(start, this.at);
  }
}
