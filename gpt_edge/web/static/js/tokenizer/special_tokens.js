/**
 * Special tokens in a text: the leftmost match, and of those the longest token.
 *
 * A text stays text unless its caller asks for special tokens; those that are "always" special are
 * found in any text. Rules: see `gpt_edge/tokenizer/special_tokens.py`.
 */
const WORD = "[\\p{L}\\p{N}_]";
export class SpecialTokenFinder {
    ids;
    always;
    all;
    constructor(ids, rules) {
        this.ids = ids;
        const of = (text) => rules[text] ?? [];
        const texts = Object.keys(ids);
        const expression = (chosen) => chosen.length === 0
            ? null
            : new RegExp(chosen
                .sort((one, other) => other.length - one.length)
                .map((text) => expressionOf(text, of(text)))
                .join("|"), "gu");
        this.always = expression(texts.filter((text) => of(text).includes("always")));
        this.all = expression(texts.filter((text) => !of(text).includes("never")));
    }
    /** The parts of `text` in order: ids of tokens, and the texts between, none empty. */
    split(text, special) {
        const pattern = special ? this.all : this.always;
        const parts = [];
        let start = 0;
        for (const match of pattern === null ? [] : text.matchAll(pattern)) {
            if (match.index > start)
                parts.push(text.slice(start, match.index));
            parts.push(this.idOf(match[0]));
            start = match.index + match[0].length;
        }
        if (start < text.length)
            parts.push(text.slice(start));
        return parts;
    }
    idOf(found) {
        for (const text of [found, found.trimStart(), found.trimEnd(), found.trim()]) {
            const id = Object.hasOwn(this.ids, text) ? this.ids[text] : undefined;
            if (id !== undefined)
                return id;
        }
        throw new Error(`${found} matched no special token`);
    }
}
function expressionOf(text, rules) {
    let expression = text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&").replace(/\\-/g, "\\x2d");
    if (rules.includes("single_word"))
        expression = `(?<!${WORD})${expression}(?!${WORD})`;
    if (rules.includes("lstrip"))
        expression = `\\s*${expression}`;
    return rules.includes("rstrip") ? `${expression}\\s*` : expression;
}
