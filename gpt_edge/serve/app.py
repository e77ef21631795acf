"""The routes of `gpt-edge serve`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.chat import ChatAnswer, read_chat
from gpt_edge.serve.completion_request import CompletionRequest, read_completion
from gpt_edge.serve.completions import CompletionAnswer
from gpt_edge.serve.encoders import classify, embed
from gpt_edge.serve.event_stream import EventStream
from gpt_edge.serve.fields import Fields
from gpt_edge.serve.guard import Access, Guard, log
from gpt_edge.serve.json_body import read_object
from gpt_edge.serve.metrics import Metrics
from gpt_edge.serve.page import page_routes
from gpt_edge.serve.running import RunningTexts
from gpt_edge.serve.served_models import ServedModel, ServedModels

Endpoint = Callable[[Request], Awaitable[Any]]


class Server:
    """The endpoints, and what they share. is_draining: set when the server is about to end."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self._started = int(time.time())
        self.metrics = Metrics(models)
        self.is_draining = False

    def app(self, access: Access) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/v1/completions", _safely(self.completions), methods=["POST"]),
            Route("/v1/chat/completions", _safely(self.chat_completions), methods=["POST"]),
            Route("/v1/embeddings", _safely(self.embeddings), methods=["POST"]),
            Route("/v1/classify", _safely(self.classify), methods=["POST"]),
            Route("/v1/models", _safely(self.list_models), methods=["GET"]),
            Route("/v1/models/{name:path}", _safely(self.one_model), methods=["GET"]),
            Route("/health", _safely(self.health), methods=["GET"]),
            Route("/ready", _safely(self.ready), methods=["GET"]),
            Route("/metrics", _safely(self.show_metrics), methods=["GET"]),
            *page_routes(),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
        return Guard(app, access, self.metrics)

    async def completions(self, request: Request) -> ASGIApp:
        """OpenAI's completions."""
        fields = Fields(await read_object(request))
        model = self._models.language_model(fields.text("model"))
        asked = read_completion(fields, model)
        return await self._answer(request, model, asked, CompletionAnswer(model, asked))

    async def chat_completions(self, request: Request) -> ASGIApp:
        """OpenAI's chat completions."""
        fields = Fields(await read_object(request))
        model = self._models.language_model(fields.text("model"))
        # a template may take long
        loop = asyncio.get_running_loop()
        asked = await loop.run_in_executor(None, read_chat, fields, model)
        return await self._answer(request, model, asked, ChatAnswer(model, asked))

    async def embeddings(self, request: Request) -> ASGIApp:
        """OpenAI's embeddings."""
        fields = Fields(await read_object(request))
        return JSONResponse(await embed(fields, self._models.named(fields.text("model"))))

    async def classify(self, request: Request) -> ASGIApp:
        """Labels of texts."""
        fields = Fields(await read_object(request))
        return JSONResponse(await classify(fields, self._models.named(fields.text("model"))))

    async def list_models(self, request: Request) -> ASGIApp:
        """OpenAI's list of models."""
        data = [self._describe(model) for model in self._models]
        return JSONResponse({"object": "list", "data": data})

    async def one_model(self, request: Request) -> ASGIApp:
        """One of them."""
        return JSONResponse(self._describe(self._models.named(request.path_params["name"])))

    async def health(self, request: Request) -> ASGIApp:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> ASGIApp:
        """It takes requests."""
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    async def show_metrics(self, request: Request) -> ASGIApp:
        """For Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _describe(self, model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._started,
            "owned_by": "gpt-edge",
            "context": model.bundle.config.n_ctx,
            "scheme": model.bundle.scheme,
            "kind": "classifier" if model.engine is None else "language model",
        }

    async def _answer(
        self,
        request: Request,
        model: ServedModel,
        asked: CompletionRequest,
        answer: CompletionAnswer | ChatAnswer,
    ) -> ASGIApp:
        """Generate the texts and form the answer, whole or in events."""
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})
        running = RunningTexts(model, asked)
        if asked.output.stream:
            await running.__aenter__()  # a refusal is a plain answer, not an event
            return EventStream(self._events(model, running, answer), running.cancel)
        async with running:
            waiting = asyncio.create_task(running.completions())
            leaving = asyncio.create_task(_disconnected(request))
            try:
                await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    raise ApiError(400, "the client left")
                rows = waiting.result()
            finally:
                waiting.cancel()
                leaving.cancel()
        self._count(model, running)
        return JSONResponse(answer.whole(rows))

    async def _events(
        self, model: ServedModel, running: RunningTexts, answer: CompletionAnswer | ChatAnswer
    ) -> AsyncIterator[dict[str, Any]]:
        started = time.perf_counter()
        is_first = True
        try:
            async with aclosing(answer.events(running)) as events:  # type: ignore[type-var]
                async for event in events:
                    if is_first:
                        seconds = time.perf_counter() - started
                        self.metrics.first_token_seconds.labels(model.name).observe(seconds)
                        is_first = False
                    yield event
        finally:
            running.cancel()
            self._count(model, running)

    def _count(self, model: ServedModel, running: RunningTexts) -> None:
        n_prompt = sum(len(handle.prompt_ids) for handle in running.handles)
        n_new = sum(len(handle.ids) for handle in running.handles)
        self.metrics.prompt_tokens.labels(model.name).inc(n_prompt)
        self.metrics.completion_tokens.labels(model.name).inc(n_new)


def _safely(endpoint: Endpoint) -> Endpoint:
    """The endpoint, whose errors become answers in OpenAI's shape, without a word of the inside."""

    async def answered(request: Request) -> Any:
        try:
            return await endpoint(request)
        except ApiError as error:
            return error.response()
        except Exception:
            log.exception("an endpoint failed")
            return ApiError(500, "the server failed; its log says more").response()

    return answered


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return ApiError(404, "there is nothing here: see /v1/models").response()
    return ApiError(error.status_code, error.detail, headers=error.headers or {}).response()
