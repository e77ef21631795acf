/**
 * Story: the text as it is written. Each piece is a token that the mouse, a finger or the arrow
 * keys can point at; the chart then shows what might have stood there.
 */
import { barRow, byId, make } from "./dom.js";
export class Story {
    place = byId("story");
    chart = byId("bars");
    caption = byId("bars_caption");
    alternatives = new WeakMap();
    pointed = null;
    constructor() {
        this.place.addEventListener("pointerover", (event) => this.point(event.target));
        this.place.addEventListener("pointerleave", () => this.point(null));
        this.place.addEventListener("click", (event) => this.point(event.target));
        this.place.addEventListener("keydown", (event) => this.walk(event));
    }
    /** Begin again after a prompt. */
    begin(prompt) {
        this.place.replaceChildren(make("span", "prompt", prompt));
        this.pointed = null;
        this.place.setAttribute("aria-busy", "true");
        this.place.classList.add("writing");
    }
    add(piece) {
        const token = make("span", "token", piece.text);
        this.alternatives.set(token, piece.alternatives);
        const isAtEnd = this.isScrolledToEnd();
        this.place.append(token);
        if (this.pointed === null)
            this.show(token);
        if (isAtEnd)
            this.place.scrollTop = this.place.scrollHeight;
    }
    end() {
        this.place.setAttribute("aria-busy", "false");
        this.place.classList.remove("writing");
    }
    /** The prompt and what was written. */
    get text() {
        return this.place.textContent ?? "";
    }
    isScrolledToEnd() {
        const { scrollTop, scrollHeight, clientHeight } = this.place;
        return scrollHeight - scrollTop - clientHeight < 40;
    }
    get tokens() {
        return [...this.place.querySelectorAll(".token")];
    }
    /** Point at a token; null is the last one. */
    point(target) {
        const token = target !== null && target.classList.contains("token") ? target : null;
        if (target !== null && token === null && target !== this.place)
            return;
        this.pointed?.classList.remove("pointed");
        this.pointed = token;
        token?.classList.add("pointed");
        const shown = token ?? this.tokens.at(-1);
        if (shown !== undefined)
            this.show(shown);
    }
    walk(event) {
        const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
        const tokens = this.tokens;
        if (step === undefined || tokens.length === 0)
            return;
        event.preventDefault();
        const at = this.pointed === null ? tokens.length : tokens.indexOf(this.pointed);
        const next = tokens[Math.min(tokens.length - 1, Math.max(0, at + step))];
        this.point(next);
        next.scrollIntoView({ block: "nearest" });
    }
    show(token) {
        const rows = this.alternatives.get(token) ?? [];
        this.caption.textContent = `In place of “${visible(token.textContent ?? "")}”`;
        this.chart.replaceChildren(...rows.map((row) => barRow(visible(row.text), row.probability, row.isChosen)));
    }
}
/** White space that would not be seen is spelled. */
function visible(text) {
    return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";
}
