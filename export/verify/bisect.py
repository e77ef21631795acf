"""Where a bundle leaves the noise, when every operator by itself is within its limits: a fault that
only logits or an execution path show.

Each model runs on its own values; at every operator the difference is compared with that of a
reference disturbed by errors of the scheme's size, and the first that is larger is named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.verify.activations import reference_trace
from gpt_edge.export.verify.divergence import layer_divergences, relative_difference
from gpt_edge.export.verify.own_noise import bits_of, disturbed
from gpt_edge.reference.model import GPT

FACTOR = 3.0  # of the disturbed reference's difference
FLOOR = 1e-4  # of a result's size: float32 sums in another order
N_TOKENS = 64
SEED = 20200528
RUNTIME = "runtime"


def first_beyond_noise(bundle: Bundle, model: GPT) -> dict[str, Any]:
    """The operator whose result is the first beyond the noise, as `Verification.first`; of a graph
    that never leaves it the runtime, which then computes something else than the graph says.

    Raises BundleError for a graph that cannot be run.
    """
    config = bundle.config
    rng = np.random.default_rng(SEED)
    ids: IntArray = rng.integers(0, config.vocab_size, min(N_TOKENS, config.n_ctx))
    expected, _ = reference_trace(model, ids)
    with disturbed(model, bits_of(bundle.scheme)):
        noisy, _ = reference_trace(model, ids)
    for divergence in layer_divergences(model, bundle, ids):
        operator = divergence.operator
        noise = relative_difference(expected[operator], noisy[operator])
        if not divergence.relative <= FACTOR * noise + FLOOR:
            text = (
                f"from here on the results differ by {divergence.relative:.2g} of their size, "
                f"where {noise:.2g} is explained"
            )
            return {
                "layer": operator.layer,
                "operator": operator.name,
                "place": str(operator),
                "text": text,
            }
    text = "no operator of the graph leaves the noise: what runs it computes something else"
    return {"layer": None, "operator": RUNTIME, "place": RUNTIME, "text": text}
