"""A model's generation defaults as SamplingParams."""

from __future__ import annotations

import dataclasses

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.generate.params import DEFAULT_TEMPERATURE, SamplingParams


def params_from_defaults(defaults: GenerationDefaults | None, vocab_size: int) -> SamplingParams:
    """What the defaults ask for; greedy without do_sample, as for transformers, where penalties
    count all the same.
    """
    if defaults is None:
        return SamplingParams()
    params = SamplingParams(
        repetition_penalty=defaults.repetition_penalty or 1.0,
        no_repeat_ngram_size=defaults.no_repeat_ngram_size or 0,
    )
    if not defaults.do_sample:
        return params
    temperature = defaults.temperature
    return dataclasses.replace(
        params,
        temperature=DEFAULT_TEMPERATURE if temperature is None else temperature,
        top_k=vocab_size if defaults.top_k == 0 else defaults.top_k,
        top_p=defaults.top_p,
        min_p=defaults.min_p,
        typical_p=defaults.typical_p,
    )
