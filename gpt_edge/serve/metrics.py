"""What `/metrics` tells Prometheus. Each server has a registry of its own."""

from __future__ import annotations

from functools import partial

import prometheus_client as prometheus

from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.serve.served_models import ServedModels

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of requests and tokens, times, and how full the engines are."""

    def __init__(self, models: ServedModels) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "gpt_edge_requests",
            "Answers by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.prompt_tokens = prometheus.Counter(
            "gpt_edge_prompt_tokens", "Tokens of prompts.", ["model"], registry=self.registry
        )
        self.completion_tokens = prometheus.Counter(
            "gpt_edge_completion_tokens",
            "Tokens that were generated.",
            ["model"],
            registry=self.registry,
        )
        self.seconds = prometheus.Histogram(
            "gpt_edge_request_seconds",
            "Seconds of a request, from its head to its last byte.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token_seconds = prometheus.Histogram(
            "gpt_edge_first_token_seconds",
            "Seconds until the first piece of a streamed text.",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        running = prometheus.Gauge(
            "gpt_edge_running",
            "Texts that are being generated.",
            ["model"],
            registry=self.registry,
        )
        waiting = prometheus.Gauge(
            "gpt_edge_waiting", "Texts that wait for a place.", ["model"], registry=self.registry
        )
        for model in models:
            if (engine := model.engine) is not None:
                running.labels(model.name).set_function(partial(_n_running, engine))
                waiting.labels(model.name).set_function(partial(_n_waiting, engine))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return prometheus.generate_latest(self.registry)


def _n_running(engine: BatchEngine) -> float:
    return engine.n_running


def _n_waiting(engine: BatchEngine) -> float:
    return engine.n_waiting
