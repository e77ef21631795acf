"""A fine-tuned model through torch.onnx: whole sequences go in, the task's logits come out, in one
forward without a cache.

In the edge graph the last layer goes on with the wanted rows alone once it has attended: for a
task's logits that is one row of each sequence. Neither graph holds the language model's head.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.trace import FLOAT, attention_attributes, named, pick_rows, traced
from gpt_edge.reference.model import GPT


class TaskGraph(nn.Module):
    """What both graphs share: the reference without its head, and the task's."""

    def __init__(self, gpt: GPT, kind: str) -> None:
        super().__init__()
        assert gpt.config.n_label is not None
        gpt.lm_head = nn.Identity()  # type: ignore[assignment]
        self.gpt, self.kind = gpt, kind
        self.task_head = nn.Linear(gpt.config.n_embd, gpt.config.n_label)

    def head(self, states: Tensor) -> Tensor:
        """Logits of states [B, ..., C] at the extract tokens; of similarity, of each two rows' sum
        (Radford et al. 2018).
        """
        if self.kind == "similarity":
            states = states[0::2] + states[1::2]
        logits: Tensor = self.task_head(states)
        return logits

    def embed(self, input_ids: Tensor) -> Tensor:
        """`GPT.embed`, the positions first: SkipLayerNormalization repeats its skip over the batch,
        not its input.
        """
        x: Tensor = self.gpt.wpe(torch.arange(input_ids.shape[1])[None]) + self.gpt.wte(input_ids)
        return x


class EdgeTaskGraph(TaskGraph):
    """GroupQueryAttention without past and present, which has the fastest kernel and skips what is
    padding.
    """

    def forward(
        self,
        input_ids: Tensor,
        seqlens_k: Tensor,
        total_sequence_length: Tensor,
        logit_rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "edge")` and `outputs`."""
        x, blocks = self.embed(input_ids), self.gpt.blocks()
        for layer, block in enumerate(blocks):
            is_last = layer == len(blocks) - 1
            # The attention of the last layer reads every row, so its input is normed here; what the
            # block norms for it is the wanted rows, which nothing uses.
            n = x if block.is_post_norm else block.ln_1(x)
            y = torch.onnx.ops.symbolic(
                "com.microsoft::GroupQueryAttention",
                [block.attn.c_attn(n), None, None, None, None, seqlens_k, total_sequence_length],
                attention_attributes(self.gpt.config, layer),
                dtype=FLOAT,
                shape=n.shape,
                version=1,
            )
            if is_last:
                x, y = pick_rows(x, logit_rows), pick_rows(y, logit_rows)
            x = block(x, lambda _, block=block, y=y: block.attn.c_proj(y))
        x = self.gpt.ln_f(x)
        return self.head(x), x


class PortableTaskGraph(TaskGraph):
    """The reference as it is. Padding at the ends is never looked at: the mask only says where a
    sequence ends.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as in `onnx_contract.inputs(config, "portable")` and `outputs`."""
        x, _ = self.gpt.hidden(input_ids)
        last = attention_mask.sum(1, keepdim=True) - 1  # [B, 1]
        return self.head(pick_rows(x, last)[:, 0]), x


def trace_task(config: GPTConfig, graph: str, kind: str) -> ir.Model:
    """As `trace`, for a config with n_label and a task kind. Raises ExportError when torch cannot
    trace the model.
    """
    batch, new = 4, 3
    two_axes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    with FakeTensorMode():
        gpt = GPT(config)
        ids = torch.zeros(batch, new, dtype=torch.int64)
        if graph == "portable":
            return named(
                traced(
                    PortableTaskGraph(gpt, kind), (ids, ids.clone()), (two_axes, two_axes), graph
                ),
                config,
                graph,
            )
        lengths, total = torch.zeros(batch, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        rows = torch.zeros(batch, 2, dtype=torch.int64)
        arguments = (ids, lengths, total, rows)
        axes = (two_axes, {0: torch.export.Dim.AUTO}, None, two_axes)
        return named(traced(EdgeTaskGraph(gpt, kind), arguments, axes, graph), config, graph)
