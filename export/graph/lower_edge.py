"""Which operators compute with the weights of the edge graph, for each format of a plan;
`portable.py` has the other graph.

By row (the scheme int8): integer products of 8-bit rows and 8-bit weights (`_row_linear`), which
read prompts two to three times as fast as by block (int8-block and int4): MatMulNBits at accuracy
level 4, activations rounded to 8 bits per row and block, which rounds less, or at level 0, where
they are not rounded. In all of them a token's result does not depend on its neighbours. A rounded
head is MatMulNBits and shares its initializer, the tied embedding, with GatherBlockQuantized.
Floats: MatMul, and FusedMatMul on the table that the embedding reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.export.formats.plan import shapes
from gpt_edge.export.formats.rounding import Rounded, RoundWeight, round_tensor
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat
from gpt_edge.export.graph.fuse import MICROSOFT, Embedding, Linear, replace
from gpt_edge.export.weights.source import Source, WeightsFile, pad_heads

ACCURACY_INT8, ACCURACY_FLOAT = 4, 0  # MatMulNBits: 8-bit integer products, or float32 ones
FLOAT = ir.TensorType(ir.DataType.FLOAT)
UINT8_MIDDLE = 128
# GELU goes down to -0.17 and up to 2 and more: a twelfth of the levels is enough below zero
LOW_ZERO_POINT = 20


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding or head in the data file. scales: None where the values are floats."""

    values: ir.Value
    scales: ir.Value | None = None


class Lowering:
    """Puts weights and their operators into one graph. `progress` is called with each parameter's
    name.
    """

    def __init__(
        self,
        graph: ir.Graph,
        kind: str,
        plan: Plan,
        source: Source,
        weights: WeightsFile,
        progress: Callable[[str], None],
        rounder: RoundWeight | None = None,
    ) -> None:
        self.graph, self.kind, self.plan, self.source = graph, kind, plan, source
        self.weights, self.progress, self.rounder = weights, progress, rounder
        self.tables: dict[str, Table] = {}
        self.zero_points: dict[tuple[int, str], ir.Value] = {}

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self.source.config

    def tensor(self, name: str) -> np.ndarray:
        """A parameter as the graph wants it: heads padded in the edge graph."""
        self.progress(name)
        array = self.source.tensor(name)
        return pad_heads(name, array, self.config) if self.kind == "edge" else array

    def store(
        self, name: str, array: np.ndarray, *, int4_shape: tuple[int, ...] | None = None
    ) -> ir.Value:
        """Write `array` into the data file and return the initializer that refers to it."""
        tensor = self.weights.add(name, array, int4_shape=int4_shape)
        value = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.initializers.pop(name, None)  # the traced placeholder
        self.graph.register_initializer(value)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small initializer inside the graph file; one for each name."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.type = (
            ir.Shape(array.shape),
            ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        self.graph.register_initializer(value)
        return value

    def rounded(self, name: str) -> Rounded:
        """A weight as its format wants it."""
        array, form = self.tensor(name), self.plan[name]
        if self.rounder is not None:
            return self.rounder(name, array, form)
        return round_tensor(array, form, form.block_for(array.shape[1], self.kind))

    def half(self, name: str, array: np.ndarray) -> ir.Value:
        """Store as float16. Raises ExportError for a weight beyond its range."""
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ExportError(
                f"{name} has weights up to {np.abs(array).max():.3g}, float16 ends at 65,504"
            )
        return self.store(f"{name}_fp16", half)

    def linear(self, site: Linear) -> None:
        """Lower a layer's projection or the head."""
        is_head, form = site.bias is None, self.plan[site.weight]
        nodes = self.head(site, form) if is_head else self.projection(site, form)
        replace(self.graph, site.nodes, nodes, [(site.y, nodes[-1].outputs[0])])
        if not is_head:
            self.source.release(site.weight)

    def embedding(self, site: Embedding) -> None:
        """Lower the look-up of token embeddings."""
        nodes = self.rows(site, self.plan[site.weight])
        replace(self.graph, site.nodes, nodes, [(site.y, nodes[-1].outputs[0])])

    def projection(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of a linear layer, the last one's output y."""
        if form.is_float:
            return self.float_linear(site, form)
        return (
            self._row_linear(site) if form.activations == "row" else self._block_linear(site, form)
        )

    def head(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the head."""
        return self._float_head(site, form) if form.is_float else self._block_linear(site, form)

    def rows(self, site: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the look-up."""
        return self.float_rows(site, form) if form.is_float else self._block_rows(site, form)

    def table(self, name: str) -> Table:
        """The embedding or head, stored at its first use."""
        if name not in self.tables:
            form = self.plan[name]
            if form.is_float:
                array = self.tensor(name)
                self.tables[name] = Table(
                    self.half(name, array) if form.bits == 16 else self.store(name, array)
                )
            else:
                self.tables[name] = self.rounded_table(name, form)
            self.source.release(name)
        return self.tables[name]

    def rounded_table(self, name: str, form: TensorFormat) -> Table:
        """Store a table's levels and scales."""
        rounded = self.rounded(name)
        values = self.store(f"{name}_q{form.bits}", rounded.packed_levels())
        return Table(values, self.store(f"{name}_scales", rounded.scales))

    def bias(self, site: Linear) -> ir.Value:
        """The layer's bias, stored."""
        assert site.bias is not None
        return self.store(site.bias, self.tensor(site.bias))

    def float_linear(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        """MatMul and Add. float16 weights are cast: onnxruntime does that once, while it loads."""
        array = np.ascontiguousarray(self.tensor(site.weight).T)  # [K, N]
        casts = []
        if form.bits == 16:
            casts = [
                ir.node(
                    "Cast", [self.half(site.weight, array)], attributes={"to": ir.DataType.FLOAT}
                )
            ]
        weight = casts[0].outputs[0] if casts else self.store(site.weight, array)
        product = ir.node("MatMul", [site.x, weight])
        product.outputs[0].type = FLOAT  # Optimum's quantiser asks for it
        return [*casts, product, ir.node("Add", [product.outputs[0], self.bias(site)])]

    def _float_head(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        casts = self.cast(self.table(site.weight).values, form)
        table = casts[0].outputs[0] if casts else self.table(site.weight).values
        # Transposing inside the product: a Transpose node would be folded into a second copy of the
        # table.
        return [
            *casts,
            ir.node("FusedMatMul", [site.x, table], attributes={"transB": 1}, domain=MICROSOFT),
        ]

    def float_rows(self, site: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Gather; of a float16 table the rows are cast, so that those of the file are enough."""
        gather = ir.node("Gather", [self.table(site.weight).values, site.ids])
        return [gather, *self.cast(gather.outputs[0], form)]

    def cast(self, value: ir.Value, form: TensorFormat) -> list[ir.Node]:
        """A Cast to float32 where it is needed."""
        return (
            [ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})]
            if form.bits == 16
            else []
        )

    def _block_linear(self, site: Linear, form: TensorFormat) -> list[ir.Node]:
        if site.bias is None:
            table = self.table(site.weight)
            n, k = self.config.vocab_size, self.config.n_embd
            inputs = [site.x, table.values, table.scales]
        else:
            rounded = self.rounded(site.weight)
            n, k = len(rounded.levels), self._width(site.weight)
            quantized = self.store(f"{site.weight}_q{form.bits}", rounded.packed_levels())
            scales = self.store(f"{site.weight}_scales", rounded.scales)
            packed = rounded.packed_zeros()
            zeros = None if packed is None else self.store(f"{site.weight}_zeros", packed)
            inputs = [site.x, quantized, scales, zeros, None, self.bias(site)]
        attributes = {
            "K": k,
            "N": n,
            "bits": form.bits,
            "block_size": form.block_for(k),
            "accuracy_level": ACCURACY_FLOAT if form.activations == "float" else ACCURACY_INT8,
        }
        return [ir.node("MatMulNBits", inputs, attributes=attributes, domain=MICROSOFT)]

    def _width(self, name: str) -> int:
        """K of a linear layer's weight in this graph."""
        return shapes(self.config, self.kind)[name][1]

    def _row_linear(self, site: Linear) -> list[ir.Node]:
        """y = scale(x) * (round(x / scale(x)) W_q) * scale(W) + b, the product in integers.

        A row of x is rounded to uint8 around a zero point with a scale of its own: 128 and max|x| /
        127, but after an activation function, whose results are nearly all positive, a low zero
        point, which halves the steps. A row of zeros has the scale 0: whatever 0 / 0 is rounded to,
        times 0, is 0. The operator adds no bias after a row's scale, so the bias goes to the
        operator that follows, where that one takes it.
        """
        rounded = self.rounded(site.weight)
        width = rounded.levels.shape[-1]
        levels, scales = (
            (rounded.levels[:, 0].astype(np.int16) - 128).astype(np.int8),
            rounded.scales[:, 0],
        )
        zero_point = self._zero_point(site.x)
        quantize, scale = self._quantized_rows(site, width, zero_point)
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
        return (
            nodes
            if self._give_bias(site)
            else [*nodes, ir.node("Add", [scaled.outputs[0], self.bias(site)])]
        )

    def _quantized_rows(
        self, site: Linear, width: int, zero_point: int
    ) -> tuple[list[ir.Node], ir.Value]:
        """Nodes that round x [B, T, K] to uint8, the last one's output, and the value of the scales
        [B, T, 1].
        """
        x = site.x
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
        zero_points = self._zero_points(zero_point, self._rows_input(site.weight))
        # One block is a whole row: the form of the operator that takes a scale for each row of a
        # 3-D tensor.
        attributes = {"axis": -1, "block_size": width}
        nodes.append(
            ir.node("QuantizeLinear", [x, scale.outputs[0], zero_points], attributes=attributes)
        )
        return nodes, scale.outputs[0]

    def _rows_input(self, weight: str) -> str:
        """The input whose axes are B and T of what a layer reads: a task's last layer ends with the
        wanted rows alone.
        """
        is_end = weight.startswith(f"h.{self.config.n_layer - 1}.") and not weight.endswith(
            "attn.c_attn.weight"
        )
        return (
            onnx_contract.LOGIT_ROWS
            if is_end and self.config.n_label is not None
            else onnx_contract.INPUT_IDS
        )

    def _zero_points(self, zero_point: int, rows: str) -> ir.Value:
        """uint8 [B, T, 1], made once for each zero point and input `rows`: QuantizeLinear wants as
        many as scales.
        """
        if (zero_point, rows) not in self.zero_points:
            ids = next(value for value in self.graph.inputs if value.name == rows)
            shape = ir.node("Shape", [ids])
            one = self.constant("one_column", np.array([1], np.int64))
            column = ir.node("Concat", [shape.outputs[0], one], attributes={"axis": 0})
            level = self.constant(f"zero_point_{zero_point}", np.array(zero_point, np.uint8))
            expand = ir.node("Expand", [level, column.outputs[0]])
            self.graph.insert_before(self.graph[0], [shape, column, expand])
            self.zero_points[zero_point, rows] = expand.outputs[0]
        return self.zero_points[zero_point, rows]

    def _zero_point(self, x: ir.Value) -> int:
        producer = x.producer()
        kind = producer.op_type if producer is not None else ""
        return {"Relu": 0, "FastGelu": LOW_ZERO_POINT, "Gelu": LOW_ZERO_POINT}.get(
            kind, UINT8_MIDDLE
        )

    def _give_bias(self, site: Linear) -> bool:
        """Let the one reader of y add the bias, if its operator can."""
        readers = [use.node for use in site.y.uses()]
        place = (
            {"FastGelu": 1, "SkipLayerNormalization": 4}.get(readers[0].op_type)
            if len(readers) == 1
            else None
        )
        if place is None:
            return False
        readers[0].resize_inputs(place + 1)
        readers[0].replace_input_with(place, self.bias(site))
        return True

    def _block_rows(self, site: Embedding, form: TensorFormat) -> list[ir.Node]:
        table, width = self.table(site.weight), self.config.n_embd
        size = form.block_for(width)
        n_blocks = -(-width // size)
        assert table.scales is not None
        # GatherBlockQuantized wants scales of the data's rank: the same bytes, one more axis.
        deep = self.constant("scales_axis", np.array([-1], np.int64))
        unsqueeze = ir.node("Unsqueeze", [table.scales, deep])
        inputs = [table.values, site.ids, unsqueeze.outputs[0]]
        attributes = {"bits": form.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 2}
        gather = ir.node("GatherBlockQuantized", inputs, attributes=attributes, domain=MICROSOFT)
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
