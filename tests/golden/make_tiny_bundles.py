"""Make tests/golden/tiny-edge and tiny-portable: one small model of random weights, in fp32, as
both graphs.

    python tests/golden/make_tiny_bundles.py

The runtime's tests run on them without torch. The weights come from numpy's Philox bits, so that
they are the same everywhere; text is written large enough (logits with a standard deviation of
about 3) that sampling has a choice.

The committed bundles are older than the output of hidden states: what this script makes today has
that output as well, and therefore other bytes. The committed ones stay, since a bundle of that time
must remain readable.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gpt_edge.config import GPTConfig
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.model import GPT
from gpt_edge.tokenizer.formats.rank_file import format_ranks

HERE = Path(__file__).parent
MERGES = b" t,he,in,er,an,on, s,re, w,ed, the,ing, a,ll,ou, he, to,and,st,ar".split(b",")
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, n_ctx=64, vocab_size=256 + len(MERGES) + 1)


def weights() -> dict[str, np.ndarray]:
    """Parameters of the reference by name, float32."""
    bits = np.random.Philox(key=2)
    made = {}
    for name, parameter in GPT(CONFIG).named_parameters():
        shape = tuple(parameter.shape)
        uniform = (bits.random_raw(parameter.numel()) >> 11).astype(np.float64) * 2.0**-53 - 0.5
        scale = 2.5 if name.startswith(("wte", "wpe")) else 1.5 if name.endswith("weight") and len(shape) == 2 else 0.2
        # gains of the layer norms
        offset = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
        made[name] = (uniform.reshape(shape) * scale + offset).astype(np.float32)
    return made


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny"
        checkpoint.mkdir()
        settings = {"format": "gpt-edge-checkpoint", "version": 1, "config": CONFIG.to_dict()}
        (checkpoint / "config.json").write_text(json.dumps(settings))
        save_file(weights(), checkpoint / "model.safetensors")
        ranks = Path(folder) / "tokenizer.tiktoken"
        ranks.write_bytes(format_ranks([bytes([byte]) for byte in range(256)] + MERGES))
        for graph in ("edge", "portable"):
            out = HERE / f"tiny-{graph}"
            export_bundle(checkpoint, out, graph=graph, scheme="fp32", tokenizer=str(ranks), force=True)


if __name__ == "__main__":
    main()
