"""Session.is_row_exact: where it is true, neither the split of a text nor its neighbours change a
bit.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.native.library import bodies, installed_library
from gpt_edge.runtime.session import Session
from tests.support.tiny_model import GOLDEN, bundle_path

NAMES = sorted(path.name for path in GOLDEN.glob("native-*"))


def open_session(name: str) -> Session:
    library = installed_library()
    if library is None or not bodies(library):
        pytest.skip("no operators are installed, or none for this CPU")
    return Session(Bundle.open(GOLDEN / name), native=library, threads=2)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_and_neighbours_change_no_bit(name: str) -> None:
    session = open_session(name)
    assert session.is_row_exact
    n = min(session.config.n_ctx, 96)
    random = np.random.default_rng(0)
    ids = random.integers(0, session.config.vocab_size, (3, n))
    whole = [session.forward(row[None], session.new_cache(), "all")[0] for row in ids]
    slots = session.new_slots(3)
    for number, row in enumerate(ids):
        cache = session.new_cache()
        past = 0
        while past < n // 2:
            chunk = row[past : past + int(random.integers(1, 20))][: n // 2 - past]
            logits = session.forward(chunk[None], cache, "all")[0]
            assert (logits == whole[number][past : past + chunk.size]).all()
            past += chunk.size
        slots.join(cache)
    for place in range(n // 2, n):
        together = session.decode(ids[:, place], slots)
        assert (together == np.stack([logits[place] for logits in whole])).all()


def test_without_custom_operators_nothing_is_promised() -> None:
    for name in (*NAMES, bundle_path("edge"), bundle_path("portable")):
        assert not Session(Bundle.open(GOLDEN / name), native=False, threads=1).is_row_exact
