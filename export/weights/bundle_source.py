"""An fp32 bundle as a source of weights, so that `quantize` takes the same steps as `export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.export.weights.source import unpad_heads
from gpt_edge.reference.heads import HEAD_TENSORS, TaskModel
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import FP32, SCHEMES
from gpt_edge.tasks import TaskSpec


class BundleSource:
    """The weights of an fp32 bundle by the names of `GPT.state_dict()`, read one at a time.

    Raises BundleError for a bundle whose weights are quantized already, that gpt-edge did not
    write, or whose graph the gate refuses.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not SCHEMES[bundle.scheme].is_float or bundle.is_optimum_export:
            found = (
                "was not written by gpt-edge" if bundle.is_optimum_export else f"is {bundle.scheme}"
            )
            raise BundleError(
                f"{bundle.path} {found}; rounding starts from an fp32 bundle",
                hint=f"make one with gpt-edge export SOURCE OUT --scheme {FP32.name}",
            )
        self._bundle = bundle
        checked_model(bundle)
        _check_links(bundle)
        self._initializers = ir.load(bundle.model_path).graph.initializers

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self._bundle.path

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self._bundle.config

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model."""
        return self._bundle.manifest.task

    def tensor(self, name: str) -> FloatArray:
        """The parameter as the reference has it, a copy of the caller's own. Raises BundleError if
        the graph lacks it.
        """
        value = self._initializers.get(name)
        if value is None or not isinstance(value.const_value, ir.ExternalTensor):
            raise BundleError(f"{self._bundle.model_path} has no weight {name}")
        array = value.const_value.numpy()
        # [K, N]; a Gemm has it as the reference
        if any(use.node.op_type == "MatMul" for use in value.uses()):
            array = array.T
        if self._bundle.graph == "edge":
            array = unpad_heads(name, array, self.config)
        copy = np.array(array, np.float32, order="C")
        del array
        # onnx_ir maps the whole file again for each tensor, and would keep every mapping
        value.const_value.release()
        return copy

    def release(self, name: str) -> None:
        """Nothing: what `tensor` returned is a copy."""


def _check_links(bundle: Bundle) -> None:
    """Raise BundleError for a file under two names: onnx_ir reads no weights from such a one."""
    for name in bundle.manifest.files:
        path = bundle.path / name
        if (n_links := path.stat().st_nlink) > 1:
            raise BundleError(
                f"{path} has {n_links} names (hard links), and onnx reads weights from files with "
                "one alone",
                hint="copy the bundle with cp -r, and give the copy",
            )


def model_of(source: BundleSource) -> GPT | TaskModel:
    """The reference with a bundle's weights, in evaluation mode; of a task with its head, and with
    a language model's head that nothing reads. Raises BundleError as `tensor`.
    """
    model = GPT(dataclasses.replace(source.config, n_label=None))
    names = set(model.state_dict())
    if source.config.tied_embeddings or source.task is not None:
        names.discard("lm_head.weight")
    tensors = {name: torch.from_numpy(source.tensor(name)) for name in sorted(names)}
    model.load_state_dict(tensors, strict=False)
    if source.task is None:
        return model.eval()
    with_head = TaskModel(model, source.task)
    with_head.load_head({name: torch.from_numpy(source.tensor(name)) for name in HEAD_TENSORS})
    return with_head.eval()
