// dom.js
function byId(id) {
  const found = document.getElementById(id);
  if (found === null)
    throw new Error(`the page has no #${id}`);
  return found;
}
function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className !== "")
    element.className = className;
  if (text !== "")
    element.textContent = text;
  return element;
}
function shownBytes(bytes) {
  if (bytes < 1e6)
    return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e6)} MB`;
}
function percent(share) {
  return share < 1e-3 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`;
}
function barRow(name, share, isMarked) {
  const row = make("li", isMarked ? "bar marked" : "bar");
  const track = make("span", "track");
  const fill2 = make("span", "fill");
  fill2.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
  track.append(fill2);
  track.setAttribute("aria-hidden", "true");
  row.append(make("span", "name", name), track, make("span", "share", percent(share)));
  return row;
}
function messageOf(error) {
  if (!(error instanceof Error))
    return String(error);
  const hint = error.hint;
  return hint ? `${error.message}. Hint: ${hint}` : error.message;
}

// classify_tab.js
var MAX_ROWS = 10;
var HINTS = {
  entailment: "Two lines: a premise and a hypothesis",
  similarity: "Two lines: the two texts",
  "multiple-choice": "A line for the question, and one for each answer"
};
var ClassifyTab = class {
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
      const { task } = await this.engine.load(this.model.name, () => void 0);
      this.showHint(task);
      await this.show();
    } catch (error) {
      this.bars.replaceChildren();
      this.say(messageOf(error), true);
    } finally {
      this.isBusy = false;
    }
  }
  async show() {
    const found = await this.engine.classify(this.model.name, this.texts());
    const rows = found.labels.map((label, index) => [
      label,
      found.probabilities[index] ?? 0
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
};

// ../errors.js
var GPTEdgeError = class extends Error {
  hint;
  constructor(message, hint = null) {
    super(message);
    this.name = new.target.name;
    this.hint = hint;
  }
};

// local_engine.js
var LocalEngine = class {
  models;
  starting;
  worker = null;
  current = null;
  loaded = null;
  /** starting: a worker that has no model yet, started before the models were known. */
  constructor(models, starting = null) {
    this.models = models;
    this.starting = starting;
  }
  async load(name, onProgress) {
    if (this.current === name && this.loaded !== null)
      return this.loaded;
    this.end();
    this.worker = this.starting ?? startWorker();
    this.starting = null;
    const url = new URL(`models/${name}`, document.baseURI).href;
    const reply = await this.ask({ do: "load", url }, (update) => {
      if (update.is === "progress")
        onProgress(update.progress);
    });
    if (reply.is !== "loaded")
      throw unexpected(reply);
    this.current = name;
    this.loaded = reply.loaded;
    return reply.loaded;
  }
  async generate(name, prompt, params, onPiece, signal) {
    await this.load(name, () => void 0);
    const stop = () => this.worker?.postMessage({ do: "stop" });
    signal.addEventListener("abort", stop);
    try {
      const reply = await this.ask({ do: "generate", prompt, params }, (update) => {
        if (update.is === "piece")
          onPiece(update.piece);
      });
      if (reply.is !== "ended")
        throw unexpected(reply);
      return reply.summary;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }
  async classify(name, texts) {
    await this.load(name, () => void 0);
    const reply = await this.ask({ do: "classify", texts });
    if (reply.is !== "prediction")
      throw unexpected(reply);
    return reply.prediction;
  }
  /** Send a request and wait for its last reply. A worker that dies is an error, not silence. */
  ask(request2, onUpdate = () => void 0) {
    const worker = this.worker;
    if (worker === null)
      throw new GPTEdgeError("no model is loaded");
    return new Promise((resolve, reject) => {
      worker.onerror = (event) => {
        this.end();
        const detail = event.message || "its memory may be used up";
        reject(new GPTEdgeError(`the model's worker ended: ${detail}`, "load the page again"));
      };
      worker.onmessage = (event) => {
        const reply = event.data;
        if (reply.is === "progress" || reply.is === "piece")
          onUpdate(reply);
        else if (reply.is === "failed")
          reject(new GPTEdgeError(reply.message, reply.hint));
        else
          resolve(reply);
      };
      worker.postMessage(request2);
    });
  }
  end() {
    this.worker?.terminate();
    this.worker = null;
    this.current = null;
    this.loaded = null;
  }
};
function startWorker() {
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}
function unexpected(reply) {
  return new GPTEdgeError(`the worker answered ${reply.is}, which was not asked for`);
}

// server_engine.js
var N_ALTERNATIVES = 5;
var ServerEngine = class _ServerEngine {
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
    const found = await answer.json();
    const models = found.data.map(({ id, kind }) => ({
      name: id,
      kind: kind === "classifier" ? "task" : "causal-lm",
      bytes: null,
      scheme: null,
      parameters: null
    }));
    return new _ServerEngine(models, key);
  }
  async load() {
    return { defaults: {}, task: null, context: null, threads: null, memoryBytes: null };
  }
  async generate(name, prompt, params, onPiece, signal) {
    const { max_new_tokens, seed, ...rest } = params;
    const given = Object.entries(rest).filter(([, value]) => value !== null && value !== void 0);
    const body = {
      ...Object.fromEntries(given),
      model: name,
      prompt,
      max_tokens: max_new_tokens,
      seed: Number(seed),
      logprobs: N_ALTERNATIVES,
      stream: true,
      stream_options: { include_usage: true }
    };
    const started = performance.now();
    let first = 0;
    let tokens = 0;
    let reason = "cancelled";
    let latest = [];
    try {
      for await (const event of events(await this.ask("/v1/completions", body, signal))) {
        if (event.error !== void 0)
          throw new GPTEdgeError(event.error.message);
        tokens = event.usage?.completion_tokens ?? tokens;
        const choice = event.choices[0];
        if (choice === void 0)
          continue;
        first ||= performance.now();
        reason = choice.finish_reason ?? reason;
        const found = alternativesOf(choice);
        if (found.length > 0)
          latest = found;
        if (choice.text !== "")
          onPiece({ text: choice.text, alternatives: latest });
      }
    } catch (error) {
      if (error.name !== "AbortError")
        throw error;
    }
    const seconds = (performance.now() - (first || started)) / 1e3;
    return {
      reason,
      tokens,
      tokensPerSecond: tokens > 1 ? (tokens - 1) / seconds : 0,
      firstTokenSeconds: first === 0 ? 0 : (first - started) / 1e3,
      ids: null,
      memoryBytes: null
    };
  }
  async classify(name, texts) {
    const input2 = [texts.length > 1 ? texts : texts[0]];
    const answer = await this.ask("/v1/classify", { model: name, input: input2 });
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
};
async function request(path, sent, key) {
  const answer = await fetch(path, { ...sent, headers: { ...sent.headers, ...key.headers } });
  if (answer.status === 401)
    key.refused();
  else
    key.accepted();
  return answer;
}
async function failure(answer) {
  const body = await answer.json().catch(() => null);
  return new GPTEdgeError(body?.error?.message ?? `the server answered ${answer.status}`);
}
async function* events(answer) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let buffered = "";
  for (; ; ) {
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
  if (token === void 0 || top === void 0)
    return [];
  const rows = Object.entries(top).sort((one, other) => other[1] - one[1]);
  return rows.map(([text, logprob]) => ({
    text,
    probability: Math.exp(logprob),
    isChosen: text === token
  }));
}

// server_key.js
var PLACE = "gpt-edge API key";
var PRINTABLE = /^[\x20-\x7e]*$/;
var ServerKey = class {
  panel = byId("access");
  field = byId("api_key");
  note = byId("access_note");
  value = stored();
  isTried = true;
  onEntered = () => void 0;
  constructor() {
    byId("use_key").addEventListener("click", () => this.enter());
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter")
        this.enter();
    });
  }
  /** What a request carries. */
  get headers() {
    return this.value === "" ? {} : { Authorization: `Bearer ${this.value}` };
  }
  /** The server wants another one: ask for it. */
  refused() {
    if (this.panel.hidden) {
      this.panel.hidden = false;
      this.field.focus();
    }
    this.say(this.value === "" ? "" : "The server does not know this key.");
  }
  /** The server took it, or wants none. */
  accepted() {
    if (this.isTried)
      return;
    this.isTried = true;
    store(this.value);
  }
  /** Resolves when the user has entered one. */
  entered() {
    return new Promise((resolve) => this.onEntered = resolve);
  }
  enter() {
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
  say(problem) {
    this.note.textContent = problem || "It stays in this tab, and no link holds it.";
    this.note.classList.toggle("error", problem !== "");
  }
};
function stored() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return "";
  }
}
function store(value) {
  try {
    sessionStorage.setItem(PLACE, value);
  } catch {
  }
}

// settings.js
var NUMBERS = ["temperature", "top_k", "top_p", "max_new_tokens", "seed"];
var LARGEST_DRAWN = 2 ** 32;
function input(name) {
  return byId(name);
}
function showDefaults(defaults, context) {
  for (const name of ["temperature", "top_k", "top_p"]) {
    const value = defaults[name];
    if (input(name).value === "" && typeof value === "number")
      input(name).value = String(value);
  }
  if (context !== null)
    input("max_new_tokens").max = String(context);
  showTemperature();
}
function readSettings(defaults) {
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
    values[name] = name === "top_k" && value === 0 ? Number.MAX_SAFE_INTEGER : value;
  }
  return { ...values, seed: Number(values.seed ?? drawnSeed()) };
}
function drawnSeed() {
  return Math.floor(Math.random() * LARGEST_DRAWN);
}
function linkTo(prompt, model, seed) {
  const values = new URLSearchParams({ prompt, model });
  for (const name of NUMBERS) {
    const value = name === "seed" ? String(seed) : input(name).value;
    if (value !== "")
      values.set(name, value);
  }
  return `${location.origin}${location.pathname}#${values}`;
}
function readLink() {
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
function showTemperature() {
  byId("temperature_value").textContent = Number(input("temperature").value).toFixed(2);
}

// loading.js
var Loading = class {
  panel = byId("loading");
  list = byId("files");
  about = byId("about");
  rows = /* @__PURE__ */ new Map();
  begin() {
    this.rows.clear();
    this.list.replaceChildren();
    this.panel.hidden = false;
  }
  update({ file, loaded, total, stage }) {
    let row = this.rows.get(file);
    if (row === void 0) {
      row = make("li");
      const bar2 = make("progress");
      bar2.setAttribute("aria-label", file);
      row.append(make("span", "file", file), bar2, make("span", "state"));
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
      loaded.threads === null ? null : loaded.threads === 1 ? "1 thread" : `${loaded.threads} threads`
    ];
    this.about.textContent = parts.filter((part) => part !== null).join(" · ");
  }
  fail() {
    this.panel.hidden = true;
  }
};

// story.js
var Story = class {
  place = byId("story");
  chart = byId("bars");
  caption = byId("bars_caption");
  alternatives = /* @__PURE__ */ new WeakMap();
  pointed = null;
  constructor() {
    this.place.addEventListener("pointerover", (event) => this.point(event.target));
    this.place.addEventListener("pointerleave", () => this.point(null));
    this.place.addEventListener("click", (event) => this.point(event.target));
    this.place.addEventListener("keydown", (event) => this.walk(event));
  }
  /** Begin again after a prompt. */
  begin(prompt) {
    this.place.replaceChildren(make("span", "prompt", prompt));
    this.pointed = null;
    this.place.setAttribute("aria-busy", "true");
    this.place.classList.add("writing");
  }
  add(piece) {
    const token = make("span", "token", piece.text);
    this.alternatives.set(token, piece.alternatives);
    const isAtEnd = this.isScrolledToEnd();
    this.place.append(token);
    if (this.pointed === null)
      this.show(token);
    if (isAtEnd)
      this.place.scrollTop = this.place.scrollHeight;
  }
  end() {
    this.place.setAttribute("aria-busy", "false");
    this.place.classList.remove("writing");
  }
  /** The prompt and what was written. */
  get text() {
    return this.place.textContent ?? "";
  }
  isScrolledToEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.place;
    return scrollHeight - scrollTop - clientHeight < 40;
  }
  get tokens() {
    return [...this.place.querySelectorAll(".token")];
  }
  /** Point at a token; null is the last one. */
  point(target) {
    const token = target !== null && target.classList.contains("token") ? target : null;
    if (target !== null && token === null && target !== this.place)
      return;
    this.pointed?.classList.remove("pointed");
    this.pointed = token;
    token?.classList.add("pointed");
    const shown = token ?? this.tokens.at(-1);
    if (shown !== void 0)
      this.show(shown);
  }
  walk(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const tokens = this.tokens;
    if (step === void 0 || tokens.length === 0)
      return;
    event.preventDefault();
    const at = this.pointed === null ? tokens.length : tokens.indexOf(this.pointed);
    const next = tokens[Math.min(tokens.length - 1, Math.max(0, at + step))];
    this.point(next);
    next.scrollIntoView({ block: "nearest" });
  }
  show(token) {
    const rows = this.alternatives.get(token) ?? [];
    this.caption.textContent = `In place of “${visible(token.textContent ?? "")}”`;
    this.chart.replaceChildren(...rows.map((row) => barRow(visible(row.text), row.probability, row.isChosen)));
  }
};
function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("	", "⇥").replace(/^ | $/g, "␣") || "∅";
}

// write_tab.js
var REASONS = {
  stop: "The end",
  length: "Length reached",
  context_full: "Context full",
  cancelled: "Stopped"
};
var WriteTab = class {
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
    } catch (error) {
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
    } catch (error) {
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
      const seconds = (performance.now() - started) / 1e3;
      if (n % 8 === 0)
        byId("speed").textContent = `${(n / seconds).toFixed(0)} tokens a second`;
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
  conclude(summary) {
    const parts = [
      REASONS[summary.reason] ?? summary.reason,
      `${summary.tokens} tokens`,
      `seed ${this.lastSeed}`
    ];
    this.say(parts.join(" · "));
    byId("speed").textContent = summary.tokensPerSecond > 0 ? `${summary.tokensPerSecond.toFixed(0)} tokens a second` : "";
    byId("memory").textContent = summary.memoryBytes === null ? "" : `${shownBytes(summary.memoryBytes)} of memory`;
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
    } catch {
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
};

// main.js
async function start() {
  useTheme();
  const isKept = navigator.serviceWorker?.controller != null;
  const worker = isKept ? startWorker() : null;
  const answer = await fetch("site.json", { cache: "no-cache" });
  if (!answer.ok)
    throw new Error(`site.json is missing: the server answered ${answer.status}`);
  const site = await answer.json();
  const isLocal = site.engine === "wasm";
  const engine = isLocal ? new LocalEngine(site.models, worker) : await ServerEngine.open(new ServerKey());
  byId("where").textContent = isLocal ? "The model runs in this page. Nothing that you write leaves it." : "The model runs on the server that sent this page. Nothing goes anywhere else.";
  if (isLocal)
    void workOffline(site.version);
  else
    for (const id of ["top_k", "top_p"])
      byId(id).placeholder = "the model's";
  await showTabs(engine);
}
async function showTabs(engine) {
  const linked = readLink();
  const writers = engine.models.filter((model) => model.kind === "causal-lm");
  const classifiers = engine.models.filter((model) => model.kind === "task");
  const write = writers.length > 0 ? new WriteTab(engine, writers[0]) : null;
  const label = classifiers.length > 0 ? new ClassifyTab(engine, classifiers[0]) : null;
  fill("writer", writers, linked);
  fill("classifier", classifiers, linked);
  const chosen = (id, models) => models.find(({ name }) => name === byId(id).value) ?? models[0];
  byId("writer").addEventListener("change", () => void write?.choose(chosen("writer", writers)));
  byId("classifier").addEventListener("change", () => label?.choose(chosen("classifier", classifiers)));
  byId("write_tab").hidden = write === null;
  byId("label_tab").hidden = label === null;
  byId("tabs").hidden = write === null || label === null;
  listenToKeys(write, label);
  byId("write_tab").addEventListener("click", () => {
    show("write");
    void write?.choose(chosen("writer", writers));
  });
  byId("label_tab").addEventListener("click", () => {
    write?.stop();
    show("label");
  });
  show(write === null ? "label" : "write");
  await write?.choose(chosen("writer", writers));
}
function fill(id, models, linked) {
  const select = byId(id);
  select.append(...models.map(({ name }) => {
    const option = make("option", "", name);
    option.value = name;
    return option;
  }));
  if (models.some(({ name }) => name === linked))
    select.value = linked;
  select.disabled = models.length < 2;
}
function show(tab) {
  for (const name of ["write", "label"]) {
    const isShown = name === tab;
    byId(`${name}_panel`).hidden = !isShown;
    const button = byId(`${name}_tab`);
    button.setAttribute("aria-selected", String(isShown));
    button.tabIndex = isShown ? 0 : -1;
  }
}
function listenToKeys(write, label) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape")
      write?.stop();
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey))
      return;
    event.preventDefault();
    if (byId("write_panel").hidden)
      void label?.classify();
    else
      void write?.generate();
  });
  byId("tabs").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight")
      return;
    const other = byId("write_tab").tabIndex === 0 ? "label_tab" : "write_tab";
    byId(other).click();
    byId(other).focus();
  });
}
function useTheme() {
  const root = document.documentElement;
  const read = () => {
    try {
      return localStorage.getItem("gpt-edge theme");
    } catch {
      return null;
    }
  };
  const stored2 = read();
  if (stored2 !== null)
    root.dataset["theme"] = stored2;
  byId("theme").addEventListener("click", () => {
    const isDark = root.dataset["theme"] === void 0 ? matchMedia("(prefers-color-scheme: dark)").matches : root.dataset["theme"] === "dark";
    root.dataset["theme"] = isDark ? "light" : "dark";
    try {
      localStorage.setItem("gpt-edge theme", root.dataset["theme"]);
    } catch {
    }
  });
}
async function workOffline(version) {
  const offline = byId("offline");
  if (!("serviceWorker" in navigator))
    return;
  try {
    await navigator.serviceWorker.register(`service_worker.js?v=${version}`);
    await navigator.serviceWorker.ready;
    offline.textContent = "Works offline.";
  } catch {
    offline.textContent = "";
  }
}
start().catch((error) => {
  const status = byId("status");
  status.textContent = messageOf(error);
  status.classList.add("error");
});
