"""`serve`: answer HTTP requests as OpenAI's API does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import ThreadsOption, complete_bundle, parse_memory
from gpt_edge.errors import GPTEdgeError, require

KEY_VARIABLE = "GPT_EDGE_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundle folders or built-in names; by default the built-in story model.",
            autocompletion=complete_bundle,
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Adapter of a base among the bundles, served by its own name for /v1/classify; "
            "repeatable.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=KEY_VARIABLE,
            show_envvar=False,
            help=f"Key that clients must send; better in the environment, as {KEY_VARIABLE}.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Further name that a request's Host may have; repeatable."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of a web page elsewhere that may ask, such as https://example.org; "
            "repeatable."
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Jinja template for /v1/chat/completions; by default the bundle's own.",
        ),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=64, help="Texts that are generated at once, for each model.")
    ] = 8,
    max_waiting: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Texts that may wait; further ones are refused."),
    ] = 64,
    prefix_cache: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Keep so much of what was read, such as 256MB, for prompts that begin alike; 0 "
            "keeps nothing. By default 256MB where a text cannot change by it.",
        ),
    ] = None,
    drain_seconds: Annotated[
        int,
        typer.Option(min=0, help="After SIGTERM, how long texts under way may take to their end."),
    ] = 5,
    threads: ThreadsOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write no line for each request.")] = False,
) -> None:
    """Serve bundles over HTTP, as OpenAI's API.

    /v1/completions, /v1/chat/completions, /v1/embeddings, /v1/classify, /v1/models, /health, /ready
    and /metrics, and a page at /. Requests are answered together: rows join and leave a running
    batch. Needs the extra "serve".
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        require(package, "serve")
    if host not in LOOPBACK and not api_key:
        raise ValueError(
            f"--host {host} can be reached by others: give --api-key, or set {KEY_VARIABLE}"
        )
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
        raise ValueError("--api-key must be printable ASCII characters")
    n_bytes = None if prefix_cache is None else _prefix_bytes(prefix_cache)
    template = None if chat_template is None else _read_template(chat_template)

    from gpt_edge.serve.guard import Access
    from gpt_edge.serve.served_models import open_models
    from gpt_edge.serve.server import bind, log_to_stderr, run_server

    listener = bind(host, port)
    own_port = listener.getsockname()[1]
    models = open_models(
        bundles or [None],
        threads=threads,
        max_batch=max_batch,
        max_waiting=max_waiting,
        chat_template=template,
        prefix_bytes=n_bytes,
        adapters=adapter or (),
    )
    hosts = [*(allow_host or ()), *([] if host in LOOPBACK else [host])]
    access = Access(own_port, hosts, list(cors_origin or ()), api_key)
    if not quiet:
        log_to_stderr()
    names = ", ".join(model.name for model in models)
    shown = f"[{host}]" if ":" in host else host
    console.note(f"serving {names} at http://{shown}:{own_port}, process {os.getpid()}")
    run_server(models, access, listener, drain_seconds)


def _prefix_bytes(size: str) -> int:
    return 0 if size.strip() == "0" else parse_memory(size, "--prefix-cache")


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GPTEdgeError(f"cannot read the chat template {path}: {error}") from error
