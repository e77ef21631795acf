/** The settings of the form, and a link that holds them: in the fragment, which no browser sends. */
import { byId } from "./dom.js";
const NUMBERS = ["temperature", "top_k", "top_p", "max_new_tokens", "seed"];
const LARGEST_DRAWN = 2 ** 32;
function input(name) {
    return byId(name);
}
/** Show the model's own settings where the user has none. */
export function showDefaults(defaults, context) {
    for (const name of ["temperature", "top_k", "top_p"]) {
        const value = defaults[name];
        if (input(name).value === "" && typeof value === "number")
            input(name).value = String(value);
    }
    if (context !== null)
        input("max_new_tokens").max = String(context);
    showTemperature();
}
/** What the form asks for; the seed is drawn where it says none. Throws RangeError for a bad value. */
export function readSettings(defaults) {
    const values = { ...defaults };
    for (const name of NUMBERS) {
        const field = input(name);
        if (!field.checkValidity()) {
            field.focus();
            const label = field.labels?.[0]?.firstChild?.textContent?.trim() ?? name;
            throw new RangeError(`${label} ${field.value}: ${field.validationMessage}`);
        }
        if (field.value === "")
            continue;
        const value = Number(field.value);
        // 0 keeps every token
        values[name] = name === "top_k" && value === 0 ? Number.MAX_SAFE_INTEGER : value;
    }
    return { ...values, seed: Number(values.seed ?? drawnSeed()) };
}
function drawnSeed() {
    return Math.floor(Math.random() * LARGEST_DRAWN);
}
/** The address of this page with a prompt, the settings and the seed that was used. */
export function linkTo(prompt, model, seed) {
    const values = new URLSearchParams({ prompt, model });
    for (const name of NUMBERS) {
        const value = name === "seed" ? String(seed) : input(name).value;
        if (value !== "")
            values.set(name, value);
    }
    return `${location.origin}${location.pathname}#${values}`;
}
/** Fill the form from a link; the model that it names, or null. */
export function readLink() {
    const values = new URLSearchParams(location.hash.slice(1));
    const prompt = values.get("prompt");
    if (prompt !== null)
        byId("prompt").value = prompt;
    for (const name of NUMBERS) {
        const value = values.get(name);
        if (value !== null && Number.isFinite(Number(value)))
            input(name).value = value;
    }
    showTemperature();
    return values.get("model");
}
/** The slider's value beside it. */
export function showTemperature() {
    byId("temperature_value").textContent = Number(input("temperature").value).toFixed(2);
}
