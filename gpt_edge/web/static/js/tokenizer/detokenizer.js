/**
 * Streaming decoders: ids in, text out, never half a character, and together exactly the text of
 * all ids.
 */
export const END_OF_WORD = "</w>";
/** The entry of an id; RangeError for one out of range. */
export function lookUp(table, id) {
    const entry = table[id];
    if (entry === undefined) {
        throw new RangeError(`a token id must be from 0 to ${table.length - 1}, got ${id}`);
    }
    return entry;
}
/** For tokens that are bytes, one character of a string each. */
export class ByteDetokenizer {
    bytesOf;
    decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    constructor(bytesOf) {
        this.bytesOf = bytesOf;
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
}
/** For tokens that are characters: each is certain at once. */
export class CharacterDetokenizer {
    characters;
    constructor(characters) {
        this.characters = characters;
    }
    push(id) {
        return lookUp(this.characters, id);
    }
    flush() {
        return "";
    }
}
/** For GPT-1's tokens: `</w>` is a space, and the text has no space at its ends. */
export class WordDetokenizer {
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
}
/** Without the longest end of `text` that is a beginning of `</w>`. */
function withoutPartialEnd(text) {
    for (let length = END_OF_WORD.length - 1; length > 0; length--) {
        if (text.endsWith(END_OF_WORD.slice(0, length)))
            return text.slice(0, -length);
    }
    return text;
}
