"""Quantized weights on demand. Those that need calibration are computed beforehand, layer by layer,
and cached on disk.

One Rounder serves the measurements and every graph that is built, so GPTQ runs once for each weight
and format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.budget.calibration import Rows, layer_hessians
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.rounding import quantize_weight
from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.weights.source import WeightSource, pad_heads


class Rounder:
    """rounder(name, weight, form): `weight` [N, K] in the graph's layout, heads padded, quantized
    to `form`.

    folder: an empty one for the results of `prepare`; needed as long as the rounder.
    """

    def __init__(self, config: GPTConfig, graph: str, folder: Path) -> None:
        self._config = config
        self._graph = graph
        self._folder = folder
        self._files: dict[tuple[str, TensorFormat], Path] = {}

    def __call__(self, name: str, weight: FloatArray, form: TensorFormat) -> QuantizedWeight:
        """Raises ValueError for a gptq format that was not prepared."""
        if (name, form) in self._files:
            with np.load(self._files[name, form]) as arrays:
                zeros = arrays.get("zeros", None)
                return QuantizedWeight(form.bits, arrays["levels"], arrays["scales"], zeros)
        return self.plain(weight, form, self._graph)

    @staticmethod
    def plain(weight: FloatArray, form: TensorFormat, graph: str = "edge") -> QuantizedWeight:
        """Quantize without calibration."""
        return quantize_weight(weight, form, form.block_for(weight.shape[1], graph))

    def prepare(
        self,
        formats: Mapping[str, Iterable[TensorFormat]],
        source: WeightSource,
        rows: Rows,
        progress: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Run the calibration text through the reference and quantize by GPTQ the weights that have
        such a format.

        formats: by weight name. The disk holds one byte for each weight and format, memory one
        layer with its Hessians.
        """
        gptq_forms = {
            name: [form for form in of_name if form.rounding == "gptq"]
            for name, of_name in formats.items()
        }
        if not any(gptq_forms.values()):
            return
        for hessians in layer_hessians(
            source, rows, lambda name: progress("reading calibration text")
        ):
            for name, hessian in hessians.items():
                if not gptq_forms.get(name):
                    continue
                progress("rounding with GPTQ")
                progress(name)
                weight = self.padded(name, source.tensor(name))
                source.release(name)
                for form in gptq_forms[name]:
                    self._keep(name, form, weight, self._padded_hessian(name, hessian))

    def padded(self, name: str, weight: FloatArray) -> FloatArray:
        """The weight in the graph's layout."""
        return pad_heads(name, weight, self._config) if self._graph == "edge" else weight

    def _padded_hessian(self, name: str, hessian: Tensor) -> Tensor:
        """The input of attention's projection is padded within each head: rows and columns of zeros
        there.
        """
        if self._graph != "edge" or not name.endswith("attn.c_proj.weight"):
            return hessian
        once = pad_heads(name, hessian.numpy(), self._config)
        return torch.from_numpy(
            np.ascontiguousarray(pad_heads(name, np.ascontiguousarray(once.T), self._config))
        )

    def _keep(self, name: str, form: TensorFormat, weight: FloatArray, hessian: Tensor) -> None:
        rounded = quantize_weight(
            weight, form, form.block_for(weight.shape[1], self._graph), hessian
        )
        path = self._folder / f"{len(self._files)}.npz"
        arrays: dict[str, Any] = {"levels": rounded.levels, "scales": rounded.scales}
        if rounded.zeros is not None:
            arrays["zeros"] = rounded.zeros
        np.savez(path, **arrays)
        self._files[name, form] = path
