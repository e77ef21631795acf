"""The types of arrays, one name for each element type, whatever the shape.

Imports numpy, so only modules that compute with arrays import it: `import gpt_edge` and
`gpt-edge --help` load neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]  # weights, activations, logits
DoubleArray = NDArray[np.float64]  # sums and measures
IntArray = NDArray[np.int64]  # token ids, positions, lengths
ByteArray = NDArray[np.uint8]  # quantization levels and packed bits
WordArray = NDArray[np.uint32]
BoolArray = NDArray[np.bool_]
