"""Every operator's result on given tokens: of a bundle's graph, run with its inner values as
outputs, and of the reference, read with hooks. The files of a bundle are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.export.verify.dequantize import array_of
from gpt_edge.export.verify.graph_map import MappedOperator
from gpt_edge.export.weights.reference_operators import TASK_STATES, ReferenceOperator
from gpt_edge.reference.model import GPT, Block, KeyValue
from gpt_edge.runtime.open_graph import WEIGHTS_FOLDER
from gpt_edge.runtime.ort_session import ORT_ERRORS, SILENT, cause_of, start_session
from gpt_edge.system.threads import default_threads
from gpt_edge.tasks import TaskSpec

CUT = 3  # tokens that the second sequence of a task's run is shorter
MAX_ROWS = 8192  # of embeddings in one call

# each operator's result, [T, width]; attn.c_attn: queries, keys and values
Trace = Mapping[ReferenceOperator, FloatArray]


class ExposedGraph:
    """A bundle's graph in onnxruntime with the results of its operators as outputs. Keys and values
    are kept from call to call.

    capacity: tokens in all. task: of a fine-tuned model, which has no cache: two sequences are run
    at once, the second backwards and shorter, and the results are those of the first; the head's
    are those of both. Raises BundleError for a graph that onnxruntime refuses.
    """

    def __init__(
        self,
        model: ir.Model,
        folder: Path,
        config: GPTConfig,
        graph: str,
        mapped: Mapping[ReferenceOperator, MappedOperator],
        capacity: int,
        task: TaskSpec | None = None,
    ) -> None:
        self._config = config
        self._graph = graph
        self._task = task
        self._mapped = mapped
        names = {str(value.name) for item in mapped.values() for value in item.values}
        model = model.clone()
        self._inputs = {str(value.name): value for value in model.graph.inputs}
        known = {value.name for value in model.graph.outputs}
        inner = {
            value.name: value
            for node in model.graph
            for value in node.outputs
            if value.name in names - known
        }
        for value in inner.values():
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = None
            model.graph.outputs.append(value)
        self._names = [str(value.name) for value in model.graph.outputs]
        self._biases = {
            operator: array_of(item.bias)
            for operator, item in mapped.items()
            if item.bias is not None
        }
        self._session = _open(model, folder)
        self._shape = (
            1,
            config.n_head,
            capacity if graph == "edge" else 0,
            onnx_contract.cache_head_size(config, graph),
        )
        self.restart()

    def restart(self) -> None:
        """Empty the cache."""
        n_arrays = 2 * self._config.n_layer if self._task is None else 0
        self.past = [np.zeros(self._shape, np.float32) for _ in range(n_arrays)]
        self.n_past = 0

    def draw_past(self, n_past: int, rng: np.random.Generator) -> None:
        """Fill the cache with `n_past` tokens whose keys and values are drawn, position by
        position, from those of the tokens that are in it.
        """
        positions = rng.integers(0, self.n_past, n_past)
        drawn = []
        for array in self.past:
            size = array.shape[2] if self._graph == "edge" else n_past
            past = np.zeros((*array.shape[:2], size, array.shape[3]), np.float32)
            past[:, :, :n_past] = array[:, :, positions]
            drawn.append(past)
        self.past = drawn
        self.n_past = n_past

    def run(self, ids: IntArray) -> dict[ReferenceOperator, FloatArray]:
        """Append ids [T] and return each operator's result. Raises BundleError if the graph cannot
        be run.
        """
        feeds = self._feeds(ids) if self._task is None else self._task_feeds(ids)
        outputs = self._outputs(feeds)
        if self._task is None:
            self.past = [
                outputs[name]
                for layer in range(self._config.n_layer)
                for name in (onnx_contract.present_key(layer), onnx_contract.present_value(layer))
            ]
            self.n_past += ids.size
        return self._results(outputs, ids.size) | self._head_results(outputs, ids.size)

    def run_second(self, ids: IntArray) -> dict[ReferenceOperator, FloatArray]:
        """Each operator's result on ids [T] as the second of two sequences that are run at once,
        with an empty cache; of a task without its last CUT tokens. Raises as `run`.
        """
        self.restart()
        if self._task is not None:
            n_tokens = min(_lengths(ids.size))
            outputs = self._outputs(self._task_feeds(ids[::-1]))
        else:
            n_tokens = ids.size
            outputs = self._outputs(self._feeds(ids[::-1], ids))
        results = self._results(outputs, ids.size, 1)
        return {operator: rows[:n_tokens] for operator, rows in results.items()}

    def run_beside_longer(self, ids: IntArray) -> dict[ReferenceOperator, FloatArray]:
        """Each operator's result on one new token [1] behind the cache, as the second of two
        sequences, of which the first has as many tokens more as the cache holds. A language
        model's.
        """
        longest = 2 * self.n_past
        lengths = np.array([longest, self.n_past])
        feeds = self._feeds(ids, ids)
        mask = np.ones((2, longest + 1), np.int64)
        mask[:, :longest] = np.arange(longest) < lengths[:, None]
        feeds[onnx_contract.ATTENTION_MASK] = mask
        feeds[onnx_contract.POSITION_IDS] = lengths[:, None]
        feeds[onnx_contract.SEQLENS_K] = lengths.astype(np.int32)
        feeds[onnx_contract.TOTAL_SEQUENCE_LENGTH] = np.array([longest + 1], np.int32)
        for layer in range(self._config.n_layer):
            for name in (onnx_contract.past_key(layer), onnx_contract.past_value(layer)):
                feeds[name] = self._beside_longer(feeds[name])
        return self._results(self._outputs(feeds), 1, 1)

    def _beside_longer(self, past: NDArray[Any]) -> NDArray[Any]:
        """Keys or values [2, H, P', D'], of which the first sequence has its tokens twice."""
        used = past[:1, :, : self.n_past]
        size = max(past.shape[2], 2 * self.n_past)
        both = np.zeros((2, past.shape[1], size, past.shape[3]), np.float32)
        both[0, :, : 2 * self.n_past] = np.tile(used, (1, 1, 2, 1))[0]
        both[1, :, : self.n_past] = used[0]
        return both

    def _outputs(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        inputs = {name: value for name, value in feeds.items() if name in self._inputs}
        try:
            return dict(zip(self._names, self._session.run(None, inputs), strict=True))
        except ORT_ERRORS as error:
            raise BundleError(f"onnxruntime cannot run the graph: {cause_of(error)}") from error

    def _results(
        self, outputs: Mapping[str, Any], n_tokens: int, index: int = 0
    ) -> dict[ReferenceOperator, FloatArray]:
        """Of one sequence, but for a task's head."""
        return {
            operator: self._rows(mapped, outputs, n_tokens, index)
            for operator, mapped in self._mapped.items()
            if operator.name != "task_head"
        }

    def _head_results(
        self, outputs: Mapping[str, Any], n_tokens: int
    ) -> dict[ReferenceOperator, FloatArray]:
        """Of a task the logits of both sequences, [N, n_label], and the states [N, C] that its head
        must have read for them.
        """
        head = ReferenceOperator(None, "task_head")
        if self._task is None or head not in self._mapped:
            return {}
        last = self._config.n_layer - 1
        is_pre = self._config.norm == "pre"
        final = ReferenceOperator(None, "ln_f") if is_pre else ReferenceOperator(last, "ln_2")
        states = outputs[str(self._mapped[final].values[0].name)]  # [2, T, C]
        logits = outputs[str(self._mapped[head].values[0].name)]
        lengths = _lengths(n_tokens)
        if self._graph == "edge" or self._task.reads_every_token:
            states, logits = states[:, : min(lengths)], logits[:, : min(lengths)]
        else:
            states = states[np.arange(2), np.array(lengths) - 1]
        if self._task.kind == "similarity":
            states = states[0::2] + states[1::2]
        width = self._config.n_embd
        return {
            TASK_STATES: np.ascontiguousarray(states.reshape(-1, width)),
            head: np.ascontiguousarray(logits.reshape(-1, logits.shape[-1])),
        }

    def _feeds(self, *sequences: IntArray) -> dict[str, NDArray[Any]]:
        """Of one sequence, or of several where nothing is in the cache."""
        ids = np.stack(sequences)
        n_rows, n_new = ids.shape
        n_past, total = self.n_past, self.n_past + n_new
        values: dict[str, NDArray[Any]] = {
            onnx_contract.INPUT_IDS: ids,
            onnx_contract.POSITION_IDS: np.tile(np.arange(n_past, total), (n_rows, 1)),
            onnx_contract.ATTENTION_MASK: np.ones((n_rows, total), np.int64),
            onnx_contract.SEQLENS_K: np.full(n_rows, total - 1, np.int32),
            onnx_contract.TOTAL_SEQUENCE_LENGTH: np.array([total], np.int32),
            onnx_contract.LOGIT_ROWS: np.tile(np.arange(n_new), (n_rows, 1)),
        }
        for layer in range(self._config.n_layer):
            pair = self.past[2 * layer : 2 * layer + 2]
            keys, values_of_layer = (np.repeat(array, n_rows, 0) for array in pair)
            values[onnx_contract.past_key(layer)] = keys
            values[onnx_contract.past_value(layer)] = values_of_layer
        return values

    def _task_feeds(self, ids: IntArray) -> dict[str, NDArray[Any]]:
        lengths = np.array(_lengths(ids.size))
        both = np.stack([ids, ids[::-1]])
        is_token = np.arange(ids.size) < lengths[:, None]
        return {
            onnx_contract.INPUT_IDS: np.where(is_token, both, 0),
            onnx_contract.ATTENTION_MASK: is_token.astype(np.int64),
            onnx_contract.SEQLENS_K: (lengths - 1).astype(np.int32),
            onnx_contract.TOTAL_SEQUENCE_LENGTH: np.array([ids.size], np.int32),
            onnx_contract.LOGIT_ROWS: np.broadcast_to(np.arange(ids.size), both.shape).copy(),
        }

    def _rows(
        self, mapped: MappedOperator, outputs: Mapping[str, Any], n_new: int, index: int
    ) -> FloatArray:
        """The result of the sequence `index`; one that is the same for all has one row."""
        parts = [outputs[str(value.name)] for value in mapped.values]
        parts = [part[min(index, len(part) - 1)] for part in parts]
        if mapped.operator.name == "attn.c_attn":
            return self._heads(parts, 3, n_new)
        if mapped.operator.name == "attn.attention":
            return self._heads(parts, 1, n_new)
        total = sum(parts)  # a sum that no node shows has two summands
        return np.asarray(total + self._biases.get(mapped.operator, np.float32(0)), np.float32)

    def _heads(self, parts: Sequence[FloatArray], n_parts: int, n_new: int) -> FloatArray:
        """[T, parts * H * D'] or parts of [H, T, D'] -> [T, parts * C], without the padding of
        heads.
        """
        heads, size = self._config.n_head, self._config.head_size
        if parts[0].ndim == 3:
            # [T, parts, H, D']
            split = np.stack([part[:, -n_new:].transpose(1, 0, 2) for part in parts], 1)
        else:
            split = np.concatenate(parts, -1).reshape(n_new, n_parts, heads, -1)
        return np.ascontiguousarray(split[..., :size].reshape(n_new, -1))


def _lengths(n_tokens: int) -> tuple[int, int]:
    """Tokens of the two sequences of a task's run."""
    return n_tokens, max(1, n_tokens - CUT)


def embedding_rows(
    model: ir.Model,
    folder: Path,
    mapped: MappedOperator,
    ids: IntArray,
    positions: IntArray | None,
) -> FloatArray:
    """The embedding [T, C] of ids [T] at `positions` [T], computed by the graph's own nodes and
    nothing behind them; None: of a task, which counts the positions itself.

    Raises BundleError if onnxruntime refuses them.
    """
    model = model.clone()
    by_name = {value.name: value for node in model.graph for value in node.outputs}
    values = [by_name[value.name] for value in mapped.values]
    model.graph.outputs.clear()
    for value in values:
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), None
        model.graph.outputs.append(value)
    model = RemoveUnusedNodesPass()(model).model
    names = {str(value.name) for value in model.graph.inputs if value.uses()}
    for value in list(model.graph.inputs):
        if value.name not in names:
            model.graph.inputs.remove(value)
    session = _open(model, folder)
    rows = []
    size = ids.size if positions is None else MAX_ROWS
    for start in range(0, ids.size, size):
        n_rows = min(size, ids.size - start)
        feeds = {onnx_contract.INPUT_IDS: ids[None, start : start + size]}
        if positions is not None:
            feeds[onnx_contract.POSITION_IDS] = positions[None, start : start + size]
        # what else the nodes may read, where something is wrong with them
        spare = {
            onnx_contract.SEQLENS_K: np.array([n_rows - 1], np.int32),
            onnx_contract.TOTAL_SEQUENCE_LENGTH: np.array([n_rows], np.int32),
            onnx_contract.ATTENTION_MASK: np.ones((1, n_rows), np.int64),
            onnx_contract.LOGIT_ROWS: np.arange(n_rows)[None],
        }
        chosen = {name: value for name, value in (spare | feeds).items() if name in names}
        try:
            parts = session.run(None, chosen)
        except ORT_ERRORS as error:
            raise BundleError(f"onnxruntime cannot embed tokens: {cause_of(error)}") from error
        rows.append(np.asarray(sum(np.broadcast_to(p[0], parts[-1][0].shape) for p in parts)))
    return np.concatenate(rows)


def _open(model: ir.Model, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.log_severity_level = SILENT
    options.enable_mem_pattern = False
    options.add_session_config_entry(WEIGHTS_FOLDER, str(folder.absolute()))
    try:
        content = ir.serde.serialize_model(model).SerializeToString()
        return start_session(content, options)
    except ORT_ERRORS as error:
        raise BundleError(
            f"onnxruntime cannot load the graph of {folder}: {cause_of(error)}"
        ) from error


def reference_trace(
    model: GPT, ids: IntArray, past: list[KeyValue] | None = None
) -> tuple[dict[ReferenceOperator, FloatArray], list[KeyValue]]:
    """Each operator's result in the reference on ids [T], and every layer's keys and values."""
    results: dict[ReferenceOperator, FloatArray] = {}
    hooks = []

    def keep(operator: ReferenceOperator, value: Tensor) -> None:
        results[operator] = value[0].numpy().copy()

    def after(module: nn.Module, operator: ReferenceOperator) -> None:
        hooks.append(module.register_forward_hook(lambda _, __, output: keep(operator, output)))

    def before(module: nn.Module, operator: ReferenceOperator) -> None:
        hooks.append(module.register_forward_pre_hook(lambda _, inputs: keep(operator, inputs[0])))

    before(model.blocks()[0], ReferenceOperator(None, "embedding"))
    for layer, block in enumerate(model.blocks()):
        _hook_layer(block, layer, before, after)
    if model.config.norm == "pre":
        after(model.ln_f, ReferenceOperator(None, "ln_f"))
    after(model.lm_head, ReferenceOperator(None, "lm_head"))
    try:
        with torch.inference_mode():
            _, present = model(torch.from_numpy(ids)[None], None, past)
    finally:
        for hook in hooks:
            hook.remove()
    return results, present


def _hook_layer(block: Block, layer: int, before: Any, after: Any) -> None:
    after(block.attn.c_attn, ReferenceOperator(layer, "attn.c_attn"))
    before(block.attn.c_proj, ReferenceOperator(layer, "attn.attention"))
    after(block.attn.c_proj, ReferenceOperator(layer, "attn.c_proj"))
    after(block.mlp.c_fc, ReferenceOperator(layer, "mlp.c_fc"))
    before(block.mlp.c_proj, ReferenceOperator(layer, "mlp.activation"))
    after(block.mlp.c_proj, ReferenceOperator(layer, "mlp.c_proj"))
    after(block.ln_1, ReferenceOperator(layer, "ln_1"))
    after(block.ln_2, ReferenceOperator(layer, "ln_2"))
    if block.is_post_norm:
        before(block.ln_1, ReferenceOperator(layer, "attn.residual"))
        before(block.ln_2, ReferenceOperator(layer, "mlp.residual"))
    else:
        before(block.ln_2, ReferenceOperator(layer, "attn.residual"))
        after(block, ReferenceOperator(layer, "mlp.residual"))
