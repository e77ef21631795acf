"""A tiny checkpoint, and the bundle that the command line makes of it, once: tracing costs
seconds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.runner import Result, done

MERGES = b" t,he,in,er,an,on, s,re, w,ed, the,ing, a,ll,ou, he, to,and,st,ar".split(b",")


@pytest.fixture(autouse=True)
def _one_thread_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pytest_runtest_setup` does in this process: two exports at once would otherwise wait for
    each other's threads.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _shared_traces(shared_traces: None) -> None:
    """A model's shape is traced once in a run."""


@pytest.fixture(scope="session")
def tiny_edge() -> Path:
    """A committed fp32 bundle: 2 layers, width 16, context 64, a byte-level vocabulary of 277."""
    return REPO / "tests" / "golden" / "tiny-edge"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of gpt-edge's own: random weights, and its tokenizer."""
    import torch

    from gpt_edge.config import GPTConfig
    from gpt_edge.reference.checkpoint import save_checkpoint
    from gpt_edge.reference.model import GPT
    from gpt_edge.tokenizer import source_from_ranks
    from gpt_edge.tokenizer.formats.rank_file import format_ranks

    words = source_from_ranks(format_ranks([bytes([byte]) for byte in range(256)] + MERGES))
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, n_ctx=64, vocab_size=words.spec.vocab_size)
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("source") / "tiny"
    save_checkpoint(folder, config, GPT(config).state_dict(), words, {})
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The int8 bundle of `checkpoint`, and what `gpt-edge export --json` said."""
    out = tmp_path_factory.mktemp("exported") / "tiny-int8"
    return out, done("export", checkpoint, out, "--json")
