"""Which operators compute with the weights of the portable graph: standard ONNX only, weights
dequantized as they are used.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.fuse import Embedding, Linear
from gpt_edge.export.graph.lower_edge import Lowering, Table

HEAD_ALIAS = "_of_head"  # ends the name of a tied table's second initializer


class PortableLowering(Lowering):
    """DequantizeLinear and MatMul; a quantized table has one scale for each token."""

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
        """int8 [C, V], as the head multiplies it, and a scale for each column."""
        quantized = self.quantized(name)
        columns = quantized.signed_levels()[:, 0].T
        levels = self.store(f"{name}_q8", columns)
        return Table(levels, self.store(f"{name}_scales", quantized.scales[:, 0]))

    def head(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the head."""
        table = self.table(linear.weight)
        if form.is_float:
            return self._transposing_head(linear, table, form)
        assert table.scales is not None
        # onnxruntime fuses DequantizeLinear and MatMul into MatMulNBits where nothing else reads
        # the weights. Else it dequantizes the whole table for every token.
        is_shared = self.config.tied_embeddings
        inputs = [
            self._alias(value) if is_shared else value for value in (table.values, table.scales)
        ]
        dequantize = ir.node("DequantizeLinear", inputs, attributes={"axis": 1})
        return [dequantize, ir.node("MatMul", [linear.x, dequantize.outputs[0]])]

    def _transposing_head(self, linear: Linear, table: Table, form: TensorFormat) -> list[ir.Node]:
        nodes = self.cast(table.values, form)
        values = nodes[-1].outputs[0] if nodes else table.values
        transpose = ir.node("Transpose", [values], attributes={"perm": [1, 0]})
        return [*nodes, transpose, ir.node("MatMul", [linear.x, transpose.outputs[0]])]

    def _alias(self, value: ir.Value) -> ir.Value:
        """Another initializer of the same bytes of the data file."""
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        assert tensor.offset is not None
        name = f"{value.name}{HEAD_ALIAS}"
        copy = ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape),
            name=name,
            base_dir=tensor.base_dir,
        )
        alias = ir.Value(
            name=name, shape=copy.shape, type=ir.TensorType(copy.dtype), const_value=copy
        )
        self.ir_graph.register_initializer(alias)
        return alias

    def rows(self, embedding: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the look-up."""
        if form.is_float:
            return self.float_rows(embedding, form)
        table = self.table(embedding.weight)
        columns = ir.node("Gather", [table.values, embedding.ids], attributes={"axis": 1})
        rows = ir.node("Transpose", [columns.outputs[0]], attributes={"perm": [1, 2, 0]})
        values = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        row_scales = ir.node("Gather", [table.scales, embedding.ids])
        last_axis = self.constant("scales_axis", np.array([-1], np.int64))
        scales = ir.node("Unsqueeze", [row_scales.outputs[0], last_axis])
        product = ir.node("Mul", [values.outputs[0], scales.outputs[0]])
        return [columns, rows, values, row_scales, scales, product]
