"""The task heads of GPT-1's fine-tuning: a linear layer on the hidden state at the extract token.

Classification and entailment: one output per class. Similarity: the two orders' hidden states are
added, then one output per class, or one for a score. Multiple choice: one output per answer,
compared by a softmax over an example's answers. Sequences are padded at their ends, which causal
attention never reads, so no mask is needed. Source: Radford et al. 2018, section 3.2,
equations 3 to 5, and section 3.3. Knows nothing of text or files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gpt_edge.config import GPTConfig
from gpt_edge.reference.model import GPT, CausalSelfAttention, without_memory
from gpt_edge.tasks import EMBEDDING, N_NEW_TOKENS, TaskSpec

HEAD_TENSORS = ("task_head.weight", "task_head.bias")
STD = 0.02  # of new embeddings and heads, as in GPT-1's code


class TaskModel(nn.Module):
    """A GPT with the task's tokens in its vocabulary, and the head. In training, `dropout` acts on
    the head's input.
    """

    def __init__(self, gpt: GPT, spec: TaskSpec, dropout: float = 0.0) -> None:
        super().__init__()
        if max(spec.tokens, default=0) >= gpt.config.vocab_size:
            raise ValueError(
                f"the task's tokens need a vocabulary larger than {gpt.config.vocab_size}: use "
                "with_task_tokens"
            )
        self.gpt = gpt
        self.spec = spec
        self.clf_dropout = nn.Dropout(dropout)
        self.task_head = nn.Linear(gpt.config.n_embd, spec.n_label)
        nn.init.normal_(self.task_head.weight, std=STD)
        nn.init.zeros_(self.task_head.bias)
        if spec.kind == EMBEDDING:  # vectors start as what the model has: a mean of its states
            nn.init.orthogonal_(self.task_head.weight)

    @property
    def config(self) -> GPTConfig:
        """The shape of the model, with its `n_label`."""
        return dataclasses.replace(self.gpt.config, n_label=self.spec.n_label)

    def forward(
        self, input_ids: Tensor, extract_at: Tensor, with_lm: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the task's logits, and next-token logits [S, T, V] `with_lm`.

        input_ids: int64 [S, T], padded at the ends with any id. extract_at: int64 [S], where each
        sequence's extract token is. The logits are [S, n_label] for classification and entailment;
        [S / 2, n_label] for similarity, whose two orders are rows 2i and 2i + 1; [S] for
        multiple choice, one per answer, in the order of the rows; [S, T, n_label] for
        token-classification and embedding.
        """
        hidden, _ = self.gpt.hidden(input_ids)
        states = hidden if self.spec.reads_every_token else read_extract(hidden, extract_at)
        logits = self.head(states)
        return logits, self.gpt.lm_head(hidden) if with_lm else None

    def head(self, states: Tensor) -> Tensor:
        """Logits as in `forward` from the hidden states at the extract tokens, [S, C]."""
        if self.spec.kind == "similarity":
            states = states[0::2] + states[1::2]  # [S / 2, C]
        logits: Tensor = self.task_head(self.clf_dropout(states))
        return logits[:, 0] if self.spec.kind == "multiple-choice" else logits

    def tensors(self) -> dict[str, Tensor]:
        """Every weight by its name in a checkpoint: those of `GPT.state_dict()`, and
        HEAD_TENSORS.
        """
        head = zip(HEAD_TENSORS, (self.task_head.weight, self.task_head.bias), strict=True)
        return {**self.gpt.state_dict(), **{name: tensor.detach() for name, tensor in head}}

    def load_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the head's weights from `tensors`, by the names of HEAD_TENSORS."""
        with torch.no_grad():
            self.task_head.weight.copy_(tensors[HEAD_TENSORS[0]])
            self.task_head.bias.copy_(tensors[HEAD_TENSORS[1]])


def read_extract(hidden: Tensor, extract_at: Tensor) -> Tensor:
    """The hidden states [S, C] at positions int64 [S] of [S, T, C]."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), extract_at]


def mean_of_tokens(logits: Tensor, extract_at: Tensor) -> Tensor:
    """Vectors [S, K]: the mean of logits [S, T, K] over the tokens up to the extract token, at
    int64 [S].
    """
    is_read = torch.arange(logits.shape[1], device=logits.device)[None] <= extract_at[:, None]
    total = (logits * is_read[:, :, None]).sum(1)
    return total / (extract_at[:, None] + 1)


def pad(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return int64 [S, T], padded at the ends with 0, and where each sequence's last token is,
    int64 [S].
    """
    rows = [torch.tensor(ids, dtype=torch.int64) for ids in sequences]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) - 1 for row in rows])


def by_example(scores: Tensor, n_choices: Sequence[int]) -> Tensor:
    """Scores [S] of answers as [B, max choices], one example per row, filled up with -inf."""
    return pad_sequence(
        list(torch.split(scores, list(n_choices))), batch_first=True, padding_value=-torch.inf
    )


def with_task_tokens(gpt: GPT) -> GPT:
    """`gpt` with three more tokens in its vocabulary, rows of N(0, 0.02) at the end. Other weights
    are shared.
    """
    new = torch.empty(N_NEW_TOKENS, gpt.config.n_embd)
    rows = {
        name: torch.cat((tensor, new.normal_(std=STD))) for name, tensor in _vocabulary(gpt).items()
    }
    return _with_vocabulary(gpt, rows, gpt.config.vocab_size + N_NEW_TOKENS)


def without_task_tokens(gpt: GPT, vocab_size: int) -> GPT:
    """The language model of the first `vocab_size` tokens, without the task's. It shares the
    weights.
    """
    rows = {name: tensor[:vocab_size] for name, tensor in _vocabulary(gpt).items()}
    return _with_vocabulary(gpt, rows, vocab_size)


def _vocabulary(gpt: GPT) -> dict[str, Tensor]:
    """The tensors [V, C] with a row for each token."""
    names = ("wte.weight",) if gpt.config.tied_embeddings else ("wte.weight", "lm_head.weight")
    tensors = gpt.state_dict()
    return {name: tensors[name] for name in names}


def _with_vocabulary(gpt: GPT, rows: Mapping[str, Tensor], vocab_size: int) -> GPT:
    config = dataclasses.replace(gpt.config, vocab_size=vocab_size)
    with without_memory():
        changed = GPT(config)
    tied = {"lm_head.weight": rows["wte.weight"]} if config.tied_embeddings else {}
    changed.load_state_dict({**gpt.state_dict(), **rows, **tied}, assign=True)
    if config.tied_embeddings:  # assignment made two parameters out of the one tensor
        changed.lm_head.weight = changed.wte.weight
    return changed.requires_grad_(True).train(gpt.training)


def set_dropout(gpt: GPT, dropout: float) -> None:
    """Set the dropout of embeddings, attention weights and residuals, as `GPT(config, dropout)`
    does.
    """
    for module in gpt.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(module, CausalSelfAttention):
            module.dropout = dropout
