"""A bundle as a model of lm-evaluation-harness (the package `lm_eval`, version 0.4).

    import lm_eval
    from gpt_edge.integrations.lm_eval_adapter import EdgeLM

    lm_eval.simple_evaluate(model=EdgeLM("my-bundle"), tasks=["lambada_openai", "arc_easy"])

Importing this file also registers it as `gpt-edge`. Source: lm-evaluation-harness,
docs/model_guide.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gpt_edge.generate.generator import Generator
from gpt_edge.generate.load import load
from gpt_edge.generate.score import choose_ids, fit_options, score_ids, split_options
from gpt_edge.generate.stop_strings import StopMatcher

MAX_NEW_TOKENS = 256  # where a task does not say


@register_model("gpt-edge")
class EdgeLM(LM):  # type: ignore[misc]
    """bundle: a folder or the name of a built-in one. generator: one that is loaded already."""

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        generator: Generator | None = None,
        **_: object,
    ) -> None:
        """Other arguments, such as a batch size or a device, are the harness's, and ignored."""
        super().__init__()
        self.generator = generator or load(
            bundle, threads=None if threads is None else int(threads)
        )
        self._n_ctx = self.generator.session.config.n_ctx

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, whether each token is the likeliest) of each continuation.
        What the options of one question begin with is read once.
        """
        found: list[tuple[float, bool]] = []
        vocab_size = self.generator.tokenizer.vocab_size
        for context, group in groupby(requests, key=lambda request: request.args[0]):
            options = [request.args[1] for request in group]
            scores = choose_ids(self.generator.session, self._fitting(context, options), vocab_size)
            found += [(score.logprob, score.is_greedy) for score in scores]
        return found

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """The log-probability of each whole text, in windows of the context."""
        return [sum(self._window_logprobs(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Continue each context up to a stop string; greedy unless the task asks for sampling."""
        return [self._continue(*request.args) for request in requests]

    def _fitting(self, context: str, options: list[str]) -> list[tuple[list[int], list[int]]]:
        """Ids before and after; a context that does not fit loses its start, as in the harness's
        models.
        """
        pairs = split_options(context, options, self.generator.tokenizer)
        return fit_options(pairs, self._n_ctx, cut=True)

    def _window_logprobs(self, text: str) -> Iterator[float]:
        tokenizer = self.generator.tokenizer
        if tokenizer.end_token is None:
            raise ValueError("a whole text is scored after an end token, which this model lacks")
        windows = get_rolling_token_windows(
            tokenizer.encode(text), tokenizer.end_token, self._n_ctx, 1
        )
        for before, after in map(make_disjoint_window, windows):
            yield score_ids(self.generator.session, before, after, tokenizer.vocab_size).logprob

    def _continue(self, context: str, settings: Mapping[str, Any]) -> str:
        until = settings.get("until") or []
        stops = StopMatcher([until] if isinstance(until, str) else until)
        temperature = settings.get("temperature") or 0.0
        stream = self.generator.stream(
            context,
            truncate="left",
            max_new_tokens=int(settings.get("max_gen_toks", MAX_NEW_TOKENS)),
            temperature=temperature if settings.get("do_sample") else 0.0,
        )
        text = ""
        with stream:
            for piece in stream:
                text += stops.push(piece)
                if stops.is_found:
                    return text
        return text + stops.flush()
