"""Which calls of a graph are looked at operator by operator: a prompt, more tokens behind it, and
tokens behind a cache of every length.

A budget, not a sample of one: whatever the context's length, calls reach all over it, and `full`
leaves no position out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpt_edge.config import GPTConfig

N_PROMPT = 40  # tokens of the first call, where the whole context costs too much
N_MORE = 12  # tokens of the second, which has a past
FAR = 12  # tokens beyond the widest window
# parameters times positions, and logits, of a prompt that fills the context: a second or two
MAX_WHOLE = 12_000_000_000
MAX_LOGITS = 8_000_000
CHUNK = 128  # tokens of a call where the whole context is looked at
POSITIONS_OF_A_PLACE = 32
FEWEST_PLACES, MOST_PLACES = 4, 16
SEED = 20201228


@dataclass(frozen=True, slots=True)
class Call:
    """New tokens behind a cache. n_past: tokens in a cache that is drawn for this call; None: the
    call continues the one before, 0: the cache is empty.
    """

    n_new: int
    n_past: int | None = None


def calls(config: GPTConfig, *, full: bool) -> Iterator[Call]:
    """The calls for a model. Of a task, which has no cache, a prompt alone."""
    first, more = _first_tokens(config, full=full)
    yield Call(first, 0)
    if config.n_label is not None:
        return
    if more:
        yield Call(more)
    yield from (_every_position(config) if full else _places(config))


def _first_tokens(config: GPTConfig, *, full: bool) -> tuple[int, int]:
    """Tokens of the prompt, and of the call behind it."""
    n_ctx = config.n_ctx
    is_task = config.n_label is not None
    n_logits = 0 if is_task else n_ctx * config.vocab_size
    is_whole = config.n_parameters * n_ctx <= MAX_WHOLE and n_logits <= MAX_LOGITS
    if not is_whole and not (full and is_task):
        window = max(config.layer_window(layer) or 0 for layer in range(config.n_layer))
        n_ctx = min(n_ctx, max(N_PROMPT, window + FAR) + N_MORE)
    if is_task:
        return n_ctx, 0
    first = max(1, n_ctx - N_MORE)
    return first, n_ctx - first


def _places(config: GPTConfig) -> Iterator[Call]:
    """One token or three at places all over the context, the last position among them. The places
    lie irregularly, so that no period hides between them.
    """
    n_ctx = config.n_ctx
    n_places = min(max(n_ctx // POSITIONS_OF_A_PLACE, FEWEST_PLACES), MOST_PLACES)
    rng = np.random.default_rng(SEED)
    borders = np.linspace(1, n_ctx, n_places + 1)
    for number, (low, high) in enumerate(itertools.pairwise(borders)):
        is_last = number == n_places - 1
        n_past = n_ctx - 1 if is_last else int(rng.uniform(low, high))
        n_new = 1 if number % 2 == 0 or is_last else 3
        if 0 < n_past < n_ctx:
            yield Call(min(n_new, n_ctx - n_past), n_past)


def _every_position(config: GPTConfig) -> Iterator[Call]:
    """The context in chunks, then token by token."""
    for size in (CHUNK, 1):
        for start in range(0, config.n_ctx, size):
            n_new = min(size, config.n_ctx - start)
            yield Call(n_new, 0 if start == 0 else None)
