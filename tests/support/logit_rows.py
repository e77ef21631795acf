"""Rows of logits, and the slow, obvious top-k that the fast one is compared with."""

from __future__ import annotations

import numpy as np

V = 50257


def row(size: int = V, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def slow_order(logits: np.ndarray) -> list[int]:
    """Every id, by sorting pairs: the largest first, the lower id first in a tie."""
    values = logits.tolist()
    return sorted(range(len(values)), key=lambda id: (-values[id], id))


def slow_top_k(logits: np.ndarray, k: int) -> list[int]:
    """The first `k` ids of that order, ascending."""
    return sorted(slow_order(logits)[:k])
