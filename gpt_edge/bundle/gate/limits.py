"""The numbers of the gate: how large a graph, its names and its numbers may be, and the error of
one that is not.
"""

from __future__ import annotations

# onnx.TensorProto.DataType
FLOAT32, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, UINT4, INT4 = 1, 2, 3, 6, 7, 9, 10, 21, 22
BITS_OF = {
    FLOAT32: 32,
    UINT8: 8,
    INT8: 8,
    INT32: 32,
    INT64: 64,
    BOOL: 8,
    FLOAT16: 16,
    UINT4: 4,
    INT4: 4,
}
TYPE_NAMES = {
    FLOAT32: "FLOAT32",
    UINT8: "UINT8",
    INT8: "INT8",
    INT32: "INT32",
    INT64: "INT64",
    BOOL: "BOOL",
    FLOAT16: "FLOAT16",
    UINT4: "UINT4",
    INT4: "INT4",
}

# Own graphs have 31 nodes and 37 initializers a layer, int8-dynamic 52 and 57, int4 that
# `gpt-edge web` arranged up to 84 nodes, and at most 60 of either around the layers.
AROUND_LAYERS, PER_LAYER = 128, 96
GRAPH_BYTES = 1 << 16  # of each layer, and around them: weights lie in the data file
MAX_GRAPH_BYTES = 1 << 26
MAX_NAME = 512  # bytes
MAX_RANK = 8
MAX_DIMENSION = 1 << 31
MAX_ELEMENTS = 1 << 40
# a small tensor of whole numbers, whose values say what shapes others have
MAX_CONTENT = 16
MAX_BLOCK = 1 << 14
# what a quantization scale may be: the last byte of a float32, which is sign and exponent, is at
# most this one: up to 2**64
LARGEST_SCALE = 0x5F

# Folders of others, where Optimum's graphs of 48 layers have 5,000 nodes in each branch
MAX_FOREIGN_NODES = 20_000  # and tensors
MAX_FOREIGN_PARTS = 100_000  # nodes, initializers and declared types of one graph
MAX_FOREIGN_DEPTH = 2  # a merged decoder has one `If`


class GateError(ValueError):
    """What a graph has that none of gpt-edge's has; `checked_model` names the file."""


def shown(text: object) -> str:
    """A name or a value from a file, quoted for a message: short, and nothing that acts on a
    terminal.
    """
    quoted = ascii(text)
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}..."
