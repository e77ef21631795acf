"""Channels that stand out, evened out before rounding: their size is moved from the activations
into the next weights.

A channel a hundred times as large as its neighbours takes the whole range of an 8-bit row and
leaves them a level or two. Dividing what writes it and multiplying what reads it changes nothing in
the model (Xiao et al. 2023, "SmoothQuant", section 4, with alpha = 0.5). Other than there, no
calibration text is wanted: the gains of a layer norm, and the rows that make a value, say how large
a channel gets. Factors are powers of two, so the float32 model stays the same to the last bit, and
only channels that are out of proportion by 16 or more get one: most models have none and are left
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.manifest import Manifest
from gpt_edge.config import GPTConfig
from gpt_edge.export.weights.reference_operators import ReferenceOperator
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import SCHEMES
from gpt_edge.tasks import TaskSpec

# Optimum quantizes a whole call with one scale, and knows nothing of smoothed weights
SMOOTHED_ACTIVATIONS = ("row", "block", "any")
KEY = "smoothing"  # in a manifest's provenance
NORMS = {"ln_1": "attn.c_attn", "ln_2": "mlp.c_fc"}  # of a pre-norm layer, and what reads them
VALUES, READER = "attn.values", "attn.c_proj"
# exponent from which a channel is smoothed: a factor of 16 between activations and weights, halved
MIN_EXPONENT = 2.0
MAX_EXPONENT = 10
MAX_CHANNELS = 64  # of one operator; where there are more, they are no outliers
SPREAD = 3.0  # a normalized value is seldom larger


@dataclass(frozen=True, slots=True)
class Smoothing:
    """For each place, such as `h.0.ln_1` or `h.0.attn.values`, the channels whose activations are
    divided by 2**exponent.
    """

    exponents: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Smoothing:
        """What `export` or `quantize` left there; none where there is nothing, or
        something else.
        """
        described, width = manifest.provenance.get(KEY), manifest.config.n_embd
        found: dict[str, dict[int, int]] = {}
        for place, pairs in described.items() if isinstance(described, dict) else ():
            if not isinstance(pairs, dict):
                continue
            found[place] = {
                int(channel): exponent
                for channel, exponent in pairs.items()
                if channel.isdecimal()
                and int(channel) < width
                and type(exponent) is int
                and abs(exponent) <= MAX_EXPONENT
            }
        return cls(found)

    @property
    def provenance(self) -> dict[str, Any]:
        """For the manifest: nothing where nothing was smoothed."""
        described = {
            place: {str(channel): exponent for channel, exponent in channels.items()}
            for place, channels in self.exponents.items()
        }
        return {KEY: described} if described else {}

    def factors(self, place: str, width: int) -> FloatArray | None:
        """What the activations of a place are divided by, float32 [C]; None where all are 1."""
        channels = self.exponents.get(place)
        if not channels:
            return None
        factors = np.ones(width, np.float32)
        factors[list(channels)] = np.exp2(np.array(list(channels.values()), np.float32))
        return factors

    def scale_of(self, name: str, width: int) -> FloatArray | None:
        """What the parameter `name` of `GPT.state_dict()` is multiplied by, to be broadcast over
        it; None: by 1.
        """
        layer, _, part = name.rpartition(".")[0].partition(".")[2].partition(".")
        if not name.startswith("h.") or not part:
            return None
        prefix, is_weight = f"h.{layer}.", name.endswith(".weight")
        if part in NORMS:
            written = self.factors(prefix + part, width)
            return None if written is None else np.reciprocal(written)
        if part == READER:
            return self.factors(prefix + VALUES, width) if is_weight else None
        reads = next((norm for norm, reader in NORMS.items() if reader == part), None)
        scale = self.factors(prefix + reads, width) if reads and is_weight else None
        values = self.factors(prefix + VALUES, width) if part == "attn.c_attn" else None
        if values is None:
            return scale
        rows = np.concatenate([np.ones(2 * width, np.float32), np.reciprocal(values)])
        if not is_weight:
            return rows
        return rows[:, None] if scale is None else rows[:, None] * scale

    def restore(
        self, trace: Mapping[ReferenceOperator, FloatArray], config: GPTConfig
    ) -> dict[ReferenceOperator, FloatArray]:
        """What a smoothed graph left behind, as the reference would have it."""
        restored = dict(trace)
        for layer in range(config.n_layer):
            for norm in NORMS:
                self._multiply(
                    restored,
                    ReferenceOperator(layer, norm),
                    self.factors(f"h.{layer}.{norm}", config.n_embd),
                )
            values = self.factors(f"h.{layer}.{VALUES}", config.n_embd)
            if values is not None:
                rows = np.concatenate([np.ones(2 * config.n_embd, np.float32), values])
                self._multiply(restored, ReferenceOperator(layer, "attn.c_attn"), rows)
                self._multiply(restored, ReferenceOperator(layer, "attn.attention"), values)
        return restored

    @staticmethod
    def _multiply(
        trace: dict[ReferenceOperator, FloatArray],
        place: ReferenceOperator,
        factors: FloatArray | None,
    ) -> None:
        if factors is not None and place in trace and trace[place].shape[-1] == factors.size:
            trace[place] = trace[place] * factors

    @contextmanager
    def applied(self, model: GPT) -> Iterator[GPT]:
        """The reference with smoothed weights, for as long as it lasts; its logits are the same
        bits.
        """
        scales = {
            name: torch.from_numpy(factors)
            for name in model.state_dict()
            if (factors := self.scale_of(name, model.config.n_embd)) is not None
        }
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, scale in scales.items():
                parameters[name].mul_(scale)
            try:
                yield model
            finally:
                for name, scale in scales.items():
                    parameters[name].div_(scale)


@dataclass(frozen=True, slots=True)
class SmoothedSource:
    """A source of weights, smoothed on their way."""

    source: WeightSource
    smoothing: Smoothing

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self.source.config

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model."""
        return self.source.task

    def tensor(self, name: str) -> FloatArray:
        """As the source's, or a smoothed copy."""
        array = self.source.tensor(name)
        scale = self.smoothing.scale_of(name, self.config.n_embd)
        return array if scale is None else array * scale

    def release(self, name: str) -> None:
        """Give back the source's memory."""
        self.source.release(name)


def smooth(source: WeightSource, graph: str, scheme: str) -> SmoothedSource:
    """The source for a quantized graph: outlier channels are smoothed where activations are
    quantized with them.
    """
    activations = SCHEMES[scheme].activations
    has_outlier_cost = graph == "edge" and activations in SMOOTHED_ACTIVATIONS
    return SmoothedSource(source, find_smoothing(source) if has_outlier_cost else Smoothing())


def find_smoothing(source: WeightSource) -> Smoothing:
    """Which channels of which places stand out; reads the weights of every layer once, one at a
    time.
    """
    config, found = source.config, dict[str, dict[int, int]]()
    for layer in range(config.n_layer):
        prefix = f"h.{layer}."
        is_pre = config.norm == "pre"
        c_attn = _read(source, f"{prefix}attn.c_attn.weight")
        gain = (
            _read(source, f"{prefix}ln_1.weight") if is_pre else np.ones(config.n_embd, np.float32)
        )
        shift = (
            _read(source, f"{prefix}ln_1.bias") if is_pre else np.zeros(config.n_embd, np.float32)
        )
        rows, bias = (
            c_attn[2 * config.n_embd :],
            _read(source, f"{prefix}attn.c_attn.bias")[2 * config.n_embd :],
        )
        values = np.abs(bias + rows @ shift) + SPREAD * np.linalg.norm(rows * gain, axis=1)
        sizes = {VALUES: (values, _column_sizes(_read(source, f"{prefix}{READER}.weight")))}
        if is_pre:
            sizes["ln_1"] = np.abs(shift) + SPREAD * np.abs(gain), _column_sizes(c_attn)
            gain, shift = _read(source, f"{prefix}ln_2.weight"), _read(source, f"{prefix}ln_2.bias")
            reader = _column_sizes(_read(source, f"{prefix}mlp.c_fc.weight"))
            sizes["ln_2"] = np.abs(shift) + SPREAD * np.abs(gain), reader
        for place, (activations, weights) in sizes.items():
            channels = _exponents(activations, weights)
            if channels:
                found[prefix + place] = channels
    return Smoothing(found)


def _read(source: WeightSource, name: str) -> FloatArray:
    """A copy."""
    array = np.array(source.tensor(name), np.float32)
    source.release(name)
    return array


def _column_sizes(weight: FloatArray) -> NDArray[Any]:
    """How large the largest weight of each column [K] is beside its row [N, K], which is rounded
    with a scale of its own.
    """
    rows = np.sqrt(np.mean(np.square(weight), axis=1, keepdims=True))
    sizes: NDArray[Any] = np.abs(
        np.divide(weight, rows, out=np.zeros_like(weight), where=rows > 0)
    ).max(0)
    return sizes


def _exponents(activations: NDArray[Any], weights: NDArray[Any]) -> dict[int, int]:
    """Channel and exponent of those that stand out, at most MAX_CHANNELS."""
    if not (np.median(activations) > 0 and np.median(weights) > 0):
        return {}
    floors = 2.0**-MAX_EXPONENT * np.median(activations), 2.0**-MAX_EXPONENT * np.median(weights)
    ratio = 0.5 * np.log2(np.maximum(activations, floors[0]) / np.maximum(weights, floors[1]))
    ratio -= np.median(ratio)
    chosen = [
        int(c)
        for c in np.argsort(-np.abs(ratio), kind="stable")[:MAX_CHANNELS]
        if abs(ratio[c]) >= MIN_EXPONENT
    ]
    return {
        channel: int(np.clip(np.rint(ratio[channel]), -MAX_EXPONENT, MAX_EXPONENT))
        for channel in sorted(chosen)
    }
