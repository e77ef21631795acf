// Continues a prompt in the page, with the scripts and the bundle of a site that `gpt-edge web`
// wrote into the folder site/ beside this file. A longer text wants a worker, as the site has one.

import * as ort from "./site/ort/ort.wasm.min.mjs";
import { fetchFiles } from "./site/js/bundle/fetch_files.js";
import { Model } from "./site/js/model.js";
import { webBackend } from "./site/js/runtime/web_backend.js";

const BUNDLE = "site/models/tinystories-7m-int8";
const text = document.getElementById("text");
const button = document.getElementById("go");

let loading = null;

button.addEventListener("click", async () => {
  button.disabled = true;
  try {
    loading ??= Model.load(BUNDLE, fetchFiles(BUNDLE), webBackend(ort));
    const model = await loading;
    const prompt = document.getElementById("prompt").value;
    text.textContent = prompt;
    const params = { ...model.generationDefaults, max_new_tokens: 40, seed: 7 };
    for await (const piece of model.stream(prompt, params)) text.append(piece);
  } catch (error) {
    loading = null;
    text.textContent = `${error.message} ${error.hint ?? ""}`;
  }
  button.disabled = false;
});

button.disabled = false; // from here on a click is heard
