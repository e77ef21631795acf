/** The tab in which a language model writes. */
import { byId, messageOf, shownBytes } from "./dom.js";
import { Loading } from "./loading.js";
import { linkTo, readSettings, showDefaults, showTemperature } from "./settings.js";
import { Story } from "./story.js";
const REASONS = {
    stop: "The end",
    length: "Length reached",
    context_full: "Context full",
    cancelled: "Stopped",
};
export class WriteTab {
    engine;
    prompt = byId("prompt");
    status = byId("status");
    story = new Story();
    loading = new Loading();
    defaults = {};
    running = null;
    lastSeed = null;
    model;
    constructor(engine, first) {
        this.engine = engine;
        this.model = first;
        byId("generate").addEventListener("click", () => void this.generate());
        byId("again").addEventListener("click", () => void this.generate(true));
        byId("stop").addEventListener("click", () => this.stop());
        byId("copy").addEventListener("click", () => void this.copy(this.story.text, "Text"));
        byId("share").addEventListener("click", () => void this.share());
        byId("temperature").addEventListener("input", showTemperature);
    }
    /** Load a model and show its settings. */
    async choose(model) {
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
        }
        catch (error) {
            this.loading.fail();
            this.say(messageOf(error), true);
            this.setState("failed");
        }
    }
    /** isNew: draw another seed, whatever the form says. */
    async generate(isNew = false) {
        if (document.body.dataset["state"] !== "ready")
            return;
        const prompt = this.prompt.value;
        try {
            const params = readSettings(this.defaults);
            if (isNew)
                params.seed = Math.floor(Math.random() * 2 ** 32);
            this.lastSeed = params.seed;
            await this.run(prompt, params);
        }
        catch (error) {
            this.say(messageOf(error), true);
        }
    }
    stop() {
        this.running?.abort();
    }
    async run(prompt, params) {
        this.running = new AbortController();
        this.setState("writing");
        this.say("Writing…");
        this.story.begin(prompt);
        let n = 0;
        const started = performance.now();
        const onPiece = (piece) => {
            this.story.add(piece);
            n += 1;
            const seconds = (performance.now() - started) / 1000;
            if (n % 8 === 0)
                byId("speed").textContent = `${(n / seconds).toFixed(0)} tokens a second`;
        };
        try {
            const { signal } = this.running;
            const summary = await this.engine.generate(this.model.name, prompt, params, onPiece, signal);
            this.conclude(summary);
        }
        finally {
            this.running = null;
            this.story.end();
            this.setState("ready");
        }
    }
    conclude(summary) {
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
    share() {
        const seed = this.lastSeed ?? Number(byId("seed").value);
        return this.copy(linkTo(this.prompt.value, this.model.name, seed), "Link");
    }
    async copy(text, what) {
        try {
            await navigator.clipboard.writeText(text);
            this.say(`${what} copied.`);
        }
        catch {
            this.say(`This browser does not let the page copy: ${text}`, true);
        }
    }
    say(text, isError = false) {
        this.status.textContent = text;
        this.status.classList.toggle("error", isError);
    }
    setState(state) {
        document.body.dataset["state"] = state;
        byId("generate").disabled = state !== "ready";
        byId("stop").disabled = state !== "writing";
        for (const id of ["again", "copy", "share"]) {
            byId(id).disabled = state !== "ready" || this.lastSeed === null;
        }
    }
}
