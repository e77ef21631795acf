"""The reference through torch.onnx.export(dynamo=True), without weights: the model lives in fake
tensors.

What comes out is the wiring alone, its initializers named as in `GPT.state_dict()`. Weights are
streamed in later, one tensor at a time, so that tracing GPT-2 XL costs megabytes. Attention of the
edge graph is emitted as GroupQueryAttention through `torch.onnx.ops.symbolic_multi_out`; everything
else is what the reference computes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.reference.model import GPT, Block, KeyValue

OPSET = 23  # the first with Attention
PREFIX = "gpt."  # where the wrappers hold the reference
FLOAT = 1  # onnx.TensorProto.FLOAT

Attributes = dict[
    str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
]


def attention_attributes(config: GPTConfig, layer: int) -> Attributes:
    """Of a layer's GroupQueryAttention."""
    return {
        "num_heads": config.n_head,
        "kv_num_heads": config.n_head,
        "scale": config.attention_scale,  # of the true head size: the padding adds zeros to q.k
        "local_window_size": config.layer_window(layer) or -1,
    }


def pick_rows(x: Tensor, rows: Tensor) -> Tensor:
    """[B, R, C] of [B, T, C] and indices int64 [B, R]; row by row, so in one operator."""
    shape = (x.shape[0], rows.shape[1], x.shape[2])
    picked: Tensor = torch.onnx.ops.symbolic(
        "GatherND",
        [x, rows.unsqueeze(-1)],
        {"batch_dims": 1},
        dtype=x.dtype,
        shape=shape,
        version=13,
    )
    return picked


class EdgeGraph(nn.Module):
    """The reference with GroupQueryAttention over a cache that is written in place."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    def attend(
        self, block: Block, layer: int, n: Tensor, cache: KeyValue, lengths: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Attention output [B, T, C] and the cache after the call."""
        return list(
            torch.onnx.ops.symbolic_multi_out(
                "com.microsoft::GroupQueryAttention",
                [block.attn.c_attn(n), None, None, *cache, *lengths],
                attention_attributes(self.gpt.config, layer),
                dtypes=[FLOAT, FLOAT, FLOAT],
                shapes=[n.shape, cache[0].shape, cache[1].shape],
                version=1,
            )
        )

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        logit_rows: Tensor,
        past_key_values: list[KeyValue],
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "edge")` and `outputs`."""
        x = self.gpt.embed(input_ids, position_ids)
        present: list[Tensor] = []
        for layer, block in enumerate(cast(list[Block], self.gpt.h)):

            def attend(n: Tensor, block: Block = block, layer: int = layer) -> Tensor:
                lengths = (seqlens_k, total_sequence_length)
                y, key, value = self.attend(block, layer, n, past_key_values[layer], lengths)
                present.extend((key, value))
                return cast(Tensor, block.attn.c_proj(y))

            x = block(x, attend)
        x = self.gpt.ln_f(x)
        return self.gpt.lm_head(pick_rows(x, logit_rows)), present, x


class PortableGraph(nn.Module):
    """The reference as it is, with a past that grows."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: list[KeyValue],
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "portable")` and `outputs`."""
        x, present = self.gpt.hidden(input_ids, position_ids, past_key_values, attention_mask)
        return self.gpt.lm_head(x), [side for layer in present for side in layer], x


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch's exporter warns about packages that a GPT never needs; nothing of that is for the
    user.
    """
    root = logging.getLogger()
    level = root.level
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
        root.setLevel(level)


def trace(config: GPTConfig, graph: str) -> ir.Model:
    """Return the traced wiring of `config`: inputs and outputs named as in `onnx_contract.py`,
    initializers without values.

    graph: "edge" or "portable". Raises ExportError when torch cannot trace the model.
    """
    heads, size = config.n_head, onnx_contract.cache_head_size(config, graph)
    batch, new, past = 2, 3, 5  # a traced size of 0 or 1 would be taken for a constant
    automatic = torch.export.Dim.AUTO
    with FakeTensorMode():
        gpt = GPT(config)
        cache = [
            (torch.zeros(batch, heads, past, size), torch.zeros(batch, heads, past, size))
            for _ in gpt.h
        ]
        ids = torch.zeros(batch, new, dtype=torch.int64)
        cache_axes = [({0: automatic, 2: automatic}, {0: automatic, 2: automatic}) for _ in gpt.h]
        two_axes = {0: automatic, 1: automatic}
        if graph == "edge":
            lengths = torch.zeros(batch, dtype=torch.int32)
            rows = torch.zeros(batch, 2, dtype=torch.int64)
            model: nn.Module = EdgeGraph(gpt)
            arguments: tuple[Any, ...] = (
                ids,
                ids.clone(),
                lengths,
                torch.zeros(1, dtype=torch.int32),
                rows,
                cache,
            )
            axes: tuple[Any, ...] = (two_axes, two_axes, {0: automatic}, None, two_axes, cache_axes)
        else:
            mask = torch.zeros(batch, past + new, dtype=torch.int64)
            model, arguments, axes = (
                PortableGraph(gpt),
                (ids, mask, ids.clone(), cache),
                (two_axes, two_axes, two_axes, cache_axes),
            )
        return named(traced(model, arguments, axes, graph), config, graph)


def traced(
    model: nn.Module, arguments: tuple[Any, ...], axes: tuple[Any, ...], graph: str
) -> ir.Model:
    """What torch makes of a wrapper around the reference. axes: of each argument, which are not
    constant.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                model.eval(),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=axes,
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(
            f"torch could not trace the {graph} graph: {str(error).splitlines()[0]}"
        ) from error
    if program is None:
        raise ExportError(f"torch returned no {graph} graph")
    return program.model


def named(model: ir.Model, config: GPTConfig, graph: str) -> ir.Model:
    """Give inputs, outputs and initializers the names of the contract; axes too."""
    for values, specs in (
        (model.graph.inputs, onnx_contract.inputs(config, graph)),
        (model.graph.outputs, onnx_contract.outputs(config, graph)),
    ):
        if len(values) != len(specs):
            raise ExportError(
                f"the {graph} graph has {len(values)} inputs or outputs, the contract has "
                f"{len(specs)}"
            )
        for value, spec in zip(values, specs, strict=True):
            value.name = spec.name
            value.shape = ir.Shape(spec.axes)
    for name in list(model.graph.initializers):
        value = model.graph.initializers.pop(name)
        value.name = "wte.weight" if _is_tied_head(name, config) else name.removeprefix(PREFIX)
        model.graph.initializers[value.name] = value
    return model


def _is_tied_head(name: str, config: GPTConfig) -> bool:
    return config.tied_embeddings and name == PREFIX + "lm_head.weight"
