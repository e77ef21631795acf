/** The page: which engine it has, its tabs, its theme, and its keys. */

import { ClassifyTab } from "./classify_tab.js";
import { byId, make, messageOf } from "./dom.js";
import { LocalEngine, startWorker } from "./local_engine.js";
import type { Engine, ModelEntry, Site } from "./protocol.js";
import { ServerEngine } from "./server_engine.js";
import { ServerKey } from "./server_key.js";
import { readLink } from "./settings.js";
import { WriteTab } from "./write_tab.js";

type TabName = "write" | "label";

async function start(): Promise<void> {
  useTheme();
  // pages that a service worker has kept run their models themselves: no need to ask first
  const isKept = navigator.serviceWorker?.controller != null;
  const worker = isKept ? startWorker() : null;
  const answer = await fetch("site.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`site.json is missing: the server answered ${answer.status}`);
  const site = (await answer.json()) as Site;
  const isLocal = site.engine === "wasm";
  const engine: Engine = isLocal ? new LocalEngine(site.models, worker) : await ServerEngine.open(new ServerKey());
  byId("where").textContent = isLocal
    ? "The model runs in this page. Nothing that you write leaves it."
    : "The model runs on the server that sent this page. Nothing goes anywhere else.";
  if (isLocal) void workOffline(site.version);
  else for (const id of ["top_k", "top_p"]) byId<HTMLInputElement>(id).placeholder = "the model's";
  await showTabs(engine);
}

async function showTabs(engine: Engine): Promise<void> {
  const linked = readLink();
  const writers = engine.models.filter((model) => model.kind === "causal-lm");
  const classifiers = engine.models.filter((model) => model.kind === "task");
  const write = writers.length > 0 ? new WriteTab(engine, writers[0]!) : null;
  const label = classifiers.length > 0 ? new ClassifyTab(engine, classifiers[0]!) : null;
  fill("writer", writers, linked);
  fill("classifier", classifiers, linked);
  const chosen = (id: string, models: ModelEntry[]): ModelEntry =>
    models.find(({ name }) => name === byId<HTMLSelectElement>(id).value) ?? models[0]!;
  byId("writer").addEventListener("change", () => void write?.choose(chosen("writer", writers)));
  byId("classifier").addEventListener("change", () =>
    label?.choose(chosen("classifier", classifiers)),
  );
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

function fill(id: string, models: readonly ModelEntry[], linked: string | null): void {
  const select = byId<HTMLSelectElement>(id);
  select.append(
    ...models.map(({ name }) => {
      const option = make("option", "", name);
      option.value = name;
      return option;
    }),
  );
  if (models.some(({ name }) => name === linked)) select.value = linked!;
  select.disabled = models.length < 2;
}

function show(tab: TabName): void {
  for (const name of ["write", "label"] as const) {
    const isShown = name === tab;
    byId(`${name}_panel`).hidden = !isShown;
    const button = byId(`${name}_tab`);
    button.setAttribute("aria-selected", String(isShown));
    button.tabIndex = isShown ? 0 : -1;
  }
}

function listenToKeys(write: WriteTab | null, label: ClassifyTab | null): void {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") write?.stop();
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (byId("write_panel").hidden) void label?.classify();
    else void write?.generate();
  });
  byId("tabs").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = byId("write_tab").tabIndex === 0 ? "label_tab" : "write_tab";
    byId(other).click();
    byId(other).focus();
  });
}

/** The system's colours, until the button says otherwise. */
function useTheme(): void {
  const root = document.documentElement;
  const read = (): string | null => {
    try {
      return localStorage.getItem("gpt-edge theme");
    } catch {
      return null; // a page without storage
    }
  };
  const stored = read();
  if (stored !== null) root.dataset["theme"] = stored;
  byId("theme").addEventListener("click", () => {
    const isDark =
      root.dataset["theme"] === undefined
        ? matchMedia("(prefers-color-scheme: dark)").matches
        : root.dataset["theme"] === "dark";
    root.dataset["theme"] = isDark ? "light" : "dark";
    try {
      localStorage.setItem("gpt-edge theme", root.dataset["theme"]);
    } catch {
      // it holds until the page is left
    }
  });
}

/** Keep every file for the time without a network. */
async function workOffline(version: string): Promise<void> {
  const offline = byId("offline");
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register(`service_worker.js?v=${version}`);
    await navigator.serviceWorker.ready;
    offline.textContent = "Works offline.";
  } catch {
    offline.textContent = ""; // such as in a private window
  }
}

start().catch((error: unknown) => {
  const status = byId("status");
  status.textContent = messageOf(error);
  status.classList.add("error");
});
