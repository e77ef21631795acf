"""Generator: what an app holds of a language model. Streams text, returns whole texts, one or a
batch, searches and scores.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Unpack

from gpt_edge.arguments import (
    check_callable,
    check_count,
    check_hooks,
    check_is_a,
    check_several,
    check_whole,
    is_whole,
)
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.generate.batch_engine import BATCH_SIZE, BatchEngine
from gpt_edge.generate.beam_search import BeamParams, BeamSearch
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.context import ContextPolicy
from gpt_edge.generate.contrastive import ContrastiveParams, ContrastiveSearch
from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.params import MAX_SEED, SamplingParams, SamplingSettings, params_with
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.generate.prompt import (
    Truncate,
    check_truncate,
)
from gpt_edge.generate.score import (
    Choice,
    Score,
    choices_of,
    choose_ids,
    fit_options,
    score_ids,
    split_ids,
    split_options,
)
from gpt_edge.generate.settings import shows_settings
from gpt_edge.generate.text_generator import TextGenerator
from gpt_edge.native.library import Native
from gpt_edge.runtime.memory_model import check_memory
from gpt_edge.runtime.session import Session
from gpt_edge.runtime.tuning import PREFILL_CHUNK, tuning_of


def open_generator(
    bundle: Bundle,
    *,
    threads: int | None = None,
    native: Native = None,
    profile: str | None = None,
    max_memory: int | None = None,
    prefix_cache: PrefixCache | None = None,
) -> Generator:
    """A generator for an opened bundle: the tokenizer is built while onnxruntime prepares the
    weights. The arguments are those of `load`.
    """
    tuning = tuning_of(profile)
    if max_memory is not None:
        check_whole("max_memory", max_memory, 1)
        check_memory(bundle, max_memory, native=native, tuning=tuning)
    with ThreadPoolExecutor(1) as executor:
        session = executor.submit(Session, bundle, threads=threads, native=native, tuning=tuning)
        tokenizer = bundle.load_tokenizer()
        defaults = bundle.manifest.generation_defaults
        return Generator(session.result(), tokenizer, defaults, prefix_cache)


class Generator(TextGenerator):
    """Generates text with one model. Thread-safe: every generation has a cache of its own."""

    @shows_settings(SamplingSettings)
    def generate_batch(
        self,
        prompts: Sequence[str],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        context: ContextPolicy = "error",
        keep_first: int = 0,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[SamplingSettings],
    ) -> list[Completion]:
        """Continue every prompt, `batch_size` at a time through the model, and return them in
        order.

        Each is what `complete` alone would return: a seed starts again for every row. Equal prompts
        are read once. params: one for all, or one per prompt. context, keep_first: see `stream`.
        All prompts are checked before the first is processed. `BatchEngine` takes prompts one by
        one and streams.
        """
        check_several("prompts", prompts)
        check_count("batch_size", batch_size)
        if isinstance(params, Sequence):
            each = [params_with(own, settings) for own in params]
        else:
            each = [params_with(params, settings)] * len(prompts)
        if len(each) != len(prompts):
            raise ValueError(
                f"expected one SamplingParams per prompt, {len(prompts)}, got {len(each)}"
            )
        encoded = [
            self.encode_prompt(
                prompt,
                own.max_new_tokens,
                truncate,
                special=special,
                context=context,
                keep_first=keep_first,
            )
            for prompt, own in zip(prompts, each, strict=True)
        ]
        with BatchEngine(
            self, max_batch=batch_size, prefill_chunk=PREFILL_CHUNK, interleave=False
        ) as engine:
            handles = [
                engine.add_encoded(prompt, own, cancel)
                for prompt, own in zip(encoded, each, strict=True)
            ]
            return [handle.result() for handle in handles]

    @shows_settings(SamplingSettings)
    def samples(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        n: int,
        best_of: int | None = None,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> list[Completion]:
        """Sample `n` continuations of one prompt. The first has the seed of `params`, each other
        one more than the one before; `complete` alone with that seed gives the same text.

        best_of: sample so many and return the `n` whose tokens have the highest mean
        log-probability, the best first. Raises ValueError for greedy params, which would give one
        text n times, and for a best_of below n.
        """
        params = params_with(params, settings)
        n_samples = n if best_of is None else best_of
        if not (is_whole(n, 1, None) and is_whole(n_samples, n, None)):
            raise ValueError(
                f"n must be from 1 to best_of, got n={n!r:.80} and best_of={best_of!r:.80}"
            )
        if params.is_greedy:
            raise ValueError("n samples need sampling: give a temperature, top_k or top_p")
        if best_of is not None and params.logprobs is None:
            params = dataclasses.replace(params, logprobs=0)
        first = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed
        each = [
            dataclasses.replace(params, seed=(first + number) & MAX_SEED)
            for number in range(n_samples)
        ]
        done = self.generate_batch(
            [prompt] * n_samples, each, truncate=truncate, special=special, cancel=cancel
        )
        if best_of is not None:
            done.sort(key=lambda one: one.mean_logprob, reverse=True)
        return done[:n]

    @shows_settings(SamplingSettings)
    def beam_search(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        beams: BeamParams | None = None,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        processors: Sequence[LogitsProcessor] = (),
        **settings: Unpack[SamplingSettings],
    ) -> list[Completion]:
        """The continuations of highest score that beam search finds, the best first; see
        `BeamParams`. Each has its `score`.

        cancel: set it, from any thread, and the search ends before its next token with the beams as
        they are, or with none where the prompt was not read yet.
        Raises ValueError for params that sample, for stop strings and for logprobs.
        """
        params = params_with(params, settings)
        check_hooks(cancel, processors)
        if beams is not None and not isinstance(beams, BeamParams):
            raise ValueError(f"beams must be BeamParams, got {type(beams).__name__}")
        encoded = self.encode_prompt(prompt, params.max_new_tokens, truncate, special=special)
        return BeamSearch(
            self.session,
            self.tokenizer,
            encoded,
            params,
            beams or BeamParams(),
            tuple(self.end_tokens),
            processors,
            self.new_sequence(),
        ).run(cancel)

    @shows_settings(SamplingSettings)
    def contrastive_search(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        contrastive: ContrastiveParams | None = None,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        processors: Sequence[LogitsProcessor] = (),
        on_text: Callable[[str], object] | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> Completion:
        """The continuation that contrastive search finds: likely tokens that do not repeat what the
        text has said; see `ContrastiveParams`.

        on_text: called with each piece of the text as it comes. Raises ValueError for params that
        sample, a constraint, token_healing and prompt_logprobs, and BundleError for a model whose
        graph gives no hidden states.
        """
        params = params_with(params, settings)
        check_hooks(cancel, processors)
        if contrastive is not None:
            check_is_a("contrastive", contrastive, ContrastiveParams)
        if on_text is not None:
            check_callable("on_text", on_text)
        encoded = self.encode_prompt(prompt, params.max_new_tokens, truncate, special=special)
        return ContrastiveSearch(
            self.session,
            self.tokenizer,
            encoded,
            params,
            contrastive or ContrastiveParams(),
            tuple(self.end_tokens),
            processors,
            sequence=self.new_sequence(),
        ).run(on_text, cancel)

    def score(
        self, prompt: str, continuation: str, *, logprobs: int = 0, special: bool = False
    ) -> Score:
        """How likely the model finds `continuation` after `prompt`: the log-probability of each of
        its tokens, with so many alternatives.

        Spaces at the prompt's end count to the continuation, as its tokens have them. An empty
        prompt scores the whole text, after an end token. Raises ContextLengthError, and ValueError
        for an empty continuation.
        """
        before, after = split_ids(prompt, continuation, self.tokenizer, special=special)
        return score_ids(self.session, before, after, self.tokenizer.vocab_size, logprobs)

    def choose(
        self,
        prompt: str,
        options: Sequence[str],
        *,
        neutral_prompt: str | None = None,
        truncate: Truncate | None = None,
        special: bool = False,
    ) -> list[Choice]:
        """Which of `options` follows `prompt`, and how probable each is among them: a classifier
        without training. In the order given; the prompt is read once.

        The probability of an option is that of all its tokens, so a longer or a rarer one is less
        likely by itself. neutral_prompt: the question without its content, such as
        "Review: N/A Sentiment:", or "" for the start of a text; how likely each option is after it
        is divided out. truncate: "left" cuts the start of a prompt that does not fit.
        Raises as `score`, and ValueError for no options.
        """
        check_several("options", options, "at least one string")
        if not options:
            raise ValueError("options must be a sequence of at least one string, got none")
        scores = self._option_scores(prompt, options, truncate, special=special)
        if neutral_prompt is None:
            return choices_of(options, scores)
        neutral = self._option_scores(neutral_prompt, options, truncate, special=special)
        return choices_of(options, scores, neutral)

    def _option_scores(
        self, prompt: str, options: Sequence[str], truncate: Truncate | None, *, special: bool
    ) -> list[Score]:
        check_truncate(truncate)
        pairs = split_options(prompt, options, self.tokenizer, special=special)
        fitting = fit_options(pairs, self.session.config.n_ctx, cut=truncate is not None)
        return choose_ids(self.session, fitting, self.tokenizer.vocab_size)
