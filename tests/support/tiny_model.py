"""The tiny golden model as both graphs, opened once; see tests/golden/make_tiny_bundles.py. Needs
no torch.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.generate.generator import Generator
from gpt_edge.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GRAPHS = ("edge", "portable")
N_CTX = 64
VOCAB_SIZE = 277
END_TOKEN = 276


def bundle_path(graph: str = "edge") -> Path:
    """The golden bundle of that graph."""
    return GOLDEN / f"tiny-{graph}"


@functools.cache
def open_generator(graph: str = "edge") -> Generator:
    """A generator with one thread."""
    bundle = Bundle.open(bundle_path(graph))
    return Generator(Session(bundle, threads=1), bundle.load_tokenizer())


def open_session(graph: str = "edge") -> Session:
    """The generator's session."""
    return open_generator(graph).session


def random_ids(n: int, seed: int = 0) -> np.ndarray:
    """int64 [1, n]."""
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, (1, n))
