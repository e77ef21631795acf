"""Which operators compute with the weights, for each graph and scheme. The one place where this is chosen.

edge, int8: integer products of 8-bit rows and 8-bit weights (`_row_linear`), which read prompts two to three times as
fast as edge, int8-block and int4: MatMulNBits at accuracy level 4, activations rounded to 8 bits per row and block, which
rounds less. In both a token's result does not depend on its neighbours. The head is MatMulNBits always and shares its
initializer, the tied embedding, with GatherBlockQuantized. edge, fp32: MatMul, and FusedMatMul on the table that the
embedding reads. portable: standard operators only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gpt_edge import graph as contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.rewrite import MICROSOFT, Embedding, Linear, replace
from gpt_edge.export.weights import Source, WeightsFile, pad_heads, quantize_blocks, quantize_columns, quantize_levels

ACCURACY_INT8 = 4  # MatMulNBits: 8-bit integer products
FLOAT = ir.TensorType(ir.DataType.FLOAT)
SMALLEST_BLOCK = 16  # MatMulNBits refuses smaller ones
UINT8_MIDDLE = 128
LOW_ZERO_POINT = 20  # GELU goes down to -0.17 and up to 2 and more: a twelfth of the levels is enough below zero


@dataclass(frozen=True, slots=True)
class Scheme:
    """bits of the linear layers and of the embedding and head; 32 is float. block_size in weights.

    is_by_row: one activation scale for each row and one weight scale for each output, in the linear layers.
    """

    name: str
    body_bits: int
    table_bits: int
    block_size: int
    is_by_row: bool = False


SCHEMES = {
    "fp32": Scheme("fp32", 32, 32, 0),
    "int8": Scheme("int8", 8, 8, 64, is_by_row=True),
    "int8-block": Scheme("int8-block", 8, 8, 64),
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
        self.zero_points: dict[int, ir.Value] = {}

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
        elif self.scheme.is_by_row and not is_head:
            nodes = self._row_linear(site)
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

    def _row_linear(self, site: Linear) -> list[ir.Node]:
        """y = scale(x) * (round(x / scale(x)) W_q) * scale(W) + b, the product in integers.

        A row of x is rounded to uint8 around a zero point with a scale of its own: 128 and max|x| / 127, but after an
        activation function, whose results are nearly all positive, a low zero point, which halves the steps. A row of
        zeros has the scale 0: whatever 0 / 0 is rounded to, times 0, is 0. The operator adds no bias after a row's
        scale, so the bias goes to the operator that follows, where that one takes it.
        """
        weight = self.tensor(site.weight)
        levels, scales = quantize_columns(weight)
        zero_point = self._zero_point(site.x)
        quantize, scale = self._quantized_rows(site.x, weight.shape[1], zero_point)
        inputs = [
            quantize[-1].outputs[0],
            self.store(f"{site.weight}_q8", np.ascontiguousarray(levels.T)),
            self.constant("one", np.array(1, np.float32)),
            self.store(f"{site.weight}_scales", scales),
            self.constant(f"zero_point_{zero_point}", np.array(zero_point, np.uint8)),
        ]
        product = ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        scaled = ir.node("Mul", [product.outputs[0], scale])
        nodes = [*quantize, product, scaled]
        return nodes if self._give_bias(site) else [*nodes, ir.node("Add", [scaled.outputs[0], self._bias(site)])]

    def _quantized_rows(self, x: ir.Value, width: int, zero_point: int) -> tuple[list[ir.Node], ir.Value]:
        """Nodes that round x [B, T, K] to uint8, the last one's output, and the value of the scales [B, T, 1]."""
        axis = self.constant("last_axis", np.array([-1], np.int64))
        levels = UINT8_MIDDLE - 1 if zero_point == UINT8_MIDDLE else 255 - zero_point
        upper = self.constant(f"inverse_{levels}", np.array(1 / levels, np.float32))
        nodes = [ir.node("Abs", [x])] if zero_point == UINT8_MIDDLE else []
        largest = ir.node("ReduceMax", [nodes[-1].outputs[0] if nodes else x, axis])
        scale = ir.node("Mul", [largest.outputs[0], upper])
        nodes += [largest, scale]
        if zero_point == LOW_ZERO_POINT:
            lower = self.constant("inverse_low", np.array(-1 / zero_point, np.float32))
            smallest = ir.node("ReduceMin", [x, axis])
            needed = ir.node("Mul", [smallest.outputs[0], lower])
            scale = ir.node("Max", [scale.outputs[0], needed.outputs[0]])
            nodes += [smallest, needed, scale]
        zero_points = self._zero_points(zero_point, axis)
        # One block is a whole row: the form of the operator that takes a scale for each row of a 3-D tensor.
        attributes = {"axis": -1, "block_size": width}
        nodes.append(ir.node("QuantizeLinear", [x, scale.outputs[0], zero_points], attributes=attributes))
        return nodes, scale.outputs[0]

    def _zero_points(self, zero_point: int, axis: ir.Value) -> ir.Value:
        """uint8 [B, T, 1], made once for each zero point: QuantizeLinear wants as many as scales."""
        if zero_point not in self.zero_points:
            ids = next(value for value in self.graph.inputs if value.name == contract.INPUT_IDS)
            shape = ir.node("Shape", [ids])
            one = self.constant("one_column", np.array([1], np.int64))
            column = ir.node("Concat", [shape.outputs[0], one], attributes={"axis": 0})
            level = self.constant(f"zero_point_{zero_point}", np.array(zero_point, np.uint8))
            expand = ir.node("Expand", [level, column.outputs[0]])
            self.graph.insert_before(self.graph[0], [shape, column, expand])
            self.zero_points[zero_point] = expand.outputs[0]
        return self.zero_points[zero_point]

    def _zero_point(self, x: ir.Value) -> int:
        producer = x.producer()
        kind = producer.op_type if producer is not None else ""
        return {"Relu": 0, "FastGelu": LOW_ZERO_POINT, "Gelu": LOW_ZERO_POINT}.get(kind, UINT8_MIDDLE)

    def _give_bias(self, site: Linear) -> bool:
        """Let the one reader of y add the bias, if its operator can."""
        readers = [use.node for use in site.y.uses()]
        place = {"FastGelu": 1, "SkipLayerNormalization": 4}.get(readers[0].op_type) if len(readers) == 1 else None
        if place is None:
            return False
        readers[0].resize_inputs(place + 1)
        readers[0].replace_input_with(place, self._bias(site))
        return True

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
        n, k = weight.shape
        # Blocks must divide the rows here; where only slivers would, one scale serves the whole row.
        size = next(size for size in range(min(self.scheme.block_size, k), 0, -1) if k % size == 0)
        size = k if self.scheme.is_by_row or size < SMALLEST_BLOCK else size
        levels, scales = quantize_levels(weight, bits, size)
        columns = (levels.reshape(n, k).T.astype(np.int16) - (1 << (bits - 1))).astype(np.int8)  # [K, N]
        stored = self._int4(f"{site.weight}_q4", columns) if bits == 4 else self.store(f"{site.weight}_q8", columns)
        by_column = size == k
        attributes = {"axis": 1} if by_column else {"axis": 0, "block_size": size}
        scale = self.store(f"{site.weight}_scales", scales[:, 0] if by_column else np.ascontiguousarray(scales.T))
        dequantize = ir.node("DequantizeLinear", [stored, scale], attributes=attributes)
        product = ir.node("MatMul", [site.x, dequantize.outputs[0]])
        return [dequantize, product, ir.node("Add", [product.outputs[0], self._bias(site)])]

    def _int4(self, name: str, columns: np.ndarray) -> ir.Value:
        nibbles = columns.reshape(-1).view(np.uint8) & 15  # two's complement
        nibbles = np.pad(nibbles, (0, nibbles.size % 2))
        return self.store(name, nibbles[0::2] | (nibbles[1::2] << 4), int4_shape=columns.shape)

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
