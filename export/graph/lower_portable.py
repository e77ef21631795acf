"""Which operators compute with the weights of the portable graph: standard ONNX only, weights
dequantized as they are used.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.fuse import Embedding, Linear
from gpt_edge.export.graph.lower_edge import Lowering, Table


class PortableLowering(Lowering):
    """DequantizeLinear and MatMul; a quantized table has one scale for each row."""

    def projection(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of a linear layer."""
        if form.is_float:
            return self.float_linear(linear, form)
        quantized = self.quantized(linear.weight)
        n, n_blocks, block_size = quantized.levels.shape
        columns = quantized.signed_levels().reshape(n, -1).T  # int8 [K, N]
        name = f"{linear.weight}_q{form.bits}"
        levels = self._int4(name, columns) if form.bits == 4 else self.store(name, columns)
        if n_blocks == 1:
            attributes = {"axis": 1}  # one scale for each column
            scales = quantized.scales[:, 0]
        else:
            attributes = {"axis": 0, "block_size": block_size}
            scales = np.ascontiguousarray(quantized.scales.T)
        scale = self.store(f"{linear.weight}_scales", scales)
        dequantize = ir.node("DequantizeLinear", [levels, scale], attributes=attributes)
        product = ir.node("MatMul", [linear.x, dequantize.outputs[0]])
        return [dequantize, product, ir.node("Add", [product.outputs[0], self.bias(linear)])]

    def _int4(self, name: str, columns: np.ndarray) -> ir.Value:
        nibbles = columns.reshape(-1).view(np.uint8) & 15  # two's complement
        nibbles = np.pad(nibbles, (0, nibbles.size % 2))
        return self.store(name, nibbles[0::2] | (nibbles[1::2] << 4), int4_shape=columns.shape)

    def quantized_table(self, name: str, form: TensorFormat) -> Table:
        """int8 [V, C] and a scale for each row."""
        quantized = self.quantized(name)
        levels = self.store(f"{name}_q8", quantized.signed_levels()[:, 0])
        return Table(levels, self.store(f"{name}_scales", quantized.scales[:, 0]))

    def head(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the head."""
        table = self.table(linear.weight)
        nodes = self.cast(table.values, form)
        if table.scales is not None:
            inputs = [table.values, table.scales]
            nodes.append(ir.node("DequantizeLinear", inputs, attributes={"axis": 0}))
        values = nodes[-1].outputs[0] if nodes else table.values
        transpose = ir.node("Transpose", [values], attributes={"perm": [1, 0]})
        product = ir.node("MatMul", [linear.x, transpose.outputs[0]])
        return [*nodes, transpose, product]

    def rows(self, embedding: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the look-up."""
        if form.is_float:
            return self.float_rows(embedding, form)
        table = self.table(embedding.weight)
        rows = ir.node("Gather", [table.values, embedding.ids])
        values = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        row_scales = ir.node("Gather", [table.scales, embedding.ids])
        last_axis = self.constant("scales_axis", np.array([-1], np.int64))
        scales = ir.node("Unsqueeze", [row_scales.outputs[0], last_axis])
        product = ir.node("Mul", [values.outputs[0], scales.outputs[0]])
        return [rows, values, row_scales, scales, product]
