/**
 * The API key of a server that wants one. It stays in this tab: no link holds it, and the session
 * storage, where a reload finds it again, ends with the tab.
 */

import { byId } from "./dom.js";

const PLACE = "gpt-edge API key";
const PRINTABLE = /^[\x20-\x7e]*$/; // all that a header carries

export class ServerKey {
  private readonly panel = byId("access");
  private readonly field = byId<HTMLInputElement>("api_key");
  private readonly note = byId("access_note");
  private value = stored();
  private isTried = true;
  private onEntered: () => void = () => undefined;

  constructor() {
    byId("use_key").addEventListener("click", () => this.enter());
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.enter();
    });
  }

  /** What a request carries. */
  get headers(): Record<string, string> {
    return this.value === "" ? {} : { Authorization: `Bearer ${this.value}` };
  }

  /** The server wants another one: ask for it. */
  refused(): void {
    if (this.panel.hidden) {
      this.panel.hidden = false;
      this.field.focus();
    }
    this.say(this.value === "" ? "" : "The server does not know this key.");
  }

  /** The server took it, or wants none. */
  accepted(): void {
    if (this.isTried) return;
    this.isTried = true;
    store(this.value);
  }

  /** Resolves when the user has entered one. */
  entered(): Promise<void> {
    return new Promise((resolve) => (this.onEntered = resolve));
  }

  private enter(): void {
    const value = this.field.value.trim();
    if (!PRINTABLE.test(value)) {
      this.say("A key has printable ASCII characters alone.");
      return;
    }
    this.value = value;
    this.isTried = false;
    this.field.value = "";
    this.panel.hidden = true;
    this.onEntered();
  }

  private say(problem: string): void {
    this.note.textContent = problem || "It stays in this tab, and no link holds it.";
    this.note.classList.toggle("error", problem !== "");
  }
}

function stored(): string {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return ""; // a page without storage
  }
}

function store(value: string): void {
  try {
    sessionStorage.setItem(PLACE, value);
  } catch {
    // a reload asks again
  }
}
