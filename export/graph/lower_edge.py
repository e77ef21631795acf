"""Which operators compute with the weights of the edge graph, for each format of a plan;
`lower_portable.py` has the other graph.

By row (the scheme int8): integer products of 8-bit rows and 8-bit weights (`_row_linear`), which
process prompts two to three times as fast as by block (int8-block and int4). By block: MatMulNBits
at accuracy level 4, which quantizes activations to 8 bits for each row and block and so loses less,
or at level 0, which does not quantize them. In all of them a token's result does not depend on its
neighbours. A quantized head is MatMulNBits and shares its initializer, the tied embedding, with
GatherBlockQuantized. Floats: MatMul, and FusedMatMul on the table that the embedding reads.
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
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.rounding import WeightQuantizer, quantize_weight
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat
from gpt_edge.export.graph.fuse import BIAS_INPUTS, MICROSOFT, Embedding, Linear, replace
from gpt_edge.export.weights.data_file import WeightsFile
from gpt_edge.export.weights.source import WeightSource, pad_heads

ACCURACY_INT8, ACCURACY_FLOAT = 4, 0  # MatMulNBits: 8-bit integer products, or float32 ones
FLOAT = ir.TensorType(ir.DataType.FLOAT)
UINT8_MIDDLE = 128
# GELU goes down to -0.17 and up to 2 and more: a twelfth of the levels is enough below zero
LOW_ZERO_POINT = 20
# of the rows that an activation function returns; others are quantized around the middle
ZERO_POINTS = {"Relu": 0, "FastGelu": LOW_ZERO_POINT, "Gelu": LOW_ZERO_POINT}


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding or head in the data file. scales: None where the values are floats."""

    values: ir.Value
    scales: ir.Value | None = None


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Rows of activations [B, T, K] as uint8. nodes: what computes them, in order."""

    nodes: list[ir.Node]
    levels: ir.Value  # uint8 [B, T, K]
    scales: ir.Value  # float32 [B, T, 1]
    zero_point: int


class Lowering:
    """Puts weights and their operators into one graph.

    ir_graph: the wiring, changed in place; graph: its name, "edge" or "portable". rounder: how to
    quantize a weight, where it is not as its format alone says. progress: called with each
    parameter's name.
    """

    def __init__(
        self,
        ir_graph: ir.Graph,
        graph: str,
        plan: Plan,
        source: WeightSource,
        weights: WeightsFile,
        progress: Callable[[str], None],
        rounder: WeightQuantizer | None = None,
    ) -> None:
        self.ir_graph = ir_graph
        self.graph = graph
        self.plan = plan
        self.source = source
        self.weights = weights
        self.progress = progress
        self.rounder = rounder
        self.tables: dict[str, Table] = {}
        self.zero_points: dict[tuple[int, str], ir.Value] = {}

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self.source.config

    # --- weights and constants

    def tensor(self, name: str) -> np.ndarray:
        """A parameter in the graph's shape: heads padded in the edge graph."""
        self.progress(name)
        array = self.source.tensor(name)
        return pad_heads(name, array, self.config) if self.graph == "edge" else array

    def store(
        self, name: str, array: np.ndarray, *, int4_shape: tuple[int, ...] | None = None
    ) -> ir.Value:
        """Append to the data file, and return the initializer that refers to it."""
        tensor = self.weights.add(name, array, int4_shape=int4_shape)
        value = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.ir_graph.initializers.pop(name, None)  # the traced placeholder
        self.ir_graph.register_initializer(value)
        return value

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small initializer inside the graph file; one for each name."""
        if name in self.ir_graph.initializers:
            return self.ir_graph.initializers[name]
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape = ir.Shape(array.shape)
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        self.ir_graph.register_initializer(value)
        return value

    def quantized(self, name: str) -> QuantizedWeight:
        """A weight, quantized as its format says."""
        array, form = self.tensor(name), self.plan[name]
        if self.rounder is not None:
            return self.rounder(name, array, form)
        return quantize_weight(array, form, form.block_for(array.shape[1], self.graph))

    def half(self, name: str, array: np.ndarray) -> ir.Value:
        """Store as float16. Raises ExportError for a weight beyond its range."""
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ExportError(
                f"{name} has weights up to {np.abs(array).max():.3g}, float16 ends at 65,504"
            )
        return self.store(f"{name}_fp16", half)

    def table(self, name: str) -> Table:
        """The embedding or head, stored at its first use."""
        if name not in self.tables:
            self.tables[name] = self._stored_table(name, self.plan[name])
            self.source.release(name)
        return self.tables[name]

    def _stored_table(self, name: str, form: TensorFormat) -> Table:
        if not form.is_float:
            return self.quantized_table(name, form)
        array = self.tensor(name)
        if form.bits == 16:
            return Table(self.half(name, array))
        return Table(self.store(name, array))

    def quantized_table(self, name: str, form: TensorFormat) -> Table:
        """Store a table's levels and scales."""
        quantized = self.quantized(name)
        values = self.store(f"{name}_q{form.bits}", quantized.packed_levels())
        return Table(values, self.store(f"{name}_scales", quantized.scales))

    def bias(self, linear: Linear) -> ir.Value:
        """The layer's bias, stored."""
        assert linear.bias is not None
        return self.store(linear.bias, self.tensor(linear.bias))

    # --- what is lowered

    def linear(self, linear: Linear) -> None:
        """Lower a layer's projection or the head."""
        form = self.plan[linear.weight]
        lower = self.head if linear.is_head else self.projection
        nodes = lower(linear, form)
        replace(self.ir_graph, linear.nodes, nodes, [(linear.y, nodes[-1].outputs[0])])
        if not linear.is_head:
            self.source.release(linear.weight)

    def embedding(self, embedding: Embedding) -> None:
        """Lower the look-up of token embeddings."""
        nodes = self.rows(embedding, self.plan[embedding.weight])
        replace(self.ir_graph, embedding.nodes, nodes, [(embedding.y, nodes[-1].outputs[0])])

    def projection(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of a linear layer, the last one's output y."""
        if form.is_float:
            return self.float_linear(linear, form)
        if form.activations == "row":
            return self._row_linear(linear)
        return self._block_linear(linear, form)

    def head(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the head."""
        return self._float_head(linear, form) if form.is_float else self._block_head(linear, form)

    def rows(self, embedding: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Nodes of the look-up."""
        if form.is_float:
            return self.float_rows(embedding, form)
        return self._block_rows(embedding, form)

    # --- floats

    def float_linear(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        """MatMul and Add. float16 weights are cast: onnxruntime does that once, while it loads."""
        array = np.ascontiguousarray(self.tensor(linear.weight).T)  # [K, N]
        if form.bits == 16:
            casts = self.cast(self.half(linear.weight, array), form)
            weight = casts[0].outputs[0]
        else:
            casts = []
            weight = self.store(linear.weight, array)
        product = ir.node("MatMul", [linear.x, weight])
        product.outputs[0].type = FLOAT  # Optimum's quantizer asks for it
        return [*casts, product, ir.node("Add", [product.outputs[0], self.bias(linear)])]

    def _float_head(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        casts = self.cast(self.table(linear.weight).values, form)
        table = casts[0].outputs[0] if casts else self.table(linear.weight).values
        # Transposing inside the product: a Transpose node would be folded into a second copy of the
        # table.
        product = ir.node(
            "FusedMatMul", [linear.x, table], attributes={"transB": 1}, domain=MICROSOFT
        )
        return [*casts, product]

    def float_rows(self, embedding: Embedding, form: TensorFormat) -> list[ir.Node]:
        """Gather; of a float16 table the rows are cast, so that those of the file are enough."""
        gather = ir.node("Gather", [self.table(embedding.weight).values, embedding.ids])
        return [gather, *self.cast(gather.outputs[0], form)]

    def cast(self, value: ir.Value, form: TensorFormat) -> list[ir.Node]:
        """A Cast to float32 where it is needed."""
        if form.bits != 16:
            return []
        return [ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})]

    # --- by block

    def _block_linear(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        quantized = self.quantized(linear.weight)
        n, k = len(quantized.levels), shapes(self.config, self.graph)[linear.weight][1]
        levels = self.store(f"{linear.weight}_q{form.bits}", quantized.packed_levels())
        scales = self.store(f"{linear.weight}_scales", quantized.scales)
        packed_zeros = quantized.packed_zeros()
        zeros = None
        if packed_zeros is not None:
            zeros = self.store(f"{linear.weight}_zeros", packed_zeros)
        inputs = [linear.x, levels, scales, zeros, None, self.bias(linear)]
        return [_block_product(inputs, n, k, form)]

    def _block_head(self, linear: Linear, form: TensorFormat) -> list[ir.Node]:
        table = self.table(linear.weight)
        inputs = [linear.x, table.values, table.scales]
        return [_block_product(inputs, self.config.vocab_size, self.config.n_embd, form)]

    def _block_rows(self, embedding: Embedding, form: TensorFormat) -> list[ir.Node]:
        """GatherBlockQuantized, and without the weights that pad the last block."""
        table, width = self.table(embedding.weight), self.config.n_embd
        size = form.block_for(width)
        n_blocks = -(-width // size)
        assert table.scales is not None
        # GatherBlockQuantized requires scales of the data's rank: the same bytes, one more axis.
        last_axis = self.constant("scales_axis", np.array([-1], np.int64))
        unsqueeze = ir.node("Unsqueeze", [table.scales, last_axis])
        inputs = [table.values, embedding.ids, unsqueeze.outputs[0]]
        attributes = {"bits": form.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 2}
        gather = ir.node("GatherBlockQuantized", inputs, attributes=attributes, domain=MICROSOFT)
        shape = self.constant("embedding_shape", np.array([0, 0, n_blocks * size], np.int64))
        reshape = ir.node("Reshape", [gather.outputs[0], shape])
        nodes = [unsqueeze, gather, reshape]
        if n_blocks * size != width:
            start = self.constant("zero", np.array([0], np.int64))
            end = self.constant("width", np.array([width], np.int64))
            axis = self.constant("last_axis", np.array([-1], np.int64))
            nodes.append(ir.node("Slice", [reshape.outputs[0], start, end, axis]))
        return nodes

    # --- by row

    def _row_linear(self, linear: Linear) -> list[ir.Node]:
        """y = (levels(x) W_q) * scale(x) * scale(W) + b, in four steps:

        quantize rows: each row of x [B, T, K] to uint8 around a zero point, with its own scale;
        integer product: uint8 rows times int8 weights, exact, times the scales of the weights;
        rescale: times the scale of each row;
        bias: in the operator that reads y, where it takes one, else an Add.
        """
        quantized = self.quantized(linear.weight)
        rows = self._quantize_rows(linear, width=quantized.levels.shape[-1])
        product = self._integer_product(linear.weight, rows, quantized)
        rescaled = ir.node("Mul", [product.outputs[0], rows.scales])
        nodes = [*rows.nodes, product, rescaled]
        if not self._fuse_bias(linear):
            nodes.append(ir.node("Add", [rescaled.outputs[0], self.bias(linear)]))
        return nodes

    def _quantize_rows(self, linear: Linear, width: int) -> QuantizedRows:
        """Quantize x [B, T, K] to uint8 around a zero point, with a scale for each row.

        The zero point is 128 and the scale max|x| / 127; but what an activation function returns is
        nearly all positive, and a low zero point halves the steps: the scale then lets the largest
        value and the smallest one fit. A row of zeros has the scale 0: whatever 0 / 0 is rounded
        to, times 0, is 0.
        """
        x, zero_point = linear.x, _zero_point_of(linear.x)
        axis = self.constant("last_axis", np.array([-1], np.int64))
        is_centred = zero_point == UINT8_MIDDLE
        n_levels = UINT8_MIDDLE - 1 if is_centred else 255 - zero_point  # above the zero point
        upper = self.constant(f"inverse_{n_levels}", np.array(1 / n_levels, np.float32))
        nodes = [ir.node("Abs", [x])] if is_centred else []
        largest = ir.node("ReduceMax", [nodes[0].outputs[0] if is_centred else x, axis])
        scale = ir.node("Mul", [largest.outputs[0], upper])
        nodes += [largest, scale]
        if zero_point == LOW_ZERO_POINT:
            lower = self.constant("inverse_low", np.array(-1 / zero_point, np.float32))
            smallest = ir.node("ReduceMin", [x, axis])
            lower_scale = ir.node("Mul", [smallest.outputs[0], lower])
            scale = ir.node("Max", [scale.outputs[0], lower_scale.outputs[0]])
            nodes += [smallest, lower_scale, scale]
        zero_points = self._zero_points(zero_point, self._rows_input(linear.weight))
        # One block is a whole row: the form of the operator that takes a scale for each row of a
        # 3-D tensor.
        quantize = ir.node(
            "QuantizeLinear",
            [x, scale.outputs[0], zero_points],
            attributes={"axis": -1, "block_size": width},
        )
        nodes.append(quantize)
        return QuantizedRows(nodes, quantize.outputs[0], scale.outputs[0], zero_point)

    def _integer_product(
        self, name: str, rows: QuantizedRows, quantized: QuantizedWeight
    ) -> ir.Node:
        """MatMulIntegerToFloat of the rows and the weight `name`, with the weight's scales."""
        columns = np.ascontiguousarray(quantized.signed_levels()[:, 0].T)  # int8 [K, N]
        inputs = [
            rows.levels,
            self.store(f"{name}_q8", columns),
            self.constant("one", np.array(1, np.float32)),
            self.store(f"{name}_scales", quantized.scales[:, 0]),
            self._zero_point_constant(rows.zero_point),
        ]
        return ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)

    def _fuse_bias(self, linear: Linear) -> bool:
        """Let the one reader of y add the bias, if its operator can: MatMulIntegerToFloat cannot
        add it after a row's scale. Returns whether it does.
        """
        readers = [use.node for use in linear.y.uses()]
        if self.config.takes_adapters and len(readers) == 1:  # first comes the adapter's product
            readers = [use.node for use in readers[0].outputs[0].uses()]
        index = BIAS_INPUTS.get(readers[0].op_type) if len(readers) == 1 else None
        if index is None:
            return False
        readers[0].resize_inputs(index + 1)
        readers[0].replace_input_with(index, self.bias(linear))
        return True

    def _rows_input(self, weight: str) -> str:
        """The graph input whose axes are B and T of what a layer reads: a task's last layer
        computes the rows of interest alone once it has attended.
        """
        is_last_layer = weight.startswith(f"h.{self.config.n_layer - 1}.")
        has_attended = not weight.endswith("attn.c_attn.weight")
        if self.config.is_encoder and is_last_layer and has_attended:
            return onnx_contract.LOGIT_ROWS
        return onnx_contract.INPUT_IDS

    def _zero_points(self, zero_point: int, rows_input: str) -> ir.Value:
        """uint8 [B, T, 1], computed once for each zero point and input: QuantizeLinear requires as
        many zero points as scales.
        """
        if (zero_point, rows_input) not in self.zero_points:
            ids = next(value for value in self.ir_graph.inputs if value.name == rows_input)
            shape = ir.node("Shape", [ids])
            one = self.constant("one_column", np.array([1], np.int64))
            column = ir.node("Concat", [shape.outputs[0], one], attributes={"axis": 0})
            level = self._zero_point_constant(zero_point)
            expand = ir.node("Expand", [level, column.outputs[0]])
            self.ir_graph.insert_before(self.ir_graph[0], [shape, column, expand])
            self.zero_points[zero_point, rows_input] = expand.outputs[0]
        return self.zero_points[zero_point, rows_input]

    def _zero_point_constant(self, zero_point: int) -> ir.Value:
        return self.constant(f"zero_point_{zero_point}", np.array(zero_point, np.uint8))


def _zero_point_of(x: ir.Value) -> int:
    """The zero point that suits the operator which computes x."""
    producer = x.producer()
    return UINT8_MIDDLE if producer is None else ZERO_POINTS.get(producer.op_type, UINT8_MIDDLE)


def _block_product(inputs: list[ir.Value | None], n: int, k: int, form: TensorFormat) -> ir.Node:
    """MatMulNBits of [.., k] and an [n, k] weight."""
    attributes = {
        "K": k,
        "N": n,
        "bits": form.bits,
        "block_size": form.block_for(k),
        "accuracy_level": ACCURACY_FLOAT if form.activations == "float" else ACCURACY_INT8,
    }
    return ir.node("MatMulNBits", inputs, attributes=attributes, domain=MICROSOFT)
