"""Bases and adapters as subjects of a verification: an adapter as the classifier that it makes of
its base, and a base with an adapter of random numbers. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT
from gpt_edge.config import GPTConfig
from gpt_edge.native.library import Native
from gpt_edge.onnx_contract import RANK, TASK_TOKENS, adapter_inputs, cache_head_size
from gpt_edge.runtime.adapter import Adapter, adapter_of
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import N_NEW_TOKENS, TaskSpec, new_task
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify.classifiers import ClassifierSubject, task_probes
from gpt_edge.verify.report import (
    PATHS_AGREE,
    Progress,
    Verification,
    proof_line,
    silent,
    tokenizer_of,
)

SEED = 20210617
PROBE_RANK = 3
# of the random adapter: its products are about as large as fine-tuning makes them
STD_A, STD_B, STD_TOKENS = 0.05, 0.1, 0.1
PROBE_LABELS = tuple(f"class {number}" for number in range(8))


@dataclass(frozen=True, slots=True)
class BaseSubject(ClassifierSubject):
    """A base with the adapter of `probe_arrays`."""

    def open(self, bundle: Bundle, native: Native = None) -> Encoder:
        """See ClassifierSubject."""
        arrays, task = probe_arrays(bundle.config, bundle.graph)
        adapter = adapter_of(arrays, bundle.config, bundle.graph, task, Path("probe"), "probe")
        return Encoder(bundle, native=native, adapter=adapter)


@dataclass(frozen=True, slots=True)
class AdapterSubject(ClassifierSubject):
    """An adapter; what is opened is its base."""

    adapter: Bundle | Adapter | None = None

    def open(self, bundle: Bundle, native: Native = None) -> Encoder:
        """See ClassifierSubject."""
        return Encoder(bundle, native=native, adapter=self.adapter)


def base_subject(config: GPTConfig, tokenizer: Tokenizer | None) -> BaseSubject:
    """The subject for a base of this shape."""
    return BaseSubject(task_probes(config, probe_task(config), tokenizer))


def adapter_subject(adapter: Bundle, tokenizer: Tokenizer | None) -> AdapterSubject:
    """The subject for an adapter bundle. tokenizer: its base's."""
    assert adapter.task is not None
    return AdapterSubject(task_probes(adapter.config, adapter.task, tokenizer), adapter)


def probe_task(config: GPTConfig) -> TaskSpec:
    """The task of `probe_arrays`."""
    return new_task("classification", config.vocab_size - N_NEW_TOKENS, PROBE_LABELS)


def probe_arrays(config: GPTConfig, graph: str) -> tuple[dict[str, FloatArray], TaskSpec]:
    """An adapter of random numbers for a base, the same at every call, by the names of its file;
    what pads a head is zero.
    """
    rng = np.random.default_rng(SEED)
    task = probe_task(config)

    def normal(std: float, *shape: int) -> FloatArray:
        return (std * rng.standard_normal(shape)).astype(np.float32)

    arrays = {
        TASK_TOKENS: normal(STD_TOKENS, N_NEW_TOKENS, config.n_embd),
        HEAD_WEIGHT: normal(config.n_embd**-0.5, task.n_label, config.n_embd),
        HEAD_BIAS: normal(STD_TOKENS, task.n_label),
    }
    heads, size = config.n_head, config.head_size
    padded = cache_head_size(config, graph)
    for spec in adapter_inputs(config, graph)[1:]:
        shape = [PROBE_RANK if axis == RANK else int(axis) for axis in spec.axes]
        array = normal(STD_A if spec.axes[1] == RANK else STD_B, *shape)
        if spec.name.endswith("attn.c_attn.lora_b"):
            array.reshape(PROBE_RANK, 3 * heads, padded)[:, :, size:] = 0
        if spec.name.endswith("attn.c_proj.lora_a"):
            array.reshape(heads, padded, PROBE_RANK)[:, size:] = 0
        arrays[spec.name] = array
    return arrays, task


def verify_adapter_alone(
    adapter: Bundle, base: Bundle, *, progress: Progress = silent
) -> Verification:
    """Compare a base with an adapter with itself, each example alone and among others; needs no
    checkpoint and no torch. Faults are in the report; raises BundleError for what does not fit.
    """
    subject = adapter_subject(adapter, tokenizer_of(base))
    report = Verification()
    progress(f"checking the execution paths of {base.scheme}")
    subject.check_paths(report, subject.open(base), base.scheme)
    labels = ["labels"] * (adapter.task is not None and bool(adapter.task.labels))
    report.notes.append(proof_line([] if report.faults else [PATHS_AGREE], ["weights", *labels]))
    return report
