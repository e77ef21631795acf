/** Tokenizer: text to ids and back, from the bundle's own file and from nothing else. */
import { TokenizerError } from "../errors.js";
import { joinByRank } from "./byte_pairs.js";
import { ByteDetokenizer, CharacterDetokenizer } from "./detokenizer.js";
import { GPT1Words } from "./gpt1.js";
import { splitPattern } from "./patterns.js";
import { bytesById, parseRanks, utf8 } from "./rank_file.js";
import { SpecialTokenFinder } from "./special_tokens.js";
const LIMIT_REMEMBERED = 1 << 14; // pieces
export class Tokenizer {
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
                return new Tokenizer(spec, byteLevel(spec, content, where));
            case "gpt1":
                return new Tokenizer(spec, new GPT1Words(spec, content, where));
            case "characters":
                return new Tokenizer(spec, characters(spec, content, where));
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
    idsOf(text, special, isWhole) {
        const ids = [];
        let isStart = isWhole;
        for (const part of this.finder.split(text.replace(/\p{Surrogate}/gu, "\ufffd"), special)) {
            if (typeof part === "number") {
                ids.push(part);
                isStart = true; // the maker's tokenizer treats what follows as a text of its own
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
        if (bytes === undefined) {
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
}
function byteLevel(spec, content, where) {
    const table = parseRanks(content, where);
    const bytesOf = bytesById(table, spec.special_tokens, spec.vocab_size, where);
    const pattern = splitPattern(spec.pattern);
    const remembered = new Map();
    const encodePiece = (piece) => {
        const known = remembered.get(piece);
        if (known !== undefined)
            return known;
        const ranks = joinByRank(utf8(piece), table.rankOf);
        const ids = table.idOfRank === null ? ranks : ranks.map((rank) => table.idOfRank.get(rank));
        if (remembered.size < LIMIT_REMEMBERED && piece.length < 64)
            remembered.set(piece, ids);
        return ids;
    };
    return {
        encode: (text) => [...text.matchAll(pattern)].flatMap((match) => encodePiece(match[0])),
        detokenizer: () => new ByteDetokenizer(bytesOf),
        bytesOf: (id) => bytesOf[id],
        maxTokenBytes: table.longest,
    };
}
function characters(spec, content, where) {
    let list;
    try {
        list = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
    }
    catch {
        list = null;
    }
    if (!Array.isArray(list) || list.length !== spec.vocab_size) {
        throw new TokenizerError(`${where} must be a JSON list of ${spec.vocab_size} characters`);
    }
    const table = list;
    const idOf = new Map(table.map((character, id) => [character, id]));
    const encode = (text) => [...text].map((character) => {
        const id = idOf.get(character);
        if (id === undefined) {
            throw new TokenizerError(`the text holds ${JSON.stringify(character)}: not in the model's vocabulary of ` +
                `${spec.vocab_size} characters`, "write the text with the characters that the model was trained on");
        }
        return id;
    });
    return {
        encode,
        detokenizer: () => new CharacterDetokenizer(table),
        bytesOf: (id) => (table[id] === undefined ? undefined : utf8(table[id])),
        maxTokenBytes: 4,
    };
}
