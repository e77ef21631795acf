"""Makes the bundles whose logits are hashed in tests/parity/test_native_bits.py: random weights, one
bundle for each scheme that has integer products.

    python tests/golden/make_native_bundles.py

The committed ones stay as they are: their bits are what machines compare. Run it in an empty
checkout only, and commit new hashes with them (`python -m tests.parity.test_native_bits`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from gpt_edge.config import GPTConfig
from gpt_edge.export.pipeline.export import export_bundle
from tests.support.models import save_random

FOLDER = Path(__file__).parent
# a width of five vectors, heads that do not fill theirs, a banded layer
CONFIG = GPTConfig(
    n_layer=2,
    n_head=4,
    n_embd=80,
    n_ctx=96,
    vocab_size=97,
    attention=("dense", "banded"),
    window=9,
)
SCHEMES = ("int8", "int8-block", "int4")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = save_random(Path(folder) / "source", CONFIG)
        for scheme in SCHEMES:
            export_bundle(source, FOLDER / f"native-{scheme}", scheme=scheme, tokenizer="none")


if __name__ == "__main__":
    main()
