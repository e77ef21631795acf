/**
 * Streaming decoders: ids in, text out, never half a character, and together exactly the text of
 * all ids.
 */

export const END_OF_WORD = "</w>";

export interface Detokenizer {
  /** The text that is certain after this id, often "". */
  push(id: number): string;
  /** What was held back; starts again. */
  flush(): string;
}

/** The entry of an id; RangeError for one out of range. */
export function lookUp(table: readonly string[], id: number): string {
  const entry = table[id];
  if (entry === undefined) {
    throw new RangeError(`a token id must be from 0 to ${table.length - 1}, got ${id}`);
  }
  return entry;
}

/** For tokens that are bytes, one character of a string each. */
export class ByteDetokenizer implements Detokenizer {
  private decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(private readonly bytesOf: readonly string[]) {}

  push(id: number): string {
    const bytes = Uint8Array.from(lookUp(this.bytesOf, id), (byte) => byte.charCodeAt(0));
    return this.decoder.decode(bytes, { stream: true });
  }

  flush(): string {
    const rest = this.decoder.decode();
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return rest;
  }
}

/** For tokens that are characters: each is certain at once. */
export class CharacterDetokenizer implements Detokenizer {
  constructor(private readonly characters: readonly string[]) {}

  push(id: number): string {
    return lookUp(this.characters, id);
  }

  flush(): string {
    return "";
  }
}

/** For GPT-1's tokens: `</w>` is a space, and the text has no space at its ends. */
export class WordDetokenizer implements Detokenizer {
  private held = "";
  private hasBegun = false;

  constructor(private readonly tokenOf: readonly string[]) {}

  push(id: number): string {
    let text = (this.held + lookUp(this.tokenOf, id)).replaceAll(END_OF_WORD, " ");
    if (!this.hasBegun) text = text.trimStart();
    const certain = withoutPartialEnd(text).trimEnd();
    this.held = text.slice(certain.length);
    this.hasBegun ||= certain !== "";
    return certain;
  }

  flush(): string {
    const rest = this.held.trimEnd();
    this.held = "";
    this.hasBegun = false;
    return rest;
  }
}

/** Without the longest end of `text` that is a beginning of `</w>`. */
function withoutPartialEnd(text: string): string {
  for (let length = END_OF_WORD.length - 1; length > 0; length--) {
    if (text.endsWith(END_OF_WORD.slice(0, length))) return text.slice(0, -length);
  }
  return text;
}
