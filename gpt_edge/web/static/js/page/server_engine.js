/** ServerEngine: models on the `gpt-edge serve` that sent this page, through OpenAI's API. */
import { GPTEdgeError } from "../errors.js";
const N_ALTERNATIVES = 5;
export class ServerEngine {
    models;
    key;
    constructor(models, key) {
        this.models = models;
        this.key = key;
    }
    /** Waits for the user to enter a key where the server wants one. */
    static async open(key) {
        let answer = await request("/v1/models", {}, key);
        while (answer.status === 401) {
            await key.entered();
            answer = await request("/v1/models", {}, key);
        }
        if (!answer.ok)
            throw await failure(answer);
        const found = (await answer.json());
        const models = found.data.map(({ id, kind }) => ({
            name: id,
            kind: kind === "classifier" ? "task" : "causal-lm",
            bytes: null,
            scheme: null,
            parameters: null,
        }));
        return new ServerEngine(models, key);
    }
    async load() {
        return { defaults: {}, task: null, context: null, threads: null, memoryBytes: null };
    }
    async generate(name, prompt, params, onPiece, signal) {
        const { max_new_tokens, seed, ...rest } = params;
        const given = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined);
        const body = {
            ...Object.fromEntries(given),
            model: name,
            prompt,
            max_tokens: max_new_tokens,
            seed: Number(seed),
            logprobs: N_ALTERNATIVES,
            stream: true,
            stream_options: { include_usage: true },
        };
        const started = performance.now();
        let first = 0;
        let tokens = 0;
        let reason = "cancelled";
        let latest = [];
        try {
            for await (const event of events(await this.ask("/v1/completions", body, signal))) {
                if (event.error !== undefined)
                    throw new GPTEdgeError(event.error.message);
                tokens = event.usage?.completion_tokens ?? tokens;
                const choice = event.choices[0];
                if (choice === undefined)
                    continue;
                first ||= performance.now();
                reason = choice.finish_reason ?? reason;
                const found = alternativesOf(choice);
                if (found.length > 0)
                    latest = found; // text may come after its token, in an event of its own
                if (choice.text !== "")
                    onPiece({ text: choice.text, alternatives: latest });
            }
        }
        catch (error) {
            if (error.name !== "AbortError")
                throw error;
        }
        const seconds = (performance.now() - (first || started)) / 1000;
        return {
            reason,
            tokens,
            tokensPerSecond: tokens > 1 ? (tokens - 1) / seconds : 0,
            firstTokenSeconds: first === 0 ? 0 : (first - started) / 1000,
            ids: null,
            memoryBytes: null,
        };
    }
    async classify(name, texts) {
        const input = [texts.length > 1 ? texts : texts[0]];
        const answer = await this.ask("/v1/classify", { model: name, input });
        const [found] = (await answer.json()).data;
        const { label = null, labels, probs = [], score = null } = found;
        const names = labels ?? texts.slice(1);
        return { label, labels: names, probabilities: probs, score, n_tokens: 0 };
    }
    async ask(path, body, signal = null) {
        const headers = { "Content-Type": "application/json" };
        const sent = { method: "POST", headers, body: JSON.stringify(body), signal };
        const answer = await request(path, sent, this.key);
        if (!answer.ok)
            throw await failure(answer);
        return answer;
    }
}
/** An answer, which says whether the server took the key. */
async function request(path, sent, key) {
    const answer = await fetch(path, { ...sent, headers: { ...sent.headers, ...key.headers } });
    if (answer.status === 401)
        key.refused();
    else
        key.accepted();
    return answer;
}
async function failure(answer) {
    const body = (await answer.json().catch(() => null));
    return new GPTEdgeError(body?.error?.message ?? `the server answered ${answer.status}`);
}
/** The data of each server-sent event. */
async function* events(answer) {
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let buffered = "";
    for (;;) {
        const { value, done } = await reader.read();
        if (done)
            return;
        buffered += decoder.decode(value, { stream: true });
        const parts = buffered.split("\n\n");
        buffered = parts.pop();
        for (const part of parts) {
            const data = part.replace(/^data: /, "");
            if (data === "[DONE]")
                return;
            yield JSON.parse(data);
        }
    }
}
function alternativesOf(choice) {
    const token = choice.logprobs?.tokens.at(-1);
    const top = choice.logprobs?.top_logprobs.at(-1);
    if (token === undefined || top === undefined)
        return [];
    const rows = Object.entries(top).sort((one, other) => other[1] - one[1]);
    return rows.map(([text, logprob]) => ({
        text,
        probability: Math.exp(logprob),
        isChosen: text === token,
    }));
}
