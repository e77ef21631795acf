// The page of `gpt-edge serve`: asks the server it came from, and puts text in as text.

const element = (id) => document.getElementById(id);
const numbers = ["temperature", "top_k", "top_p", "max_tokens", "seed"];
let models = [];
let running = null;
let lastSeed = null;

function chosen() {
  return models.find((model) => model.id === element("model").value);
}

async function ask(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok) {
    const failure = await answer.json().catch(() => null);
    throw new Error(failure?.error?.message ?? `the server answered ${answer.status}`);
  }
  return answer;
}

// The data of each server-sent event.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffered += value;
    const parts = buffered.split("\n\n");
    buffered = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function settings() {
  const values = {};
  for (const name of numbers) {
    const value = element(name).value;
    if (value !== "") values[name] = Number(value);
  }
  return values;
}

function setRunning(isRunning) {
  element("go").disabled = isRunning;
  element("stop").disabled = !isRunning;
  for (const id of ["again", "copy", "share"]) element(id).disabled = isRunning;
}

async function generate(seed) {
  if (running) return;
  const prompt = element("prompt").value;
  const values = settings();
  lastSeed = values.seed ?? seed ?? Math.floor(Math.random() * 2 ** 32);
  running = new AbortController();
  setRunning(true);
  const text = element("text");
  text.replaceChildren();
  const before = document.createElement("span");
  before.className = "prompt";
  before.textContent = prompt;
  const after = document.createElement("span");
  text.append(before, after);
  const started = performance.now();
  let usage = null;
  let reason = "stopped";
  try {
    const answer = await ask("/v1/completions", {
      model: chosen().id, prompt, ...values, seed: lastSeed,
      stream: true, stream_options: { include_usage: true },
    }, running.signal);
    for await (const event of events(answer)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      if (!choice) continue;
      after.append(choice.text);
      reason = choice.finish_reason ?? reason;
    }
  } catch (error) {
    reason = error.name === "AbortError" ? "stopped" : `error: ${error.message}`;
  }
  const seconds = (performance.now() - started) / 1000;
  const speed = usage ? `, ${(usage.completion_tokens / seconds).toFixed(0)} tokens a second` : "";
  const length = usage ? `, ${usage.completion_tokens} tokens` : "";
  element("status").textContent = `${reason}${length}${speed}, seed ${lastSeed}`;
  running = null;
  setRunning(false);
}

function stop() {
  running?.abort();
}

function link() {
  const values = new URLSearchParams({ prompt: element("prompt").value, ...settings(), seed: lastSeed });
  return `${location.origin}/#${values}`;
}

function readLink() {
  const values = new URLSearchParams(location.hash.slice(1));
  if (values.has("prompt")) element("prompt").value = values.get("prompt");
  for (const name of numbers) if (values.has(name)) element(name).value = values.get(name);
}

async function copy(text, what) {
  await navigator.clipboard.writeText(text);
  element("status").textContent = `${what} copied`;
}

async function classify() {
  const bars = element("bars");
  bars.replaceChildren();
  element("answer").textContent = "";
  try {
    const lines = element("example").value.split("\n").filter((line) => line);
    const input = [lines.length > 1 ? lines : lines[0] ?? ""];
    const answer = await ask("/v1/classify", { model: chosen().id, input });
    const found = (await answer.json()).data[0];
    element("answer").textContent = found.label ?? `score ${found.score}`;
    const labels = found.labels ?? lines.slice(1);
    const rows = (found.probs ?? []).map((share, index) => [labels[index], share]);
    rows.sort((one, other) => other[1] - one[1]);
    for (const [label, share] of rows.slice(0, 10)) {
      const row = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = label;
      const bar = document.createElement("progress");
      bar.max = 1;
      bar.value = share;
      const value = document.createElement("span");
      value.textContent = `${(share * 100).toFixed(1)} %`;
      row.append(name, bar, value);
      bars.append(row);
    }
  } catch (error) {
    element("answer").textContent = `error: ${error.message}`;
  }
}

function showModel() {
  const isClassifier = chosen()?.kind === "classifier";
  element("generate").hidden = isClassifier;
  element("classify").hidden = !isClassifier;
}

async function start() {
  readLink();
  const answer = await fetch("/v1/models");
  models = (await answer.json()).data ?? [];
  for (const model of models) element("model").append(new Option(model.id, model.id));
  showModel();
}

element("model").addEventListener("change", showModel);
element("go").addEventListener("click", () => generate());
element("again").addEventListener("click", () => generate());
element("stop").addEventListener("click", stop);
element("label").addEventListener("click", classify);
element("copy").addEventListener("click", () => copy(element("text").textContent, "text"));
element("share").addEventListener("click", () => copy(link(), "link"));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
});
start();
