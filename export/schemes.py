"""Which operators compute with the weights, for each graph and scheme. The one place where this is chosen.

edge, int8 and int4: MatMulNBits at accuracy level 4 (activations rounded to 8 bits per row and block, so that a token's
result does not depend on its neighbours) and GatherBlockQuantized; the tied embedding is one initializer that both
read. edge, fp32: MatMul, and FusedMatMul on the table that the embedding reads. portable: standard operators only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gpt_edge.config import GPTConfig
from gpt_edge.export.rewrite import MICROSOFT, Embedding, Linear, replace
from gpt_edge.export.weights import Source, WeightsFile, pad_heads, quantize_blocks, quantize_columns, quantize_levels

ACCURACY_INT8 = 4  # MatMulNBits: 8-bit integer products
FLOAT = ir.TensorType(ir.DataType.FLOAT)
SMALLEST_BLOCK = 16  # MatMulNBits refuses smaller ones


@dataclass(frozen=True, slots=True)
class Scheme:
    """bits of the linear layers and of the embedding and head; 32 is float. block_size in weights."""

    name: str
    body_bits: int
    table_bits: int
    block_size: int


SCHEMES = {
    "fp32": Scheme("fp32", 32, 32, 0),
    "int8": Scheme("int8", 8, 8, 64),
    "int4": Scheme("int4", 4, 8, 32),
    "int8-dynamic": Scheme("int8-dynamic", 32, 8, 64),  # Optimum rounds the body afterwards
}


def block_size(k: int, wanted: int) -> int:
    """The largest block of at most `wanted` weights that divides `k`, else the smallest one, which is then padded."""
    size = wanted
    while size > SMALLEST_BLOCK and k % size:
        size //= 2
    return size


class Lowering:
    """Puts weights and their operators into one graph. `progress` is called with each parameter's name."""

    def __init__(
        self,
        graph: ir.Graph,
        kind: str,
        scheme: Scheme,
        source: Source,
        weights: WeightsFile,
        progress: Callable[[str], None],
    ) -> None:
        self.graph, self.kind, self.scheme, self.source = graph, kind, scheme, source
        self.weights, self.progress = weights, progress
        self.tables: dict[str, tuple[ir.Value, ir.Value | None]] = {}

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self.source.config

    def tensor(self, name: str) -> np.ndarray:
        """A parameter as the graph wants it: heads padded in the edge graph."""
        self.progress(name)
        array = self.source.tensor(name)
        return pad_heads(name, array, self.config) if self.kind == "edge" else array

    def store(self, name: str, array: np.ndarray, *, int4_shape: tuple[int, ...] | None = None) -> ir.Value:
        """Write `array` into the data file and return the initializer that refers to it."""
        tensor = self.weights.add(name, array, int4_shape=int4_shape)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.initializers.pop(name, None)  # the traced placeholder
        self.graph.register_initializer(value)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small initializer inside the graph file; one for each name."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
        self.graph.register_initializer(value)
        return value

    def linear(self, site: Linear) -> None:
        """Lower a layer's projection or the head."""
        is_head = site.bias is None
        bits = self.scheme.table_bits if is_head else self.scheme.body_bits
        if self.kind == "portable":
            nodes = self._portable_head(site) if is_head else self._portable_linear(site, bits)
        elif bits == 32:
            nodes = self._float_head(site) if is_head else self._float_linear(site)
        else:
            nodes = self._block_linear(site, bits)
        replace(self.graph, site.nodes, nodes, [(site.y, nodes[-1].outputs[0])])
        if not is_head:
            self.source.release(site.weight)

    def embedding(self, site: Embedding) -> None:
        """Lower the look-up of token embeddings."""
        if self.scheme.table_bits == 32:
            table, _ = self._table(site.weight)
            nodes = [ir.node("Gather", [table, site.ids])]
        else:
            nodes = self._portable_rows(site) if self.kind == "portable" else self._block_rows(site)
        replace(self.graph, site.nodes, nodes, [(site.y, nodes[-1].outputs[0])])

    def _table(self, name: str) -> tuple[ir.Value, ir.Value | None]:
        """The embedding table, stored at its first use, and its scales where it is quantised."""
        if name not in self.tables:
            table = self.tensor(name)
            if self.scheme.table_bits == 32:
                self.tables[name] = (self.store(name, table), None)
            elif self.kind == "portable":
                quantized, scales = quantize_columns(table)
                self.tables[name] = (self.store(f"{name}_q8", quantized), self.store(f"{name}_scales", scales))
            else:
                blocks, scales = quantize_blocks(table, 8, block_size(table.shape[1], self.scheme.block_size))
                self.tables[name] = (self.store(f"{name}_q8", blocks), self.store(f"{name}_scales", scales))
            self.source.release(name)
        return self.tables[name]

    def _bias(self, site: Linear) -> ir.Value:
        assert site.bias is not None
        return self.store(site.bias, self.tensor(site.bias))

    def _float_linear(self, site: Linear) -> list[ir.Node]:
        weight = self.store(site.weight, np.ascontiguousarray(self.tensor(site.weight).T))  # [K, N]
        product = ir.node("MatMul", [site.x, weight])
        product.outputs[0].type = FLOAT  # Optimum's quantiser asks for it
        return [product, ir.node("Add", [product.outputs[0], self._bias(site)])]

    def _float_head(self, site: Linear) -> list[ir.Node]:
        table, _ = self._table(site.weight)
        # Transposing inside the product: a Transpose node would be folded into a second copy of the table.
        return [ir.node("FusedMatMul", [site.x, table], attributes={"transB": 1}, domain=MICROSOFT)]

    def _block_linear(self, site: Linear, bits: int) -> list[ir.Node]:
        if site.bias is None:
            quantized, scales = self._table(site.weight)
            n, k = self.config.vocab_size, self.config.n_embd
            inputs = [site.x, quantized, scales]
        else:
            weight = self.tensor(site.weight)
            n, k = weight.shape
            blocks, scale = quantize_blocks(weight, bits, block_size(k, self.scheme.block_size))
            quantized = self.store(f"{site.weight}_q{bits}", blocks)
            inputs = [site.x, quantized, self.store(f"{site.weight}_scales", scale), None, None, self._bias(site)]
        attributes = {
            "K": k,
            "N": n,
            "bits": bits,
            "block_size": block_size(k, self.scheme.block_size),
            "accuracy_level": ACCURACY_INT8,
        }
        return [ir.node("MatMulNBits", inputs, attributes=attributes, domain=MICROSOFT)]

    def _block_rows(self, site: Embedding) -> list[ir.Node]:
        blocks, scales = self._table(site.weight)
        width = self.config.n_embd
        size = block_size(width, self.scheme.block_size)
        n_blocks = -(-width // size)
        assert scales is not None
        # GatherBlockQuantized wants scales of the data's rank: the same bytes, one more axis.
        deep = self.constant("scales_axis", np.array([-1], np.int64))
        unsqueeze = ir.node("Unsqueeze", [scales, deep])
        attributes = {"bits": 8, "block_size": size, "gather_axis": 0, "quantize_axis": 2}
        gather = ir.node(
            "GatherBlockQuantized", [blocks, site.ids, unsqueeze.outputs[0]], attributes=attributes, domain=MICROSOFT
        )
        shape = self.constant("embedding_shape", np.array([0, 0, n_blocks * size], np.int64))
        nodes = [unsqueeze, gather, ir.node("Reshape", [gather.outputs[0], shape])]
        if n_blocks * size != width:
            zero, end = (
                self.constant("zero", np.array([0], np.int64)),
                self.constant("width", np.array([width], np.int64)),
            )
            axis = self.constant("last_axis", np.array([2], np.int64))
            nodes.append(ir.node("Slice", [nodes[-1].outputs[0], zero, end, axis]))
        return nodes

    def _portable_linear(self, site: Linear, bits: int) -> list[ir.Node]:
        if bits == 32:
            return self._float_linear(site)
        weight = self.tensor(site.weight)
        if bits == 8:
            quantized, scales = quantize_columns(weight)
            inputs = [
                self.store(f"{site.weight}_q8", np.ascontiguousarray(quantized.T)),
                self.store(f"{site.weight}_scales", scales),
            ]
            attributes = {"axis": 1}
        else:
            inputs, attributes = self._portable_int4(site.weight, weight)
        dequantize = ir.node("DequantizeLinear", inputs, attributes=attributes)
        product = ir.node("MatMul", [site.x, dequantize.outputs[0]])
        return [dequantize, product, ir.node("Add", [product.outputs[0], self._bias(site)])]

    def _portable_int4(self, name: str, weight: np.ndarray) -> tuple[list[ir.Value], dict[str, int]]:
        n, k = weight.shape
        # Blocks must divide the rows here; where only slivers would, one scale serves the whole row.
        size = next(size for size in range(min(self.scheme.block_size, k), 0, -1) if k % size == 0)
        size = size if size >= SMALLEST_BLOCK else k
        levels, scales = quantize_levels(weight, 4, size)
        nibbles = (levels.reshape(n, k).T.reshape(-1).astype(np.int8) - 8).view(
            np.uint8
        ) & 15  # [K, N], two's complement
        nibbles = np.pad(nibbles, (0, nibbles.size % 2))
        packed = self.store(f"{name}_q4", nibbles[0::2] | (nibbles[1::2] << 4), int4_shape=(k, n))
        if size == k:
            return [packed, self.store(f"{name}_scales", scales[:, 0])], {"axis": 1}
        return [packed, self.store(f"{name}_scales", np.ascontiguousarray(scales.T))], {"axis": 0, "block_size": size}

    def _portable_head(self, site: Linear) -> list[ir.Node]:
        table, scales = self._table(site.weight)
        nodes = []
        if scales is not None:
            nodes.append(ir.node("DequantizeLinear", [table, scales], attributes={"axis": 0}))
            table = nodes[0].outputs[0]
        nodes.append(ir.node("Transpose", [table], attributes={"perm": [1, 0]}))
        nodes.append(ir.node("MatMul", [site.x, nodes[-1].outputs[0]]))
        return nodes

    def _portable_rows(self, site: Embedding) -> list[ir.Node]:
        table, scales = self._table(site.weight)
        rows = ir.node("Gather", [table, site.ids])
        values = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        row_scales = ir.node("Gather", [scales, site.ids])
        last = self.constant("scales_axis", np.array([-1], np.int64))
        deep = ir.node("Unsqueeze", [row_scales.outputs[0], last])
        return [rows, values, row_scales, deep, ir.node("Mul", [values.outputs[0], deep.outputs[0]])]
