"""Does the exported classifier say what the fine-tuned model says? torch against fp32 ONNX against
the quantised graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle, FileRecord, Manifest
from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.build import MODEL_FILE
from gpt_edge.reference.checkpoint import task_model_of
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.runtime.batching import batches, pad
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify.classifiers import (
    TaskProbes,
    check_alone,
    compare_tasks,
    scale_of,
    task_probes,
    unexplained,
)
from gpt_edge.verify.report import Progress, Verification, silent

REFERENCE_TOLERANCE = (
    # max |difference| of logits, torch against fp32: summation order; of their spread, at least 1
    1e-4
)
# Mean KL in nats of the classes' or answers' probabilities, and for scores the difference of the
# logit. The gate is for broken graphs: how good a scheme is, the figures themselves say.
QUANTIZED_KL = {"int8": 2e-2, "int8-block": 2e-2, "int4": 0.5}
QUANTIZED_SCORE = {"int8": 0.3, "int8-block": 0.3, "int4": 2.0}
BATCH = 16


def reference_logits(model: TaskModel, probes: TaskProbes) -> FloatArray:
    """Logits [E, n_label] by torch in float32, in batches of like lengths."""
    per_example = 2 if model.spec.kind == "similarity" else 1
    found = np.empty((len(probes.sequences) // per_example, model.spec.n_label), np.float32)
    with torch.inference_mode():
        for rows in batches([len(ids) for ids in probes.sequences], BATCH, per_example):
            ids, lengths = pad([probes.sequences[row] for row in rows])
            logits, _ = model(torch.from_numpy(ids), torch.from_numpy(lengths - 1))
            found[rows[::per_example] // per_example] = logits.reshape(
                -1, model.spec.n_label
            ).numpy()
    return found


def open_task_folder(
    folder: Path, config: GPTConfig, graph: str, scheme: str, task: TaskSpec
) -> Encoder:
    """An encoder on a graph that lies in a folder which is no bundle yet."""
    files: dict[str, FileRecord] = {MODEL_FILE: {"size": 0, "sha256": "0" * 64}}
    writer = Manifest(
        name="writer",
        kind="task",
        graph=graph,
        scheme=scheme,
        config=config,
        task=task,
        files=files,
    )
    return Encoder(Bundle(folder, writer))


@dataclass(frozen=True, slots=True)
class TaskVerifier:
    """Holds graphs of one task against one reference, "torch" or "fp32"."""

    reference: str
    probes: TaskProbes
    wanted: FloatArray
    progress: Progress
    report: Verification = field(default_factory=Verification)

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Checkpoint, words: Tokenizer | None, progress: Progress = silent
    ) -> TaskVerifier:
        """Ask torch. The model is loaded and dropped here."""
        assert checkpoint.task is not None
        probes = task_probes(checkpoint.config, checkpoint.task, words)
        return cls("torch", probes, reference_logits(task_model_of(checkpoint), probes), progress)

    @classmethod
    def of_bundle(
        cls, bundle: Bundle, words: Tokenizer | None, progress: Progress = silent
    ) -> TaskVerifier:
        """Ask an fp32 bundle."""
        assert bundle.task is not None
        probes = task_probes(bundle.config, bundle.task, words)
        return cls("fp32", probes, Encoder(bundle).logits(probes.sequences), progress)

    def check(self, encoder: Encoder, scheme: str) -> None:
        """Record how a graph of this scheme agrees with the reference, and with itself."""
        self.progress(f"checking {scheme} against {self.reference}")
        found = encoder.logits(self.probes.sequences)
        agreement = compare_tasks(self.probes, self.wanted, found)
        section, scale = f"{self.reference} against {scheme}", scale_of(agreement, self.wanted)
        if scheme == "fp32":
            limits = {"max_difference": REFERENCE_TOLERANCE * scale}
        elif self.probes.by_example(self.wanted)[0].size == 1:
            limits = {"max_difference": QUANTIZED_SCORE[scheme] * scale}
        else:
            limits = {"mean_kl": QUANTIZED_KL[scheme]}
        self.report.add(section, "labels", agreement, limits, excuse_ties=False)
        if fault := unexplained(agreement):
            self.report.faults.append(f"{section}: {fault}")
            self.report.figures[section]["labels"]["ok"] = False
        self.progress(f"checking the paths of {scheme}")
        check_alone(self.report, encoder, self.probes, scheme)
