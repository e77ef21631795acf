/**
 * GPT-1's tokenizer: lower-cased words, byte-pair encoded with `</w>` at their ends; the words are
 * those of BERT's BasicTokenizer. Steps and order: `gpt_edge/tokenizer/gpt1.py`.
 */

import type { TokenizerSpec } from "../bundle/manifest.js";
import { isObject } from "../bundle/manifest.js";
import { TokenizerError } from "../errors.js";
import { END_OF_WORD, WordDetokenizer } from "./detokenizer.js";
import { utf8 } from "./rank_file.js";

const UNKNOWN = "<unk>";
const CHINESE =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/u;

export class GPT1Words {
  readonly maxTokenBytes = null; // control characters vanish: no length of text is too long
  private readonly vocab: ReadonlyMap<string, number>;
  private readonly rankOf: ReadonlyMap<string, number>; // of "left right"
  private readonly tokenOf: string[];
  private readonly unknown: number;
  private readonly remembered = new Map<string, readonly number[]>();

  constructor(spec: TokenizerSpec, content: Uint8Array, where: string) {
    const model = readModel(content, where);
    this.vocab = new Map(Object.entries(model.vocab));
    this.rankOf = new Map(model.merges.map((merge, rank) => [merge.join(" "), rank]));
    const unknown = this.vocab.get(UNKNOWN);
    if (unknown === undefined) {
      throw new TokenizerError(`${where}: a GPT-1 vocabulary needs the token ${UNKNOWN}`);
    }
    this.unknown = unknown;
    this.tokenOf = new Array<string>(spec.vocab_size);
    for (const [token, id] of [...this.vocab, ...Object.entries(spec.special_tokens)]) {
      this.tokenOf[id] = token;
    }
  }

  encode(text: string): number[] {
    const ids: number[] = [];
    // each character by itself, as the reference does before anything else: no final sigma
    const lower = Array.from(text, (character) => character.toLowerCase()).join("");
    lower.split(UNKNOWN).forEach((part, number) => {
      if (number > 0) ids.push(this.unknown);
      for (const word of spacedWords(part).split(/\s+/u)) {
        if (word !== "") ids.push(...this.encodeWord(word));
      }
    });
    return ids;
  }

  detokenizer(): WordDetokenizer {
    return new WordDetokenizer(this.tokenOf);
  }

  bytesOf(id: number): string | undefined {
    const token = this.tokenOf[id];
    return token === undefined ? undefined : utf8(token.replace(END_OF_WORD, " "));
  }

  private encodeWord(word: string): readonly number[] {
    const known = this.remembered.get(word);
    if (known !== undefined) return known;
    const parts = Array.from(word);
    parts.push(parts.pop()! + END_OF_WORD);
    for (;;) {
      let best = -1;
      let bestRank = Infinity;
      for (let place = 0; place + 1 < parts.length; place++) {
        const rank = this.rankOf.get(`${parts[place]} ${parts[place + 1]}`) ?? Infinity;
        if (rank < bestRank) [best, bestRank] = [place, rank];
      }
      if (best < 0) break;
      parts.splice(best, 2, parts[best]! + parts[best + 1]!);
    }
    const ids = parts.map((part) => this.vocab.get(part) ?? this.unknown);
    if (this.remembered.size < 1 << 14) this.remembered.set(word, ids);
    return ids;
  }
}

/** The words of `text` with white space between: lower case, no accents, punctuation apart. */
export function spacedWords(text: string): string {
  const clean = Array.from(text, cleaned).join("").normalize("NFC");
  return Array.from(clean.toLowerCase().normalize("NFD"), split).join("");
}

function cleaned(character: string): string {
  if ("\t\n\r".includes(character)) return " ";
  if (/[\p{C}\ufffd]/u.test(character)) return "";
  if (/\p{Zs}/u.test(character)) return " ";
  return CHINESE.test(character) ? ` ${character} ` : character;
}

function split(character: string): string {
  if (/\p{Mn}/u.test(character)) return "";
  return /[!-/:-@[-`{-~\p{P}]/u.test(character) ? ` ${character} ` : character;
}

function readModel(
  content: Uint8Array,
  where: string,
): { vocab: Record<string, number>; merges: [string, string][] } {
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new TokenizerError(`${where} is not valid JSON: ${(error as Error).message}`);
  }
  const model = isObject(document) ? document["model"] : null;
  if (
    !isObject(model) ||
    model["end_of_word_suffix"] !== END_OF_WORD ||
    !isObject(model["vocab"]) ||
    !Array.isArray(model["merges"])
  ) {
    throw new TokenizerError(`${where} is not a GPT-1 tokenizer.json`);
  }
  const merges = (model["merges"] as (string | [string, string])[]).map((merge) =>
    typeof merge === "string" ? (merge.split(" ") as [string, string]) : merge,
  );
  return { vocab: model["vocab"] as Record<string, number>, merges };
}
