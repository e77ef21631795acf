"""A session that writes what it is told to, for the ends and faults that a real model reaches only
by luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from gpt_edge.generate.generator import Generator
from tests.support.tiny_model import open_generator


class Scripted:
    """A session that writes the given ids, whatever it reads; a number that is no id becomes NaN
    logits.
    """

    def __init__(self, ids: Iterable[float], vocab_size: int | None = None) -> None:
        real = open_generator().session
        self.config, self.new_cache, self.reserve = real.config, real.new_cache, real.reserve
        self._ids = itertools.chain(ids, itertools.repeat(0))
        self._vocab_size = vocab_size or self.config.vocab_size

    def decode(self, ids: Sequence[int], cache: object) -> np.ndarray:
        logits = np.zeros((1, self._vocab_size), np.float32)
        id = next(self._ids)
        logits[0, int(id)] = 9.0 if id == int(id) else np.nan
        return logits

    def forward(self, ids: np.ndarray, cache: object, *_: object, **__: object) -> np.ndarray:
        return self.decode([], cache)[None]


def scripted(text: bytes, *more: float) -> Generator:
    return Generator(Scripted([*text, *more]), open_generator().tokenizer)  # type: ignore[arg-type]
