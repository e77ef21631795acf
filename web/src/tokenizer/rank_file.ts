/** tiktoken rank files: a line per token, `base64(token) rank`, or with a third column, the id. */

import { TokenizerError } from "../errors.js";

const LINE = /^([A-Za-z0-9+/]*={0,2}) (\d{1,7})(?: (\d{1,7}))?$/;
const N_BYTES = 256;

/** Bytes are strings of one character for each byte, which Map compares by content. */
export interface RankTable {
  readonly rankOf: ReadonlyMap<string, number>;
  readonly idOfRank: ReadonlyMap<number, number> | null; // null: the rank is the id
  readonly longest: number;
}

/** Throws TokenizerError naming the line. */
export function parseRanks(content: Uint8Array, where: string): RankTable {
  const rankOf = new Map<string, number>();
  const idOfRank = new Map<number, number>();
  let hasIds = false;
  let longest = 0;
  const lines = new TextDecoder("latin1").decode(content).replace(/\n$/, "").split("\n");
  lines.forEach((line, index) => {
    const found = LINE.exec(line);
    if (found === null) {
      throw new TokenizerError(
        `${where}, line ${index + 1}: found ${JSON.stringify(line.slice(0, 60))}, expected ` +
          "'base64(token) rank'",
      );
    }
    const token = atob(found[1]!);
    const rank = Number(found[2]);
    hasIds ||= found[3] !== undefined;
    if (rankOf.has(token) || idOfRank.has(rank)) {
      throw new TokenizerError(`${where}, line ${index + 1}: a token or rank comes twice`);
    }
    rankOf.set(token, rank);
    idOfRank.set(rank, found[3] === undefined ? rank : Number(found[3]));
    longest = Math.max(longest, token.length);
  });
  for (let byte = 0; byte < N_BYTES; byte++) {
    if (!rankOf.has(String.fromCharCode(byte))) {
      throw new TokenizerError(`${where}: no token for byte 0x${byte.toString(16)}`);
    }
  }
  return { rankOf, idOfRank: hasIds ? idOfRank : null, longest };
}

/** The bytes of each id, special tokens included. Throws TokenizerError unless all are there. */
export function bytesById(
  table: RankTable,
  specialTokens: Readonly<Record<string, number>>,
  vocabSize: number,
  where: string,
): string[] {
  const bytesOf = new Array<string | undefined>(vocabSize);
  const put = (token: string, id: number): void => {
    if (id >= vocabSize || bytesOf[id] !== undefined) {
      throw new TokenizerError(`${where}: id ${id} comes twice, or is not below ${vocabSize}`);
    }
    bytesOf[id] = token;
  };
  for (const [token, rank] of table.rankOf) put(token, table.idOfRank?.get(rank) ?? rank);
  for (const [text, id] of Object.entries(specialTokens)) put(utf8(text), id);
  const missing = bytesOf.findIndex((token) => token === undefined);
  if (missing >= 0) {
    throw new TokenizerError(
      `${where}: no token has id ${missing}, ids 0 to ${vocabSize - 1} were expected`,
    );
  }
  return bytesOf as string[];
}

/** UTF-8 as one character for each byte; a lone surrogate counts as U+FFFD. */
export function utf8(text: string): string {
  let bytes = "";
  for (const byte of new TextEncoder().encode(text)) bytes += String.fromCharCode(byte);
  return bytes;
}
