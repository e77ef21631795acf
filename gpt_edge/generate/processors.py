"""From SamplingParams to logits processors, in the order in which they work.

The order is that of transformers' `generate` (version 4.57) where both have one:

1. logit_bias
2. repetition_penalty, then presence_penalty and frequency_penalty
3. no_repeat_ngram_size
4. bad_words
5. min_new_tokens
6. the caller's own, then the constraint (`constraints/processor.py`)
7. when sampling: temperature, top_k, top_p, min_p, typical_p (`truncation.py`, `sampler.py`)
"""

from __future__ import annotations

from collections.abc import Collection

from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.penalties import (
    BadWords,
    CountPenalties,
    LogitBias,
    MinNewTokens,
    NoRepeatNgram,
    RepetitionPenalty,
)
from gpt_edge.tokenizer.spec import Tokenizer


def build_processors(
    params: SamplingParams, n_prompt: int, tokenizer: Tokenizer, end_tokens: Collection[int]
) -> list[LogitsProcessor]:
    """The processors 1 to 5 that `params` ask for; most ask for none.

    n_prompt: how many ids of the history are the prompt's. end_tokens: that end the text. Raises
    ValueError for a token id that the vocabulary does not have, TokenizerError for a bad word that
    the tokenizer cannot encode.
    """
    size = tokenizer.vocab_size
    _check_ids("logit_bias", [id for id, _ in params.logit_bias], size)
    _check_ids("stop_token_ids", params.stop_token_ids, size)
    processors: list[LogitsProcessor] = []
    if params.logit_bias:
        processors.append(LogitBias(params.logit_bias))
    if params.repetition_penalty != 1:
        processors.append(RepetitionPenalty(params.repetition_penalty))
    if params.presence_penalty or params.frequency_penalty:
        processors.append(
            CountPenalties(params.presence_penalty, params.frequency_penalty, n_prompt)
        )
    if params.no_repeat_ngram_size:
        processors.append(NoRepeatNgram(params.no_repeat_ngram_size))
    if params.bad_words:
        sequences = _bad_sequences(params.bad_words, tokenizer)
        _check_ids("bad_words", [id for sequence in sequences for id in sequence], size)
        processors.append(BadWords(sequences))
    if params.min_new_tokens and end_tokens:
        processors.append(MinNewTokens(params.min_new_tokens, n_prompt, tuple(sorted(end_tokens))))
    return processors


def _bad_sequences(
    words: tuple[str | tuple[int, ...], ...], tokenizer: Tokenizer
) -> tuple[tuple[int, ...], ...]:
    """Ids of each word: a text as it is and after a space, which are different tokens."""
    sequences: list[tuple[int, ...]] = []
    for word in words:
        if isinstance(word, str):
            spellings = {word, f" {word.lstrip()}"}
            sequences += [tuple(tokenizer.encode_part(spelling)) for spelling in sorted(spellings)]
        else:
            sequences.append(word)
    return tuple(sequence for sequence in sequences if sequence)


def _check_ids(name: str, ids: Collection[int], vocab_size: int) -> None:
    for id in ids:
        if id >= vocab_size:
            raise ValueError(
                f"{name} names token {id}, but the vocabulary's tokens are 0 to {vocab_size - 1}"
            )
