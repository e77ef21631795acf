/** The tab in which a classifier answers. */
import { barRow, byId, messageOf } from "./dom.js";
const MAX_ROWS = 10;
const HINTS = {
    entailment: "Two lines: a premise and a hypothesis",
    similarity: "Two lines: the two texts",
    "multiple-choice": "A line for the question, and one for each answer",
};
export class ClassifyTab {
    engine;
    model;
    text = byId("example");
    answer = byId("answer");
    bars = byId("label_bars");
    isBusy = false;
    constructor(engine, model) {
        this.engine = engine;
        this.model = model;
        byId("classify").addEventListener("click", () => void this.classify());
    }
    choose(model) {
        this.model = model;
        this.bars.replaceChildren();
        this.say("");
    }
    async classify() {
        if (this.isBusy)
            return;
        this.isBusy = true;
        this.say("Reading…");
        try {
            const { task } = await this.engine.load(this.model.name, () => undefined);
            this.showHint(task);
            await this.show();
        }
        catch (error) {
            this.bars.replaceChildren();
            this.say(messageOf(error), true);
        }
        finally {
            this.isBusy = false;
        }
    }
    async show() {
        const found = await this.engine.classify(this.model.name, this.texts());
        const rows = found.labels.map((label, index) => [
            label,
            found.probabilities[index] ?? 0,
        ]);
        rows.sort((one, other) => other[1] - one[1]);
        this.bars.replaceChildren(...rows.slice(0, MAX_ROWS).map(([label, share], index) => barRow(label, share, index === 0)));
        const more = rows.length > MAX_ROWS ? `, the likeliest ${MAX_ROWS} of ${rows.length} labels` : "";
        this.say(found.label === null ? `Score ${found.score?.toFixed(3)}` : `${found.label}${more}`);
    }
    /** One text, or for a task of several texts its lines. */
    texts() {
        if (byId("example_hint").textContent === "")
            return [this.text.value];
        return this.text.value.split("\n").filter((line) => line.trim() !== "");
    }
    showHint(task) {
        byId("example_hint").textContent = HINTS[task?.kind ?? ""] ?? "";
    }
    say(text, isError = false) {
        this.answer.textContent = text;
        this.answer.classList.toggle("error", isError);
    }
}
