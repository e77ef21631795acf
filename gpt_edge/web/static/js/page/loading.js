/** The progress of a load, file by file, and what was loaded in one line. */
import { byId, make, shownBytes } from "./dom.js";
export class Loading {
    panel = byId("loading");
    list = byId("files");
    about = byId("about");
    rows = new Map();
    begin() {
        this.rows.clear();
        this.list.replaceChildren();
        this.panel.hidden = false;
    }
    update({ file, loaded, total, stage }) {
        let row = this.rows.get(file);
        if (row === undefined) {
            row = make("li");
            const bar = make("progress");
            bar.setAttribute("aria-label", file);
            row.append(make("span", "file", file), bar, make("span", "state"));
            this.rows.set(file, row);
            this.list.append(row);
        }
        const bar = row.querySelector("progress");
        bar.max = Math.max(1, total);
        bar.value = loaded;
        const state = row.querySelector(".state");
        state.textContent = stage === "checked" ? "✓ checked" : shownBytes(loaded);
        row.classList.toggle("checked", stage === "checked");
    }
    end(model, loaded) {
        this.panel.hidden = true;
        const parts = [
            model.parameters === null ? null : `${(model.parameters / 1e6).toFixed(1)} M parameters`,
            model.scheme,
            model.bytes === null ? null : `${shownBytes(model.bytes)}, every file checked`,
            loaded.threads === null ? null : loaded.threads === 1 ? "1 thread" : `${loaded.threads} threads`,
        ];
        this.about.textContent = parts.filter((part) => part !== null).join(" · ");
    }
    fail() {
        this.panel.hidden = true;
    }
}
