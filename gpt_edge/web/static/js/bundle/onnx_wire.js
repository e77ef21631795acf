/** The wire format of protobuf, as far as an ONNX file needs it; as `gpt_edge/bundle/onnx_wire.py`. */
/** A message that breaks off, or is none. */
export class WireError extends Error {
}
const NO_BYTES = new Uint8Array(0);
/** The fields of a message in order. Throws WireError where it is none. */
export function* fields(message) {
    const reader = new VarintReader(message);
    while (!reader.isOver) {
        const start = reader.place;
        const key = reader.next();
        const number = Math.floor(key / 8);
        const kind = key % 8;
        if (kind === 0) {
            const varint = reader.next();
            yield { number, varint, bytes: NO_BYTES, whole: reader.since(start) };
        }
        else if (kind === 1 || kind === 2 || kind === 5) {
            const size = kind === 2 ? reader.next() : kind === 1 ? 8 : 4;
            yield { number, varint: null, bytes: reader.take(size), whole: reader.since(start) };
        }
        else {
            throw new WireError("an unknown kind of field");
        }
    }
}
/** Whole numbers one behind the other. */
export function varints(packed) {
    const reader = new VarintReader(packed);
    const found = [];
    while (!reader.isOver)
        found.push(reader.next());
    return found;
}
/** A field that is a whole number from 0 to 2^53. */
export function varintField(number, value) {
    return Uint8Array.from([...varint(number * 8), ...varint(value)]);
}
/** A field that is bytes: a text, a message. */
export function lengthField(number, bytes) {
    return joined([Uint8Array.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
}
export function textField(number, text) {
    return lengthField(number, new TextEncoder().encode(text));
}
/** Bytes one behind the other. */
export function joined(parts) {
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
        bytes.push((value % 128) + 128);
    return [...bytes, value];
}
class VarintReader {
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
}
