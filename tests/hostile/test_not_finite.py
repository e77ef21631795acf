"""NaN and infinity in the weights of a bundle and in a cache: an error, and no token.

Those in logits are in `tests/unit/generate/test_sampler.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from gpt_edge import SamplingParams
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.limits import FLOAT32
from gpt_edge.bundle.gate.proto import read_graph
from gpt_edge.bundle.gate.records import Tensor
from gpt_edge.errors import BundleError, NumericError
from gpt_edge.generate.sampler import Sampler
from gpt_edge.runtime.session import Session
from tests.hostile.signing import GOLDEN, copy_of, sign

BUNDLES = ("tiny-portable", "tiny-edge")
VALUES = (math.nan, math.inf, -math.inf)
KEPT = ("model.onnx", "model.onnx.data", "manifest.json")


def next_token(folder: Path) -> int:
    """One token after the first, the middle and the last of the vocabulary."""
    with Session(Bundle.open(folder)) as session:
        vocabulary = session.config.vocab_size
        ids = np.array([[0, vocabulary // 2, vocabulary - 1]])
        logits = session.forward(ids, session.new_cache())
        return Sampler(SamplingParams()).sample(logits[0, -1])


def float_tensors(folder: Path) -> list[Tensor]:
    graph = read_graph((folder / "model.onnx").read_bytes(), 10_000)
    return [tensor for tensor in graph.initializers if tensor.type == FLOAT32 and tensor.length]


def at_of(tensor: Tensor, where: str) -> int:
    """A number of a tensor that the prompt reads; of positions the first three rows are."""
    n_items = tensor.length // 4
    if tensor.name == "wpe.weight":
        n_items = 3 * tensor.dims[-1]
    return {"first": 0, "middle": n_items // 2, "last": n_items - 1}[where]


@pytest.mark.parametrize("name", BUNDLES)
def test_one_in_a_weight_is_an_error(name: str, tmp_path: Path) -> None:
    folder = copy_of(name, tmp_path / "bundle", KEPT)
    good = (folder / "model.onnx.data").read_bytes()
    assert next_token(folder) >= 0
    tensors = float_tensors(folder)
    places = itertools.cycle(("first", "middle", "last", "last", "first"))
    accepted = []
    for tensor, value in itertools.product(tensors, VALUES):
        where = next(places)
        data = bytearray(good)
        at = tensor.offset + 4 * at_of(tensor, where)
        data[at : at + 4] = struct.pack("<f", value)
        (folder / tensor.location).write_bytes(data)
        sign(folder)
        with contextlib.suppress(BundleError, NumericError):
            accepted.append(f"{value} {where} in {tensor.name}: token {next_token(folder)}")
    assert len(tensors) > 15
    assert accepted == []


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_nan_in_a_cache_is_an_error(name: str, where: str) -> None:
    with Session(Bundle.open(GOLDEN / name)) as session:
        cache = session.new_cache()
        session.forward(np.array([[1, 2, 3, 4]]), cache)
        saved = cache.save()
        keys = [key for key, array in saved.items() if array.dtype.kind == "f" and array.size]
        assert len(keys) == 2 * session.config.n_layer
        for key in keys:
            array = saved[key].copy()
            at = {"first": 0, "middle": array.size // 2, "last": array.size - 1}[where]
            array.flat[at] = math.nan
            other = session.new_cache()
            other.restore({**saved, key: array})
            logits = session.forward(np.array([[5]]), other)
            with pytest.raises(NumericError):
                Sampler(SamplingParams()).sample(logits[0, -1])
