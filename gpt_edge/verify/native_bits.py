"""The bits that the custom operators give on every CPU, as hashes of logits: two machines that
never meet can tell that they agree.

`BITS` has those of the built-in bundles; a change of a bundle or of the operators changes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session

BITS = {
    "banking77-6m-int8": "88cbb5b8424c55f540289b6a056cece9",
    "sentiment-6m-int8": "7a592b37848678d0f4b3304564040a03",
    DEFAULT_BUNDLE: "305564714d1df35b89cc1d5582d4dae9",
}
N_PROMPT, N_STEPS = 40, 10  # tokens
LENGTHS = (1, 3, 17, 40)  # of the texts of a classifier, in tokens


def bits_of(bundle: Bundle, library: Path) -> str:
    """32 hexadecimal digits of a bundle's logits on random ids: of a language model a prompt and
    single steps behind it, of a classifier texts of several lengths.

    Equal on every CPU if the custom operators compute every product, norm and attention of the
    bundle. Raises as `Session` and `Encoder`.
    """
    rng = np.random.Generator(np.random.Philox(0))
    digest = hashlib.sha256()
    vocab_size = bundle.config.vocab_size
    if bundle.task is not None:
        texts = [rng.integers(0, vocab_size, length).tolist() for length in LENGTHS]
        encoder = Encoder(bundle, threads=2, native=library)
        digest.update(encoder.logits(texts).astype("<f4").tobytes())
        return digest.hexdigest()[:32]
    ids = rng.integers(0, vocab_size, N_PROMPT + N_STEPS)
    session = Session(bundle, threads=2, native=library)
    cache = session.new_cache()
    digest.update(session.forward(ids[None, :N_PROMPT], cache, "all").astype("<f4").tobytes())
    for token in ids[N_PROMPT:]:
        digest.update(session.decode([int(token)], cache).astype("<f4").tobytes())
    return digest.hexdigest()[:32]
