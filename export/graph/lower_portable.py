"""Which operators compute with the weights of the portable graph: standard ONNX only, weights
dequantised as they are used.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.fuse import Embedding, Linear
from gpt_edge.export.graph.lower_edge import Lowering, Table


class PortableLowering(Lowering):
    """DequantizeLinear and MatMul; a rounded table has one scale for each row."""

    def projection(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of a linear layer."""
        if form.is_float:
            return self.float_linear(site, form)
        rounded = self.rounded(site.weight)
        n, n_blocks, size = rounded.levels.shape
        # [K, N]
        columns = (
            rounded.levels.reshape(n, -1).T.astype(np.int16) - (1 << (form.bits - 1))
        ).astype(np.int8)
        name = f"{site.weight}_q{form.bits}"
        stored = self._int4(name, columns) if form.bits == 4 else self.store(name, columns)
        by_column = n_blocks == 1
        attributes = {"axis": 1} if by_column else {"axis": 0, "block_size": size}
        scales = rounded.scales[:, 0] if by_column else np.ascontiguousarray(rounded.scales.T)
        scale = self.store(f"{site.weight}_scales", scales)
        dequantize = ir.node("DequantizeLinear", [stored, scale], attributes=attributes)
        product = ir.node("MatMul", [site.x, dequantize.outputs[0]])
        return [dequantize, product, ir.node("Add", [product.outputs[0], self.bias(site)])]

    def _int4(self, name: str, columns: np.ndarray) -> ir.Value:
        nibbles = columns.reshape(-1).view(np.uint8) & 15  # two's complement
        nibbles = np.pad(nibbles, (0, nibbles.size % 2))
        return self.store(name, nibbles[0::2] | (nibbles[1::2] << 4), int4_shape=columns.shape)

    def rounded_table(self, name: str, form: TensorFormat) -> Table:
        """int8 [V, C] and a scale for each row."""
        rounded = self.rounded(name)
        levels = (rounded.levels[:, 0].astype(np.int16) - 128).astype(np.int8)
        return Table(
            self.store(f"{name}_q8", levels), self.store(f"{name}_scales", rounded.scales[:, 0])
        )

    def head(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the head."""
        table = self.table(site.weight)
        nodes = self.cast(table.values, form)
        if table.scales is not None:
            nodes.append(
                ir.node("DequantizeLinear", [table.values, table.scales], attributes={"axis": 0})
            )
        values = nodes[-1].outputs[0] if nodes else table.values
        nodes.append(ir.node("Transpose", [values], attributes={"perm": [1, 0]}))
        nodes.append(ir.node("MatMul", [site.x, nodes[-1].outputs[0]]))
        return nodes

    def rows(self, site: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the look-up."""
        if form.is_float:
            return self.float_rows(site, form)
        table = self.table(site.weight)
        rows = ir.node("Gather", [table.values, site.ids])
        values = ir.node("Cast", [rows.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        row_scales = ir.node("Gather", [table.scales, site.ids])
        last = self.constant("scales_axis", np.array([-1], np.int64))
        deep = ir.node("Unsqueeze", [row_scales.outputs[0], last])
        return [
            rows,
            values,
            row_scales,
            deep,
            ir.node("Mul", [values.outputs[0], deep.outputs[0]]),
        ]
