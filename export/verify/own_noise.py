"""How far a model is from itself when its numbers are rounded: what limits are relative to.

Weights ten times as large make logits that are ten times as sensitive, or a thousand times. Where a
fixed limit is exceeded, the reference is run again with random errors of the size that float32, or
the scheme's quantization, makes: a bundle may be as far away as that, and a broken one is farther.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gpt_edge.export.verify.reference import classifier_logits, language_model_logits
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import SCHEMES
from gpt_edge.verify import parity
from gpt_edge.verify.classifiers import ClassifierSubject, compare_tasks
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.parity import Agreement
from gpt_edge.verify.subject import Subject

SEED = 20170616
FLOAT_ERROR = 2.0**-22  # of a row's root mean square: sums of float32 in another order
BLOCK = 32  # weights with one scale, of 4 bits
LEVELS = {8: 127, 4: 7}  # on each side of zero


class OwnNoise:
    """The noise of one reference on one subject's probes, by scheme; each is measured once, when it
    is asked for.

    load: the reference, loaded again, since its memory was given back. expected: its outputs.
    """

    def __init__(
        self, load: Callable[[], GPT | TaskModel], subject: Subject, expected: Any
    ) -> None:
        self._load = load
        self._subject = subject
        self._expected = expected
        self._disturbed: dict[str, Any] = {}

    def __call__(self, scheme: str, window: tuple[str, int] | None = None) -> Agreement:
        """How a reference with errors of the size of this scheme's agrees with itself.

        window: of a language model, a probe and one of its rows, see `parity.window_of`; None: all
        rows.
        """
        if scheme not in self._disturbed:
            self._disturbed[scheme] = self._disturb(bits_of(scheme))
        subject, expected = self._subject, self._expected
        actual = self._disturbed[scheme]
        if isinstance(subject, ClassifierSubject):
            return compare_tasks(subject.probes, expected, actual)
        assert isinstance(subject, LanguageModelSubject)
        if window is None:
            return parity.compare(subject.probes, expected.logits, actual)
        name, row = window
        at = [probe.name for probe in subject.probes].index(name)
        return parity.window_of(expected.logits[at], actual[at], subject.probes[at], row)

    def _disturb(self, bits: int | None) -> Any:
        """The outputs of a disturbed reference: of a classifier its logits, else those of each
        probe.
        """
        subject, model = self._subject, self._load()
        if isinstance(model, TaskModel):
            assert isinstance(subject, ClassifierSubject)
            with disturbed(model.gpt, bits):
                return classifier_logits(model, subject.probes)
        assert isinstance(subject, LanguageModelSubject)
        with disturbed(model, bits):
            return language_model_logits(model, subject.probes)


def bits_of(scheme: str) -> int | None:
    """Of a scheme's weights, the fewest that it may have; None: they are floats."""
    row = SCHEMES[scheme]
    return None if row.is_float else (row.bits or min(LEVELS))


@contextmanager
def disturbed(model: GPT, bits: int | None) -> Iterator[GPT | TaskModel]:
    """The model with random errors in every linear layer and norm: of float32 sums, and where
    `bits` are given those of weights of so many bits and of 8-bit activations.
    """
    generator = torch.Generator().manual_seed(SEED)
    originals: dict[nn.Linear, Tensor] = {}
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            hooks.append(module.register_forward_hook(_adding(generator)))
        if isinstance(module, nn.Linear) and bits is not None:
            originals[module] = module.weight.data
            module.weight.data = _with_rounding_errors(module.weight.data, bits, generator)
            hooks.append(module.register_forward_pre_hook(_rounding_input(generator)))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for module, weight in originals.items():
            module.weight.data = weight


def _adding(generator: torch.Generator) -> Callable[..., Tensor]:
    def add(_module: nn.Module, _inputs: Any, y: Tensor) -> Tensor:
        size = y.square().mean(-1, keepdim=True).sqrt()
        return y + FLOAT_ERROR * size * torch.randn(y.shape, generator=generator)

    return add


def _rounding_input(generator: torch.Generator) -> Callable[..., tuple[Tensor]]:
    def disturb(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = inputs[0]
        step = x.abs().amax(-1, keepdim=True) / LEVELS[8]
        return (x + step * (torch.rand(x.shape, generator=generator) - 0.5),)

    return disturb


def _with_rounding_errors(weight: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """A copy with errors of up to half a step: of 8 bits one for each row, of 4 for each block."""
    n, k = weight.shape
    block = k if bits == 8 else min(BLOCK, k)
    padded = nn.functional.pad(weight, (0, -k % block)).reshape(n, -1, block)
    step = padded.abs().amax(-1, keepdim=True).expand_as(padded).reshape(n, -1)[:, :k]
    errors = torch.rand(weight.shape, generator=generator) - 0.5
    return weight + step / LEVELS[bits] * errors
