"""How much one rounded tensor costs: the reference with only that tensor changed, against the
reference.

The change is what the kernels compute (onnxruntime 1.31.1, checked to 1e-6 by the tests): the
weight is its rounded self, and the input of its product is rounded to 8 bits by row and block
(MatMulNBits at accuracy level 4), by row, or not at all. Everything before the changed layer is
computed once for all formats. Costs of different tensors are small and nearly independent, so their
KLs nearly add up; what a whole assignment costs is measured in `budget.py`'s search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import Rows, batches, run_block
from gpt_edge.export.budget.degradation import Degradation, DegradationSum
from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.lower_edge import LOW_ZERO_POINT, UINT8_MIDDLE
from gpt_edge.export.weights.reference_operators import LINEARS
from gpt_edge.export.weights.source import unpad_heads
from gpt_edge.reference.model import GPT


def round_activations(
    x: Tensor, form: TensorFormat, block_size: int, zero_point: int = UINT8_MIDDLE
) -> Tensor:
    """x [..., K] as the kernel of `form` sees it, ties to even.

    By block, and by row with the zero point 128: symmetric, 127 levels to each side. By row with a
    lower one, as behind an activation function: 255 - zero_point levels above zero.
    """
    if form.activations == "float":
        return x
    if form.activations == "row" and zero_point != UINT8_MIDDLE:
        scale = x.amax(-1, keepdim=True) / (255 - zero_point)
        if zero_point:
            scale = torch.maximum(scale, x.amin(-1, keepdim=True) / -zero_point)
        inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
        return (x * inverse).round().clamp(-zero_point, 255 - zero_point) * scale
    k = x.shape[-1]
    size = k if form.activations == "row" else block_size
    padded = F.pad(x, (0, -k % size))
    blocks = padded.reshape(*x.shape[:-1], -1, size)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    rounded: Tensor = ((blocks * inverse).round() * scale).flatten(-2)[..., :k]
    return rounded


class RoundedLinear(nn.Module):
    """A linear layer as a rounded graph computes it."""

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        form: TensorFormat,
        config: GPTConfig,
        graph: str,
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.form = weight, bias, form
        self.heads, self.zero_point = None, UINT8_MIDDLE
        if name.endswith("mlp.c_proj.weight"):
            self.zero_point = 0 if config.activation == "relu" else LOW_ZERO_POINT
        if graph == "edge" and name.endswith("attn.c_proj.weight"):
            self.heads = (
                config.n_head,
                onnx_contract.cache_head_size(config, graph) - config.head_size,
            )
        self.n_inputs = weight.shape[1] + (self.heads[0] * self.heads[1] if self.heads else 0)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        size = self.form.block_for(self.n_inputs)
        if self.heads is None or not self.heads[1]:
            return F.linear(
                round_activations(x, self.form, size, self.zero_point), self.weight, self.bias
            )
        padded = F.pad(x.reshape(*x.shape[:-1], self.heads[0], -1), (0, self.heads[1])).flatten(-2)
        rounded = round_activations(padded, self.form, size).reshape(
            *x.shape[:-1], self.heads[0], -1
        )
        return F.linear(rounded[..., : -self.heads[1]].flatten(-2), self.weight, self.bias)


class SensitivityProbe:
    """The reference, a text, and what the reference says to it. graph: "edge" or "portable"."""

    def __init__(self, model: GPT, rows: Rows, graph: str, rounder: Rounder) -> None:
        self._model, self._graph, self._rounder = model, graph, rounder
        ids = torch.from_numpy(rows.ids)
        self._parts = [(ids[part, :-1], ids[part, 1:]) for part in batches(rows.ids)]
        self._reference: list[Tensor] = []

    @torch.inference_mode()
    def sensitivities(
        self,
        wanted: Mapping[str, Iterable[TensorFormat]],
        progress: Callable[[str], None] = lambda name: None,
    ) -> dict[str, dict[TensorFormat, Degradation]]:
        """For each named weight and format, the Degradation of that change alone. Formats of 32 bits
        cost nothing.
        """
        model, found = self._model, dict[str, dict[TensorFormat, Degradation]]()
        states = self._embed()
        self._reference = [model.lm_head(self._run(x, 0)).flatten(0, 1) for x in states]
        if "wte.weight" in wanted:
            found["wte.weight"] = {
                form: self._of_table(form) for form in self._seen("wte.weight", wanted, progress)
            }
        for layer, block in enumerate(model.blocks()):
            for part in LINEARS:
                if (name := f"h.{layer}.{part}.weight") in wanted:
                    parent, _, leaf = part.partition(".")
                    owner = block.get_submodule(parent)
                    found[name] = {
                        form: self._of_linear(owner, leaf, name, form, states, layer)
                        for form in self._seen(name, wanted, progress)
                    }
            for i, x in enumerate(states):
                states[i] = run_block(block, x)
        if "lm_head.weight" in wanted:
            found["lm_head.weight"] = {
                form: self._of_linear(
                    model, "lm_head", "lm_head.weight", form, states, len(model.h)
                )
                for form in self._seen("lm_head.weight", wanted, progress)
            }
        self._reference = []
        return found

    def _seen(
        self,
        name: str,
        wanted: Mapping[str, Iterable[TensorFormat]],
        progress: Callable[[str], None],
    ) -> Iterable[TensorFormat]:
        progress("measuring what each tensor costs")
        for form in wanted[name]:
            progress(name)
            yield form

    def _embed(self) -> list[Tensor]:
        return [self._model.embed(ids, torch.arange(ids.shape[1])[None]) for ids, _ in self._parts]

    def _run(self, x: Tensor, layer: int) -> Tensor:
        """From the input of `layer` to what the head reads."""
        for block in self._model.blocks()[layer:]:
            x = run_block(block, x)
        y: Tensor = self._model.ln_f(x)
        return y

    def _measure(self, states: list[Tensor], layer: int) -> Degradation:
        total = DegradationSum()
        for x, reference, (_, targets) in zip(states, self._reference, self._parts, strict=True):
            total.add(
                reference, self._model.lm_head(self._run(x, layer)).flatten(0, 1), targets.flatten()
            )
        return total.result()

    def _of_linear(
        self,
        owner: nn.Module,
        leaf: str,
        name: str,
        form: TensorFormat,
        states: list[Tensor],
        layer: int,
    ) -> Degradation:
        original = getattr(owner, leaf)
        setattr(owner, leaf, self._rounded(name, original, form))
        degradation = self._measure(states, layer)
        setattr(owner, leaf, original)
        return degradation

    def _of_table(self, form: TensorFormat) -> Degradation:
        """The embedding; where the head is tied to it, both."""
        model = self._model
        table, head = model.wte.weight, model.lm_head
        rounded = self._rounded(
            "wte.weight", head if model.config.tied_embeddings else model.wte, form
        )
        model.wte.weight = nn.Parameter(rounded.weight, requires_grad=False)
        if model.config.tied_embeddings:
            model.register_module("lm_head", rounded)
        degradation = self._measure(self._embed(), 0)
        model.wte.weight, model.lm_head = table, head
        return degradation

    def _rounded(self, name: str, module: nn.Module, form: TensorFormat) -> RoundedLinear:
        weight, config = module.weight, self._model.config
        assert isinstance(weight, Tensor)
        bias = getattr(module, "bias", None)
        if form.is_float:
            changed = weight.half().float() if form.bits == 16 else weight
            return RoundedLinear(name, changed, bias, form, config, self._graph)
        padded = self._rounder.padded(name, weight.numpy())
        values = self._rounder(name, padded, form).dequantize(padded.shape[1])
        if self._graph == "edge":
            values = unpad_heads(name, values, config)
        return RoundedLinear(name, torch.from_numpy(values), bias, form, config, self._graph)
