"""philox: numpy's generator, number by number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpt_edge.generate.philox import Philox


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_the_random_numbers_are_those_of_numpys_philox(seed: int) -> None:
    ours = list(itertools.islice(Philox(seed), 1000))
    assert ours == np.random.Philox(key=seed).random_raw(1000).tolist()
