"""Makes the bundles whose logits are hashed in tests/parity/test_native_bits.py: random weights, a
bundle for each scheme that has integer products, and for each activation function.

    python tests/golden/make_native_bundles.py

The committed ones stay as they are: their bits are what machines compare. Commit the hashes of new
ones with them (`python -m tests.parity.test_native_bits`).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
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
SMALL = replace(CONFIG, n_layer=1, n_embd=64, attention=("dense",), window=None)
BUNDLES = {
    "native-int8": (CONFIG, "int8"),
    "native-int8-block": (CONFIG, "int8-block"),
    "native-int4": (CONFIG, "int4"),
    "native-gelu-int4": (replace(SMALL, activation="gelu", norm="post"), "int4"),
    "native-gelu-int8": (replace(SMALL, activation="gelu"), "int8"),
    "native-relu-int8": (replace(SMALL, activation="relu"), "int8"),
}


def main() -> None:
    """Make those that are not there."""
    for name, (config, scheme) in BUNDLES.items():
        if (FOLDER / name).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            source = save_random(Path(folder) / "source", config)
            export_bundle(source, FOLDER / name, scheme=scheme, tokenizer="none")


if __name__ == "__main__":
    main()
