/** The progress of a load, file by file, and what was loaded in one line. */

import type { LoadProgress } from "../bundle/bundle.js";
import { byId, make, shownBytes } from "./dom.js";
import type { Loaded, ModelEntry } from "./protocol.js";

export class Loading {
  private readonly panel = byId("loading");
  private readonly list = byId("files");
  private readonly about = byId("about");
  private readonly rows = new Map<string, HTMLElement>();

  begin(): void {
    this.rows.clear();
    this.list.replaceChildren();
    this.panel.hidden = false;
  }

  update({ file, loaded, total, stage }: LoadProgress): void {
    let row = this.rows.get(file);
    if (row === undefined) {
      row = make("li");
      const bar = make("progress");
      bar.setAttribute("aria-label", file);
      row.append(make("span", "file", file), bar, make("span", "state"));
      this.rows.set(file, row);
      this.list.append(row);
    }
    const bar = row.querySelector("progress")!;
    bar.max = Math.max(1, total);
    bar.value = loaded;
    const state = row.querySelector(".state")!;
    state.textContent = stage === "checked" ? "✓ checked" : shownBytes(loaded);
    row.classList.toggle("checked", stage === "checked");
  }

  end(model: ModelEntry, loaded: Loaded): void {
    this.panel.hidden = true;
    const parts = [
      model.parameters === null ? null : `${(model.parameters / 1e6).toFixed(1)} M parameters`,
      model.scheme,
      model.bytes === null ? null : `${shownBytes(model.bytes)}, every file checked`,
      loaded.threads === null ? null : loaded.threads === 1 ? "1 thread" : `${loaded.threads} threads`,
    ];
    this.about.textContent = parts.filter((part) => part !== null).join(" · ");
  }

  fail(): void {
    this.panel.hidden = true;
  }
}
