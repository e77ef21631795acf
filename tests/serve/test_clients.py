"""Clients that people have, against the server: curl, OpenAI's for JavaScript, and LangChain's.
OpenAI's own for Python drives `test_completions.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serve.conftest import Running

PROMPT = "the end of the"
# prints what the client got, as one line of JSON
NODE_CLIENT = """
import OpenAI from "openai";
const [url, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const ask = { model: "tiny-edge", prompt, max_tokens: 12, temperature: 0.8, seed: 7 };
const whole = await client.completions.create(ask);
let text = "";
let usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.completions.create({ ...ask, ...options })) {
  text += chunk.choices[0]?.text ?? "";
  usage = chunk.usage ?? usage;
}
const chat = await client.chat.completions.create({
  model: "tiny-edge", max_tokens: 5, temperature: 0, messages: [{ role: "user", content: "hear" }],
});
const vector = await client.embeddings.create({ model: "sentiment-6m-int8", input: "a good film" });
const models = (await client.models.list()).data.map((model) => model.id);
const wrong = await client.completions
  .create({ ...ask, temperature: 9 })
  .catch((error) => [error.status, error.message]);
console.log(JSON.stringify({
  whole, text, usage, chat, models, wrong, size: vector.data[0].embedding.length,
}));
"""


def expected_text(served: Running) -> str:
    """What Python says to the request of NODE_CLIENT."""
    settings = {"temperature": 0.8, "top_k": 277, "seed": 7, "max_new_tokens": 12}
    return served.generator.complete(PROMPT, None, **settings).text  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(served: Running) -> None:
    url = f"http://127.0.0.1:{served.port}/v1"
    body = {"model": "tiny-edge", "prompt": PROMPT, "max_tokens": 12, "temperature": 0.8, "seed": 7}
    head = ["curl", "--silent", "--show-error", "--max-time", "60"]
    posted = [*head, "--json", json.dumps(body), f"{url}/completions"]
    done = subprocess.run(posted, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["text"] == expected_text(served)
    streamed = [*head, "--no-buffer", "--json", json.dumps({**body, "stream": True})]
    done = subprocess.run(
        [*streamed, f"{url}/completions"], capture_output=True, text=True, check=True
    )
    events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
    assert events.pop() == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["text"] for event in events]
    assert "".join(pieces) == expected_text(served)
    broken = [*head, "--fail-with-body", "--json", "{", f"{url}/completions"]
    failed = subprocess.run(broken, capture_output=True, text=True, check=False)
    assert failed.returncode == 22
    assert json.loads(failed.stdout)["error"]["type"] == "invalid_request_error"


@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_openai_package_of_npm(served: Running, tmp_path: Path) -> None:
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "openai@6"]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=200)
    (tmp_path / "client.mjs").write_text(NODE_CLIENT)
    url = f"http://127.0.0.1:{served.port}/v1"
    done = subprocess.run(
        ["node", "client.mjs", url, PROMPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    got = json.loads(done.stdout)
    assert got["whole"]["choices"][0]["text"] == got["text"] == expected_text(served)
    assert got["usage"]["completion_tokens"] == got["whole"]["usage"]["completion_tokens"]
    chat = served.generator.complete("user: hear\nassistant:", max_new_tokens=5)
    assert got["chat"]["choices"][0]["message"]["content"] == chat.text
    assert got["models"] == ["tiny-edge", "sentiment-6m-int8"]
    assert got["size"] == 256
    assert got["wrong"][0] == 400
    assert "temperature" in got["wrong"][1]


@pytest.mark.slow
def test_langchains_openai_class(served: Running) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    model = langchain_openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1",
        api_key="none",
        model="tiny-edge",
        max_tokens=12,
        temperature=0.8,
        seed=7,
        max_retries=0,
    )
    assert model.invoke(PROMPT) == expected_text(served)
    assert "".join(model.stream(PROMPT)) == expected_text(served)
    assert model.batch([PROMPT, PROMPT]) == [expected_text(served)] * 2
