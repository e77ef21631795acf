"""Loss per token and bits per byte: onnxruntime and torch agree, and the textbook cases
come out.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.evaluate import negative_log_likelihood, score_documents
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.training.validation import score_in_torch
from tests.parity.conftest import Export
from tests.support.models import TINY


@pytest.mark.parametrize("kind", TINY)
def test_a_bundle_scores_a_text_as_torch_does(
    kind: str, export: Export, checkpoints: dict[str, Path]
) -> None:
    config, rng = TINY[kind], np.random.default_rng(0)
    # the last ones are read in windows
    lengths = (2, 9, config.n_ctx, config.n_ctx + 1, 3 * config.n_ctx)
    documents = [rng.integers(0, config.vocab_size, length) for length in lengths]
    session = Session(export(kind, "edge", "fp32")[0])
    done: list[int] = []
    found = score_documents(session, documents, 1000, done.append)
    wanted = score_in_torch(
        open_checkpoint(checkpoints[kind]).load_model(), documents, 1000, config.n_ctx, "float32"
    )
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(found.loss * found.n_tokens / math.log(2) / 1000)
    assert (
        (found.n_tokens, found.n_bytes)
        == (wanted.n_tokens, wanted.n_bytes)
        == (sum(lengths) - 5, 1000)
    )
    assert done == [1, 2, 3, 4, 5]


def test_a_uniform_model_loses_the_logarithm_of_its_vocabulary() -> None:
    loss = negative_log_likelihood(np.full((3, 50257), 7.0, np.float32), np.array([0, 5, 50256]))
    assert loss == pytest.approx([math.log(50257)] * 3, rel=1e-6)


def test_a_document_without_a_target_is_refused(export: Export) -> None:
    with pytest.raises(ValueError, match="document 0 has 1 ids"):
        score_documents(Session(export("gpt2", "edge", "fp32")[0]), [np.array([1])], 1)
