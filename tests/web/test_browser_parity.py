"""Fifty prompts of fifty greedy tokens in Chromium, in each scheme, beside Python on the same files
and on the bundle that they were made from.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.tokenizer.spec import TokenizerSource, TokenizerSpec
from gpt_edge.web.site import write_site
from tests.support.chromium import Chromium
from tests.support.models import random_model
from tests.support.page_library import library_texts
from tests.web.test_browser import serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCHEMES = ("fp32", "int8", "int8-block", "int4")
N_PROMPTS, N_TOKENS = 50, 50
# of the spread of the logits: what rounding activations to 8 bits may turn
LARGEST_GAP = 0.05


def builtin_tokenizer() -> TokenizerSource:
    bundle = Bundle.open()
    spec = TokenizerSpec.from_dict(bundle.manifest.tokenizer or {})
    return TokenizerSource(spec, (bundle.path / spec.file).read_bytes())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the built-in vocabulary."""
    n_vocab = Bundle.open().config.vocab_size
    config = GPTConfig(n_layer=2, n_head=4, n_embd=64, n_ctx=96, vocab_size=n_vocab)
    folder = tmp_path_factory.mktemp("checkpoint")
    weights = random_model(config, std=0.25).state_dict()
    save_checkpoint(folder, config, weights, builtin_tokenizer(), {})
    return folder


def prompts() -> list[str]:
    choose = random.Random(4)
    words = ("a dog", "Lily", "big", "ran", "saw", "the tree", "house", "and", ".", "one day")
    return [" ".join(choose.choices(words, k=choose.randint(1, 9))) for _ in range(N_PROMPTS)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ids_are_those_of_python(scheme: str, checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / scheme, scheme=scheme)
    bundle = Bundle.open(tmp_path / scheme)
    site = write_site([bundle], tmp_path / "site")
    name = bundle.manifest.name
    texts = prompts()
    with serving(site) as address, Chromium() as browser:
        page = browser.new_page(address)
        page.wait("document.body.dataset.state === 'ready'")
        found = [row["ids"] for row in library_texts(page, name, texts, N_TOKENS)]
    assert all(len(ids) == N_TOKENS for ids in found)
    assert gaps(site / "models" / name, texts, found) == []
    flips = gaps(tmp_path / scheme, texts, found)
    print(f"{scheme}: {len(flips)} of {N_PROMPTS} texts part from the bundle's, at {flips}")
    assert max(flips, default=0) < LARGEST_GAP
    assert scheme != "fp32" or flips == []


def gaps(bundle: Path, texts: list[str], found: list[list[int]]) -> list[float]:
    """Of each text that is not Python's, the gap between the two largest logits where they part, as
    a fraction of their spread.
    """
    model = gpt_edge.load(bundle)
    parted = []
    for prompt, ids in zip(texts, found, strict=True):
        done = model.complete(prompt, max_new_tokens=N_TOKENS, ignore_end_token=True)
        if list(done.ids) == ids:
            continue
        at = next(n for n, pair in enumerate(zip(done.ids, ids, strict=True)) if len({*pair}) > 1)
        history = [*model.tokenizer.encode(prompt), *ids[:at]]
        logits = np.sort(model.session.forward([history], model.session.new_cache())[0, -1])
        parted.append(float((logits[-1] - logits[-2]) / (logits[-1] - logits[0])))
    return parted
