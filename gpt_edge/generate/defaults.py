"""A model's generation defaults as SamplingParams, and what of them this version does not apply."""

from __future__ import annotations

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.generate.params import DEFAULT_TEMPERATURE, SamplingParams


def params_from_defaults(defaults: GenerationDefaults | None, vocab_size: int) -> SamplingParams:
    """The sampling that the defaults ask for; greedy without do_sample, as for transformers."""
    if defaults is None or not defaults.do_sample:
        return SamplingParams()
    temperature = defaults.temperature
    if temperature is None:
        temperature = DEFAULT_TEMPERATURE
    top_k = vocab_size if defaults.top_k == 0 else defaults.top_k
    return SamplingParams(temperature=temperature, top_k=top_k)


def unapplied(defaults: GenerationDefaults | None) -> str | None:
    """What of the defaults changes the choice of tokens and is not applied, in words; or None."""
    if defaults is None or not defaults.do_sample or defaults.top_p in (None, 1):
        return None
    return f"the model's default top_p {defaults.top_p:g} is not applied: there is no top-p yet"
