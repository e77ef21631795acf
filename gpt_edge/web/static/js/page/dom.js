/** Small helpers for the page. Text is only ever put in as text. */
/** The element with an id, which index.html has. */
export function byId(id) {
    const found = document.getElementById(id);
    if (found === null)
        throw new Error(`the page has no #${id}`);
    return found;
}
/** A new element with a class and a text. */
export function make(name, className = "", text = "") {
    const element = document.createElement(name);
    if (className !== "")
        element.className = className;
    if (text !== "")
        element.textContent = text;
    return element;
}
/** A number of bytes as people read it. */
export function shownBytes(bytes) {
    if (bytes < 1e6)
        return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
    return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e6)} MB`;
}
export function percent(share) {
    return share < 0.001 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`;
}
/** A row of a chart: a name, a bar and the share as a number. */
export function barRow(name, share, isMarked) {
    const row = make("li", isMarked ? "bar marked" : "bar");
    const track = make("span", "track");
    const fill = make("span", "fill");
    fill.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    row.append(make("span", "name", name), track, make("span", "share", percent(share)));
    return row;
}
/** What went wrong, in one line. */
export function messageOf(error) {
    if (!(error instanceof Error))
        return String(error);
    const hint = error.hint;
    return hint ? `${error.message}. Hint: ${hint}` : error.message;
}
