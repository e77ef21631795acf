/**
 * Split patterns of byte-level vocabularies: where a text is cut before its bytes are joined.
 *
 * White space is Unicode's White_Space, as in tiktoken's regular expressions: JavaScript's `\s`
 * leaves out U+0085 and takes in U+FEFF. Source: tiktoken_ext/openai_public.py.
 */
import { TokenizerError } from "../errors.js";
const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const S = `[${SPACE}]`;
const NOT_S = `[^${SPACE}]`;
const SIGNS = `[^${SPACE}\\p{L}\\p{N}]+`;
// "ſ" is an s in another case
const CONTRACTION = "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])";
const UPPER = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const LOWER = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const LAST = [`${S}+(?!${NOT_S})`, `${S}+`];
const SOURCES = {
    gpt2: ["'(?:[sdmt]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+", ` ?${SIGNS}`, ...LAST].join("|"),
    cl100k: [
        CONTRACTION,
        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
        "\\p{N}{1,3}",
        ` ?${SIGNS}[\\r\\n]*`,
        `${S}*[\\r\\n]+`,
        ...LAST,
    ].join("|"),
    o200k: [
        `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]*[${LOWER}]+(?:${CONTRACTION})?`,
        `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]+[${LOWER}]*(?:${CONTRACTION})?`,
        "\\p{N}{1,3}",
        ` ?${SIGNS}[\\r\\n/]*`,
        `${S}*[\\r\\n]+`,
        ...LAST,
    ].join("|"),
};
/** The expression of a known pattern. Throws TokenizerError for one that is another engine's. */
export function splitPattern(name) {
    const source = SOURCES[name ?? ""];
    if (source === undefined) {
        throw new TokenizerError(`the split pattern ${JSON.stringify(name).slice(0, 60)} runs in Python alone; here are ` +
            Object.keys(SOURCES).join(", "), "run this bundle with the Python package, or through gpt-edge serve");
    }
    return new RegExp(source, "gu");
}
