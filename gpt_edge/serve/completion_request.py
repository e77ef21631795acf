"""What a request for a completion asks for, from the fields of its JSON object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from gpt_edge.generate.params import MAX_SEED, SamplingParams
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.fields import Fields, is_unicode
from gpt_edge.serve.sampling_fields import are_ids, read_sampling
from gpt_edge.serve.served_models import ServedModel

MAX_PROMPTS = 16
MAX_SAMPLES = 8
MAX_ROWS = 32  # of all prompts and samples of one request
MAX_LOGPROBS = 20
DEFAULT_MAX_TOKENS = 16  # OpenAI's for /v1/completions

PromptInput = str | list[int]


@dataclass(frozen=True, slots=True)
class Output:
    """How the answer is wanted. n: texts for each prompt, of `best_of`; logprobs: alternatives of
    each token, None for no log-probabilities; max_tokens: 0 for the echo alone.
    """

    n: int = 1
    best_of: int = 1
    echo: bool = False
    stream: bool = False
    include_usage: bool = False
    logprobs: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """prompts: texts or token ids. special: whether special tokens that a prompt spells are read as
    such.
    """

    prompts: Sequence[PromptInput]
    params: SamplingParams
    output: Output
    special: bool = False

    def rows(self) -> list[tuple[PromptInput, SamplingParams]]:
        """Every text to generate: of each prompt `best_of`, whose seeds count up from the
        request's.
        """
        first = self.params.seed
        if first is None:
            first = int.from_bytes(os.urandom(8), "little")
        each = [
            dataclasses.replace(self.params, seed=(first + number) & MAX_SEED)
            for number in range(self.output.best_of)
        ]
        return [(prompt, params) for prompt in self.prompts for params in each]


def read_completion(fields: Fields, model: ServedModel) -> CompletionRequest:
    """A request to `/v1/completions`. Raises ApiError 400 naming the field."""
    assert model.generator is not None
    config = model.generator.session.config
    vocab_size = model.generator.tokenizer.vocab_size
    fields.refuse({"suffix": "these models only continue a text"})
    fields.text("user")  # as OpenAI: taken, and of no effect here
    max_tokens = fields.whole("max_tokens", 0, config.n_ctx, DEFAULT_MAX_TOKENS) or 0
    logprobs = fields.whole("logprobs", 0, MAX_LOGPROBS)
    output = read_output(fields, max_tokens, logprobs)
    if max_tokens == 0 and not output.echo:
        raise fields.wrong("max_tokens", "1 or more without echo", 0)
    params = read_sampling(fields, model.generator.generation_defaults, vocab_size, max_tokens)
    prompts = read_inputs(fields, "prompt", vocab_size, MAX_PROMPTS)
    special = fields.flag("special")
    fields.finish()
    check_rows(output, len(prompts))
    params = with_logprobs(params, output)
    return CompletionRequest(prompts, params, output, special)


def read_output(fields: Fields, max_tokens: int, logprobs: int | None) -> Output:
    """The fields that say how the answer is wanted."""
    n = fields.whole("n", 1, MAX_SAMPLES, 1) or 1
    best_of = fields.whole("best_of", 1, MAX_SAMPLES, n) or n
    stream = fields.flag("stream")
    options = fields.nested("stream_options")
    include_usage = False
    if options is not None:
        if not stream:
            raise ApiError(400, "stream_options needs stream to be true", param="stream_options")
        include_usage = options.flag("include_usage")
        options.flag("include_obfuscation")  # OpenAI's padding against listeners; none is added
        options.finish()
    if best_of < n:
        raise ApiError(400, f"best_of must be at least n, got {best_of} and {n}", param="best_of")
    if stream and best_of > n:
        raise ApiError(400, "best_of cannot be streamed: it is known at the end", param="best_of")
    echo = fields.flag("echo")
    return Output(n, best_of, echo, stream, include_usage, logprobs, max_tokens)


def with_logprobs(params: SamplingParams, output: Output) -> SamplingParams:
    """`params` with the log-probabilities that the answer, or the choice of the best, needs."""
    logprobs = output.logprobs
    if logprobs is None and output.best_of > output.n:
        logprobs = 0
    prompt_logprobs = output.logprobs if output.echo else None
    return dataclasses.replace(params, logprobs=logprobs, prompt_logprobs=prompt_logprobs)


def check_rows(output: Output, n_prompts: int) -> None:
    """Raise ApiError 400 for more texts than one request may ask for."""
    n_rows = n_prompts * output.best_of
    if n_rows > MAX_ROWS:
        raise ApiError(
            400, f"the request asks for {n_rows} texts, at most {MAX_ROWS} are made", param="n"
        )


def read_inputs(fields: Fields, name: str, vocab_size: int, limit: int) -> list[PromptInput]:
    """A text, token ids, or a list of either. Raises ApiError 400."""
    value = fields.raw(name)
    expected = f"a text, token ids below {vocab_size}, or a list of up to {limit} of either"
    if value is None:
        raise ApiError(400, f"you must provide the field {name}", param=name)
    inputs = value if isinstance(value, list) else [value]
    if isinstance(value, list) and value and are_ids(value, vocab_size):
        return [value]
    if not 1 <= len(inputs) <= limit:
        raise fields.wrong(name, expected, value)
    for one in inputs:
        is_text = isinstance(one, str) and is_unicode(one)
        has_ids = isinstance(one, list) and one and are_ids(one, vocab_size)
        if not is_text and not has_ids:
            raise fields.wrong(name, expected, one)
    return inputs
