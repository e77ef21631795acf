"""What the default bundle's speed is held against: a frozen model of the same shape, whose
operators never change.

It is the edge graph as it was first published, 8-bit MatMulNBits and GroupQueryAttention in place,
with random numbers in it, run by the barest loop there is: bound once, with one thread. A
processor, a busy neighbour or a cold cache that slows the bundle down slows it down alike, because
it does the same things to as many bytes. Made here, without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gpt_edge.config import GPTConfig

BLOCK = 64
INT8_COMPUTE = 4  # accuracy_level of MatMulNBits
CAPACITY = 128  # of the buffers for keys and values
MS = "com.microsoft"


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(0)

    def add(
        self,
        operator: str,
        inputs: list[str],
        more: tuple[str, ...] = (),
        domain: str = "",
        **settings: Any,
    ) -> str:
        """A node; the name of its first output is returned, `more` are the others."""
        output = f"value_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output, *more], domain=domain, **settings)
        )
        return output

    def constant(self, values: npt.NDArray[Any]) -> str:
        """A weight, whose name is returned."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def product(self, source: str, n_in: int, n_out: int) -> str:
        """A product with an int8 matrix of random numbers, and a bias."""
        blocks = n_in // BLOCK
        values = self.constant(self._random.integers(0, 256, (n_out, blocks, BLOCK), np.uint8))
        scales = self.constant(np.full((n_out, blocks), 0.001, np.float32))
        bias = self.constant(np.zeros(n_out, np.float32))
        settings = {
            "K": n_in,
            "N": n_out,
            "bits": 8,
            "block_size": BLOCK,
            "accuracy_level": INT8_COMPUTE,
        }
        return self.add(
            "MatMulNBits", [source, values, scales, "", "", bias], domain=MS, **settings
        )

    def norm(self, residual: str, branch: str, width: int) -> str:
        """Layer norm of a sum."""
        ones, zeros = (
            self.constant(np.ones(width, np.float32)),
            self.constant(np.zeros(width, np.float32)),
        )
        return self.add(
            "SkipLayerNormalization", [residual, branch, ones, zeros], domain=MS, epsilon=1e-5
        )


def _model(config: GPTConfig) -> bytes:
    """The ONNX file."""
    width, inner, heads = config.n_embd, config.inner_size, config.n_head
    graph = _Graph()
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "T", width]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("total", TensorProto.INT32, [1]),
    ]
    outputs, buffer = [], [1, heads, "S", config.head_size]
    x = "x"
    for layer in range(config.n_layer):
        names = [
            f"{name}_{layer}" for name in ("past_key", "past_value", "present_key", "present_value")
        ]
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, buffer) for name in names[:2]
        ]
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, buffer) for name in names[2:]
        ]
        qkv = graph.product(x, width, 3 * width)
        attention = [qkv, "", "", *names[:2], "seqlens_k", "total"]
        settings = {"num_heads": heads, "kv_num_heads": heads}
        mixed = graph.add("GroupQueryAttention", attention, tuple(names[2:]), MS, **settings)
        x = graph.norm(x, graph.product(mixed, width, width), width)
        hidden = graph.add("FastGelu", [graph.product(x, width, inner)], domain=MS)
        x = graph.norm(x, graph.product(hidden, inner, width), width)
    last = graph.constant(np.array([-1], np.int64))
    logits = graph.product(graph.add("Gather", [x, last], axis=1), width, config.vocab_size)
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    outputs.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, config.vocab_size])
    )
    described = helper.make_graph(graph.nodes, "reference", inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    content: bytes = helper.make_model(
        described, opset_imports=opsets, ir_version=10
    ).SerializeToString()
    return content


def reference_session(config: GPTConfig) -> ort.InferenceSession:
    """A session of one thread: x float32 [1, T, C], logits [1, 1, V] of the last row."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    return ort.InferenceSession(_model(config), options, providers=["CPUExecutionProvider"])


def reference_work(
    session: ort.InferenceSession, config: GPTConfig, n_past: int, n_tokens: int, times: int = 1
) -> Callable[[], None]:
    """Runs the model `times` times on `n_tokens` rows after `n_past`, and takes the most likely
    token each time.
    """
    random, binding = np.random.default_rng(1), session.io_binding()
    total = n_past + n_tokens
    logits = np.zeros((1, 1, config.vocab_size), np.float32)
    inputs = {
        "x": random.standard_normal((1, n_tokens, config.n_embd), np.float32),
        "seqlens_k": np.array([total - 1], np.int32),
        "total": np.array([total], np.int32),
    }
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    for layer in range(config.n_layer):
        for side in ("key", "value"):
            array = random.standard_normal(
                (1, config.n_head, CAPACITY, config.head_size), np.float32
            )
            buffer = ort.OrtValue.ortvalue_from_numpy(array)
            values[f"past_{side}_{layer}"] = buffer
            binding.bind_ortvalue_output(f"present_{side}_{layer}", buffer)
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits))

    def work() -> None:
        for _ in range(times):
            session.run_with_iobinding(binding)
            assert np.isfinite(logits[0, 0, logits[0, 0].argmax()])

    return work
