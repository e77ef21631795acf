"""A server in this process, on a free port of the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from gpt_edge.generate.generator import Generator
from gpt_edge.serve.app import Server
from gpt_edge.serve.guard import Access
from gpt_edge.serve.served_models import ServedModels, open_models
from gpt_edge.serve.server import DrainingServer, TimedProtocol, bind
from tests.support.tiny_model import bundle_path

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if messages[0].role == 'nobody' %}{{ raise_exception('who?') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass
class Running:
    """A server that answers. `models` are what it serves."""

    port: int
    models: ServedModels
    server: Server
    client: httpx.Client

    @property
    def generator(self) -> Generator:
        """Of the language model."""
        generator = self.models.named("tiny-edge").generator
        assert generator is not None
        return generator

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """POST a JSON object."""
        return self.client.post(path, json=body, **options)

    def complete(self, **fields: Any) -> httpx.Response:
        """POST to /v1/completions; the model is the tiny one."""
        body = {"model": "tiny-edge", "prompt": "the end", "max_tokens": 5, **fields}
        return self.post("/v1/completions", body)


def start(access_of: Any = Access, **options: Any) -> Iterator[Running]:
    """Serve the tiny model and the sentiment classifier until the generator is closed."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    models = open_models(
        [str(bundle_path()), "sentiment-6m-int8"], threads=1, chat_template=TEMPLATE, **options
    )
    server = Server(models)
    config = uvicorn.Config(
        server.app(access_of(port)),
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    running = DrainingServer(config, server)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
    try:
        while not running.started:
            time.sleep(0.01)
        yield Running(port, models, server, client)
    finally:
        client.close()
        running.should_exit = True
        thread.join()
        models.close()


@pytest.fixture(scope="session")
def served() -> Iterator[Running]:
    """The server that most tests share."""
    yield from start()
