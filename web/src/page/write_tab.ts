/** The tab in which a language model writes. */

import type { SamplingParams } from "../generate/params.js";
import { byId, messageOf, shownBytes } from "./dom.js";
import { Loading } from "./loading.js";
import type { Engine, ModelEntry, Summary } from "./protocol.js";
import { linkTo, readSettings, showDefaults, showTemperature } from "./settings.js";
import { Story } from "./story.js";

const REASONS: Readonly<Record<string, string>> = {
  stop: "The end",
  length: "Length reached",
  context_full: "Context full",
  cancelled: "Stopped",
};

export class WriteTab {
  private readonly prompt = byId<HTMLTextAreaElement>("prompt");
  private readonly status = byId("status");
  private readonly story = new Story();
  private readonly loading = new Loading();
  private defaults: SamplingParams = {};
  private running: AbortController | null = null;
  private lastSeed: number | null = null;
  private model: ModelEntry;

  constructor(
    private readonly engine: Engine,
    first: ModelEntry,
  ) {
    this.model = first;
    byId("generate").addEventListener("click", () => void this.generate());
    byId("again").addEventListener("click", () => void this.generate(true));
    byId("stop").addEventListener("click", () => this.stop());
    byId("copy").addEventListener("click", () => void this.copy(this.story.text, "Text"));
    byId("share").addEventListener("click", () => void this.share());
    byId("temperature").addEventListener("input", showTemperature);
  }

  /** Load a model and show its settings. */
  async choose(model: ModelEntry): Promise<void> {
    this.stop();
    this.model = model;
    this.loading.begin();
    this.setState("loading");
    this.say("Loading…");
    try {
      const loaded = await this.engine.load(model.name, (progress) => this.loading.update(progress));
      this.defaults = loaded.defaults;
      showDefaults(loaded.defaults, loaded.context);
      this.loading.end(model, loaded);
      this.say("Ready.");
      this.setState("ready");
    } catch (error) {
      this.loading.fail();
      this.say(messageOf(error), true);
      this.setState("failed");
    }
  }

  /** isNew: draw another seed, whatever the form says. */
  async generate(isNew = false): Promise<void> {
    if (document.body.dataset["state"] !== "ready") return;
    const prompt = this.prompt.value;
    try {
      const params = readSettings(this.defaults);
      if (isNew) params.seed = Math.floor(Math.random() * 2 ** 32);
      this.lastSeed = params.seed;
      await this.run(prompt, params);
    } catch (error) {
      this.say(messageOf(error), true);
    }
  }

  stop(): void {
    this.running?.abort();
  }

  private async run(prompt: string, params: SamplingParams): Promise<void> {
    this.running = new AbortController();
    this.setState("writing");
    this.say("Writing…");
    this.story.begin(prompt);
    let n = 0;
    const started = performance.now();
    const onPiece: Parameters<Engine["generate"]>[3] = (piece) => {
      this.story.add(piece);
      n += 1;
      const seconds = (performance.now() - started) / 1000;
      if (n % 8 === 0) byId("speed").textContent = `${(n / seconds).toFixed(0)} tokens a second`;
    };
    try {
      const { signal } = this.running;
      const summary = await this.engine.generate(this.model.name, prompt, params, onPiece, signal);
      this.conclude(summary);
    } finally {
      this.running = null;
      this.story.end();
      this.setState("ready");
    }
  }

  private conclude(summary: Summary): void {
    const parts = [
      REASONS[summary.reason] ?? summary.reason,
      `${summary.tokens} tokens`,
      `seed ${this.lastSeed}`,
    ];
    this.say(parts.join(" · "));
    byId("speed").textContent =
      summary.tokensPerSecond > 0 ? `${summary.tokensPerSecond.toFixed(0)} tokens a second` : "";
    byId("memory").textContent =
      summary.memoryBytes === null ? "" : `${shownBytes(summary.memoryBytes)} of memory`;
    document.dispatchEvent(new CustomEvent("gpt-edge-written", { detail: summary }));
  }

  private share(): Promise<void> {
    const seed = this.lastSeed ?? Number(byId<HTMLInputElement>("seed").value);
    return this.copy(linkTo(this.prompt.value, this.model.name, seed), "Link");
  }

  private async copy(text: string, what: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      this.say(`${what} copied.`);
    } catch {
      this.say(`This browser does not let the page copy: ${text}`, true);
    }
  }

  private say(text: string, isError = false): void {
    this.status.textContent = text;
    this.status.classList.toggle("error", isError);
  }

  private setState(state: "loading" | "ready" | "writing" | "failed"): void {
    document.body.dataset["state"] = state;
    byId<HTMLButtonElement>("generate").disabled = state !== "ready";
    byId<HTMLButtonElement>("stop").disabled = state !== "writing";
    for (const id of ["again", "copy", "share"]) {
      byId<HTMLButtonElement>(id).disabled = state !== "ready" || this.lastSeed === null;
    }
  }
}
