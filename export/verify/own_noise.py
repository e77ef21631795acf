"""How far a model is from itself when its numbers are rounded: what limits are relative to.

Weights ten times as large make logits that are ten times as sensitive, or a thousand times. Where a
fixed limit is exceeded, the reference is run again with random errors of the size that float32, or
the scheme's quantization, makes: a bundle may be as far away as that, and a broken one is farther.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from gpt_edge.verify.parity import Agreement, Probe
from gpt_edge.verify.report import NOISE_FACTOR
from gpt_edge.verify.subject import Subject

SEED = 20170616
N_DRAWS = 16  # of the noise of a few rows
FLOAT_ERROR = 2.0**-22  # of a row's root mean square: sums of float32 in another order
BLOCK = 32  # weights with one scale, of 4 bits
LEVELS = {8: 127, 4: 7}  # on each side of zero


class OwnNoise:
    """The noise of one reference on one subject's probes, by scheme; that of all rows is measured
    once, when it is asked for.

    load: the reference, loaded again, since its memory was given back. expected: its outputs.
    """

    def __init__(
        self, load: Callable[[], GPT | TaskModel], subject: Subject, expected: Any
    ) -> None:
        self._load = load
        self._subject = subject
        self._expected = expected
        self._all_rows: dict[str, Agreement] = {}

    def __call__(self, scheme: str, window: tuple[str, int] | None = None) -> Agreement:
        """How a reference with errors of the size of this scheme's agrees with itself.

        window: of a language model, a probe and the first of `parity.WINDOW` of its rows, see
        `_of_window`; None: all rows.
        """
        if window is not None:
            return self._of_window(scheme, *window)
        if scheme not in self._all_rows:
            self._all_rows[scheme] = self._of_all(scheme)
        return self._all_rows[scheme]

    def _of_all(self, scheme: str) -> Agreement:
        subject, model = self._subject, self._load()
        if isinstance(model, TaskModel):
            assert isinstance(subject, ClassifierSubject)
            with disturbed(model.gpt, bits_of(scheme)):
                actual = classifier_logits(model, subject.probes)
            return compare_tasks(subject.probes, self._expected, actual)
        assert isinstance(subject, LanguageModelSubject)
        with disturbed(model, bits_of(scheme)):
            logits = language_model_logits(model, subject.probes)
        return parity.compare(subject.probes, self._expected.logits, logits)

    def _of_window(self, scheme: str, name: str, row: int) -> Agreement:
        """The largest KL of N_DRAWS draws. Few rows are no average: one that attends to either of
        two tokens jumps in some draws and not in others. So errors of NOISE_FACTOR times the energy
        are drawn, for which such a row jumps oftener, and that part of their KL is returned.
        """
        subject, model = self._subject, self._load()
        assert isinstance(subject, LanguageModelSubject)
        assert isinstance(model, GPT)
        at = [probe.name for probe in subject.probes].index(name)
        first = list(subject.probes[at].compared_rows).index(row)
        chosen = slice(first, first + parity.WINDOW)
        rows = tuple(subject.probes[at].compared_rows[chosen])
        probe = Probe(name, subject.probes[at].ids[: rows[-1] + 1], rows)
        expected = self._expected.logits[at][chosen]
        draws = []
        for number in range(N_DRAWS):
            with disturbed(model, bits_of(scheme), SEED + number, math.sqrt(NOISE_FACTOR)):
                logits = language_model_logits(model, [probe])
            draws.append(parity.compare([probe], [expected], logits))
        largest = max(draws, key=lambda draw: draw.mean_kl)
        return replace(largest, mean_kl=largest.mean_kl / NOISE_FACTOR)


def bits_of(scheme: str) -> int | None:
    """Of a scheme's weights, the fewest that it may have; None: they are floats."""
    row = SCHEMES[scheme]
    return None if row.is_float else (row.bits or min(LEVELS))


@contextmanager
def disturbed(
    model: GPT, bits: int | None, seed: int = SEED, size: float = 1.0
) -> Iterator[GPT | TaskModel]:
    """The model with random errors in every linear layer and norm: of float32 sums, and where
    `bits` are given those of weights of so many bits and of 8-bit activations, times `size`.
    """
    generator = torch.Generator().manual_seed(seed)
    originals: dict[nn.Linear, Tensor] = {}
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            hooks.append(module.register_forward_hook(_adding(generator, size)))
        if isinstance(module, nn.Linear) and bits is not None:
            originals[module] = module.weight.data
            errors = _rounding_errors(module.weight.data, bits, generator)
            module.weight.data = module.weight.data + size * errors
            hooks.append(module.register_forward_pre_hook(_rounding_input(generator, size)))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for module, weight in originals.items():
            module.weight.data = weight


def _adding(generator: torch.Generator, size: float) -> Callable[..., Tensor]:
    def add(_module: nn.Module, _inputs: Any, y: Tensor) -> Tensor:
        error = size * FLOAT_ERROR * y.square().mean(-1, keepdim=True).sqrt()
        return y + error * torch.randn(y.shape, generator=generator)

    return add


def _rounding_input(generator: torch.Generator, size: float) -> Callable[..., tuple[Tensor]]:
    def disturb(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = inputs[0]
        step = size * x.abs().amax(-1, keepdim=True) / LEVELS[8]
        return (x + step * (torch.rand(x.shape, generator=generator) - 0.5),)

    return disturb


def _rounding_errors(weight: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """Errors of up to half a step: of 8 bits one for each row, of 4 for each block."""
    n, k = weight.shape
    block = k if bits == 8 else min(BLOCK, k)
    padded = nn.functional.pad(weight, (0, -k % block)).reshape(n, -1, block)
    step = padded.abs().amax(-1, keepdim=True).expand_as(padded).reshape(n, -1)[:, :k]
    return step / LEVELS[bits] * (torch.rand(weight.shape, generator=generator) - 0.5)
