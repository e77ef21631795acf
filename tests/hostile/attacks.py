"""Crafted attacks on a bundle: each edits a copy of a good one, whose manifest is then signed anew.

Graphs are edited with onnx, weights and files by hand. An attack that a graph must not pass is
`refused`; what onnxruntime would do with most of them stands in docs/security.md.
"""

from tests.hostile.crafted import folders, inputs, programs, tensors  # noqa: F401
from tests.hostile.crafted.attack import ATTACKS, Attack, spoiled

__all__ = ["ATTACKS", "Attack", "spoiled"]
