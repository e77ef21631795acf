"""The reference as the modules that torch traces: the edge and the portable graph, of a language
model and of a fine-tuned one.

Attention of the edge graphs is emitted as GroupQueryAttention through `torch.onnx.ops`; everything
else is what the reference computes. A module's `example_inputs` are what it is traced with: the
arguments, and of each argument the axes that vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.reference.model import GPT, Block, KeyValue
from gpt_edge.tasks import EVERY_TOKEN, N_NEW_TOKENS

FLOAT = 1  # onnx.TensorProto.FLOAT
MICROSOFT_ATTENTION = "com.microsoft::GroupQueryAttention"
# Sizes of the example; a traced size of 0 or 1 would be taken for a constant.
N_BATCH = 2
N_NEW = 3
N_PAST = 5
N_ROWS = 2
N_RANK = 7  # of an adapter
N_TASK_BATCH = 4  # even: similarity adds pairs of rows
ONE_AXIS = {0: torch.export.Dim.AUTO}
TWO_AXES = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
CACHE_AXES = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}

Attributes = dict[
    str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]
]
Example = tuple[tuple[Any, ...], tuple[Any, ...]]  # arguments, axes


def graph_module(config: GPTConfig, graph: str, task_kind: str | None) -> GraphModule:
    """The module for a graph, in whatever tensors torch makes now. task_kind: of a fine-tuned
    model.
    """
    gpt = GPT(config)
    if config.takes_adapters:
        return EdgeBaseGraph(gpt) if graph == "edge" else PortableBaseGraph(gpt)
    if task_kind is not None:
        task_module = EdgeTaskGraph if graph == "edge" else PortableTaskGraph
        return task_module(gpt, task_kind)
    return EdgeGraph(gpt) if graph == "edge" else PortableGraph(gpt)


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


class GraphModule(nn.Module):
    """A wrapper around the reference, which its attribute `gpt` holds."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    def example_inputs(self) -> Example:
        """Arguments to trace with, and their axes."""
        raise NotImplementedError

    def example_cache(self, graph: str) -> tuple[list[KeyValue], list[Any]]:
        """Past keys and values of every layer, and their axes."""
        config = self.gpt.config
        shape = (N_BATCH, config.n_head, N_PAST, onnx_contract.cache_head_size(config, graph))
        cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.n_layer)]
        return cache, [(CACHE_AXES, CACHE_AXES) for _ in cache]


class EdgeGraph(GraphModule):
    """The reference with GroupQueryAttention over a cache that is written in place."""

    def attend(
        self, block: Block, layer: int, n: Tensor, cache: KeyValue, lengths: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Attention output [B, T, C] and the cache after the call."""
        return list(
            torch.onnx.ops.symbolic_multi_out(
                MICROSOFT_ATTENTION,
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

    def example_inputs(self) -> Example:
        """See GraphModule."""
        ids = torch.zeros(N_BATCH, N_NEW, dtype=torch.int64)
        lengths = torch.zeros(N_BATCH, dtype=torch.int32)
        total = torch.zeros(1, dtype=torch.int32)
        rows = torch.zeros(N_BATCH, N_ROWS, dtype=torch.int64)
        cache, cache_axes = self.example_cache("edge")
        arguments = (ids, ids.clone(), lengths, total, rows, cache)
        return arguments, (TWO_AXES, TWO_AXES, ONE_AXIS, None, TWO_AXES, cache_axes)


class PortableGraph(GraphModule):
    """The reference as it is, with a past that grows."""

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

    def example_inputs(self) -> Example:
        """See GraphModule."""
        ids = torch.zeros(N_BATCH, N_NEW, dtype=torch.int64)
        mask = torch.zeros(N_BATCH, N_PAST + N_NEW, dtype=torch.int64)
        cache, cache_axes = self.example_cache("portable")
        return (ids, mask, ids.clone(), cache), (TWO_AXES, TWO_AXES, TWO_AXES, cache_axes)


class TaskGraph(GraphModule):
    """What both task graphs share: the reference without its head, and the task's. Whole sequences
    go in, and the task's logits come out, in one forward without a cache.
    """

    def __init__(self, gpt: GPT, kind: str) -> None:
        assert gpt.config.n_label is not None
        gpt.lm_head = nn.Identity()  # type: ignore[assignment]
        super().__init__(gpt)
        self.adds_pairs = kind == "similarity"
        self.task_head = nn.Linear(gpt.config.n_embd, gpt.config.n_label)

    def head(self, states: Tensor) -> Tensor:
        """Logits of states [B, ..., C] at the extract tokens; of similarity, of each two rows' sum
        (Radford et al. 2018).
        """
        if self.adds_pairs:
            states = states[0::2] + states[1::2]
        logits: Tensor = self.task_head(states)
        return logits


class EdgeEncoder(GraphModule):
    """GroupQueryAttention without past and present, which has the fastest kernel and skips padding.

    Once the last layer has attended, only the rows that the caller wants continue: for a task's
    logits one row of each sequence.
    """

    def embed(self, input_ids: Tensor) -> Tensor:
        """`GPT.embed`, the positions first: SkipLayerNormalization repeats its skip over the batch,
        not its input.
        """
        x: Tensor = self.gpt.wpe(torch.arange(input_ids.shape[1])[None]) + self.gpt.wte(input_ids)
        return x

    def states(
        self,
        input_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        logit_rows: Tensor,
    ) -> Tensor:
        """Hidden states [B, R, C] of the chosen rows."""
        x = self.embed(input_ids)
        blocks = self.gpt.blocks()
        for layer, block in enumerate(blocks):
            is_last = layer == len(blocks) - 1
            # The attention of the last layer reads every row, so its input is normed here; what the
            # block norms for it is the chosen rows, which nothing uses.
            n = x if block.is_post_norm else block.ln_1(x)
            y = torch.onnx.ops.symbolic(
                MICROSOFT_ATTENTION,
                [block.attn.c_attn(n), None, None, None, None, seqlens_k, total_sequence_length],
                attention_attributes(self.gpt.config, layer),
                dtype=FLOAT,
                shape=n.shape,
                version=1,
            )
            if is_last:
                x, y = pick_rows(x, logit_rows), pick_rows(y, logit_rows)
            x = block(x, lambda _, block=block, y=y: block.attn.c_proj(y))
        found: Tensor = self.gpt.ln_f(x)
        return found

    def example_inputs(self) -> Example:
        """See GraphModule."""
        ids = torch.zeros(N_TASK_BATCH, N_NEW, dtype=torch.int64)
        lengths = torch.zeros(N_TASK_BATCH, dtype=torch.int32)
        total = torch.zeros(1, dtype=torch.int32)
        rows = torch.zeros(N_TASK_BATCH, N_ROWS, dtype=torch.int64)
        return (ids, lengths, total, rows), (TWO_AXES, ONE_AXIS, None, TWO_AXES)


class EdgeTaskGraph(TaskGraph, EdgeEncoder):
    """The states at the extract tokens, and the head."""

    def forward(
        self,
        input_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        logit_rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "edge")` and `outputs`."""
        x = self.states(input_ids, seqlens_k, total_sequence_length, logit_rows)
        return self.head(x), x


class PortableTaskGraph(TaskGraph):
    """The reference as it is. Padding at the ends is never attended to: the mask only says where a
    sequence ends.
    """

    def __init__(self, gpt: GPT, kind: str) -> None:
        super().__init__(gpt, kind)
        self.reads_every_token = kind in EVERY_TOKEN

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "portable")` and `outputs`."""
        x, _ = self.gpt.hidden(input_ids)
        if self.reads_every_token:
            # the product keeps the mask among the inputs, and zeroes the rows of padding
            return self.head(x) * attention_mask[:, :, None], x
        last = attention_mask.sum(1, keepdim=True) - 1  # [B, 1]
        return self.head(pick_rows(x, last)[:, 0]), x

    def example_inputs(self) -> Example:
        """See GraphModule."""
        ids = torch.zeros(N_TASK_BATCH, N_NEW, dtype=torch.int64)
        return (ids, ids.clone()), (TWO_AXES, TWO_AXES)


class AdaptedLinear(nn.Linear):
    """y = x W^T + b + (x A) B, with the matrices of an adapter."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.lora_a = nn.Parameter(torch.empty(linear.in_features, N_RANK))
        self.lora_b = nn.Parameter(torch.empty(N_RANK, linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return super().forward(x) + torch.matmul(torch.matmul(x, self.lora_a), self.lora_b)


class AdaptedEmbedding(nn.Embedding):
    """Rows of the vocabulary, the last three of which are zeros, plus an adapter's rows for
    those.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim)
        self.task_tokens = nn.Parameter(torch.empty(N_NEW_TOKENS + 1, table.embedding_dim))

    def forward(self, input: Tensor) -> Tensor:
        """int64 [B, T] -> [B, T, C]."""
        last_of_texts = self.num_embeddings - N_NEW_TOKENS - 1
        rows = torch.maximum(input - last_of_texts, torch.zeros_like(input))
        return super().forward(input) + nn.functional.embedding(rows, self.task_tokens)


def with_adapters(gpt: GPT) -> GPT:
    """`gpt` without its head, and with the matrices of an adapter among its parameters."""
    gpt.lm_head = nn.Identity()  # type: ignore[assignment]
    gpt.wte = AdaptedEmbedding(gpt.wte)
    for block in gpt.blocks():
        for module in (block.attn, block.mlp):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, AdaptedLinear(layer))
    return gpt


class EdgeBaseGraph(EdgeEncoder):
    """The states of the chosen rows, as an adapter makes them; its head is applied outside."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__(with_adapters(gpt))

    def forward(
        self,
        input_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        logit_rows: Tensor,
    ) -> Tensor:
        """Shapes as in `onnx_contract.inputs(config, "edge")` and `outputs`."""
        return self.states(input_ids, seqlens_k, total_sequence_length, logit_rows)


class PortableBaseGraph(GraphModule):
    """The reference as it is; padding at the ends is never attended to."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__(with_adapters(gpt))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Shapes as in `onnx_contract.inputs(config, "portable")` and `outputs`."""
        x, _ = self.gpt.hidden(input_ids)
        return x

    def example_inputs(self) -> Example:
        """See GraphModule."""
        return (torch.zeros(N_TASK_BATCH, N_NEW, dtype=torch.int64),), (TWO_AXES,)
