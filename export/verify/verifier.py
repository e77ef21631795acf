"""Does the exported graph say what the reference says? torch against fp32 ONNX against the
quantised graph, and each graph against itself on every path a prompt can take. What is out of
tolerance stops the publication.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import GPTEdgeError
from gpt_edge.export.verify.localize import locate
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.model import GPT, KeyValue
from gpt_edge.runtime.session import Session
from gpt_edge.verify import parity
from gpt_edge.verify.execution_paths import Effort
from gpt_edge.verify.parity import Probe
from gpt_edge.verify.report import Progress, Verification, check_paths

# max |difference| of logits, as a share of their spread within a row (and at least as if that were
# 1).
REFERENCE_TOLERANCE = 1e-3  # torch against ONNX fp32: summation order
# Mean KL in nats against fp32. The gate is for broken graphs; how good a scheme is, the figures
# themselves say.
QUANTIZED_KL = {"int8": 5e-3, "int8-block": 5e-3, "int4": 0.5, "mixed": 0.5, "int8-dynamic": 2.0}
N_GREEDY, N_PROMPT = 32, 12
# tokens of the probes that torch reads on every path, but for the effort "full"
N_REFERENCE_PATHS = 32


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said to the probes: logits [rows, V] of each, and its greedy continuation of
    the first.

    gaps: the logit margin of each greedy choice over the second best; known for the reference only.
    """

    logits: list[FloatArray]
    greedy: list[int]
    gaps: tuple[float, ...] = ()


def ask_reference(checkpoint: Checkpoint, probes: list[Probe]) -> Answers:
    """Run the probes through torch fp32. The model is loaded and dropped here, so that its memory
    is free afterwards.
    """
    model = checkpoint.load_model()
    with torch.inference_mode():
        logits = [_reference_logits(model, probe) for probe in probes]
        tokens, gaps = reference_greedy(model, probes[0].ids[:N_PROMPT], N_GREEDY)
    del model
    _return_freed_memory()
    return Answers(logits, tokens, gaps)


def _return_freed_memory() -> None:
    """Give what was freed back to the system. glibc keeps arrays below 32 MB, most of GPT-2 XL's
    6 GB, for the next one.
    """
    # not in musl
    if sys.platform.startswith("linux") and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _reference_logits(model: GPT, probe: Probe) -> FloatArray:
    hidden, _ = model.hidden(torch.from_numpy(probe.ids)[None])
    return model.lm_head(hidden[0, probe.first_row :]).numpy()  # type: ignore[no-any-return]


def reference_greedy(
    model: GPT, prompt: IntArray, n_new: int
) -> tuple[list[int], tuple[float, ...]]:
    """The most likely continuation by the reference, with its cache, and the margin of each choice.

    Stops where the context is full.
    """
    ids, past, tokens, gaps = torch.from_numpy(prompt)[None], None, [], []
    with torch.inference_mode():
        for _ in range(min(n_new, model.config.n_ctx - prompt.size)):
            logits, past = model(ids, None, past)
            best = logits[0, -1].topk(min(2, model.config.vocab_size))
            tokens.append(int(best.indices[0]))
            gaps.append(float(best.values[0] - best.values[-1]))
            ids = torch.tensor([tokens[-1:]])
    return tokens, tuple(gaps)


class ReferenceCache:
    """Keys and values of each row, as torch returned them."""

    def __init__(self, batch: int) -> None:
        self.rows: list[list[KeyValue] | None] = [None] * batch

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` tokens of every row."""
        self.rows = [
            row and [(k[:, :, :length], v[:, :, :length]) for k, v in row] for row in self.rows
        ]


class ReferenceRunner:
    """The reference with the methods of a Session: so that it, too, is held against itself on every
    path.
    """

    def __init__(self, model: GPT) -> None:
        self._model = model

    @property
    def config(self) -> GPTConfig:
        """Shape of the model."""
        return self._model.config

    def new_cache(self, batch: int = 1) -> ReferenceCache:
        """An empty cache."""
        return ReferenceCache(batch)

    def forward(
        self,
        ids: Any,
        cache: ReferenceCache,
        logit_rows: str | Sequence[int] = "last",
        *,
        row: int | None = None,
    ) -> FloatArray:
        """As Session.forward; each row is read by itself."""
        rows = range(len(cache.rows)) if row is None else (row,)
        tokens = torch.from_numpy(np.array(ids, np.int64))
        if isinstance(logit_rows, str):
            logit_rows = range(tokens.shape[1]) if logit_rows == "all" else [tokens.shape[1] - 1]
        wanted = torch.tensor(list(logit_rows))
        found = []
        with torch.inference_mode():
            for index, sequence in zip(rows, tokens, strict=True):
                hidden, cache.rows[index] = self._model.hidden(
                    sequence[None], None, cache.rows[index]
                )
                found.append(self._model.lm_head(hidden[0, wanted]).numpy())
        return np.stack(found)


def ask_session(session: Session, probes: list[Probe]) -> Answers:
    """Run the probes through onnxruntime."""
    return Answers(
        [parity.answer(session, probe) for probe in probes],
        parity.greedy(session, probes[0].ids[:N_PROMPT], N_GREEDY),
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """Holds graphs against one reference. `reference` is its name in the figures: "torch" or
    "fp32".
    """

    reference: str
    probes: list[Probe]
    wanted: Answers
    progress: Progress
    report: Verification = field(default_factory=Verification)
    effort: Effort = "export"

    def check(self, session: Session, scheme: str, name: str | None = None) -> None:
        """Record how a graph of this scheme agrees with the reference, and with itself on every
        path.

        name: of the graph in the figures; its scheme if not given.
        """
        name = name or scheme
        self.progress(f"checking {name} against {self.reference}")
        self._against_reference(session, scheme, name)
        self.progress(f"checking the paths of {name}")
        check_paths(self.report, session, self.probes, scheme, self.effort, name)

    def check_bundle(self, bundle: Bundle) -> None:
        """`check` for a graph that may be broken: that it cannot be run is a fault in the
        report.
        """
        try:
            self.check(Session(bundle), bundle.scheme)
        except GPTEdgeError as error:
            self.report.faults.append(f"{self.reference} against {bundle.scheme}: {error.message}")

    def check_reference(self, model: GPT) -> None:
        """Record how the reference agrees with itself on every path."""
        self.progress(f"checking the paths of {self.reference}")
        limit = None if self.effort == "full" else N_REFERENCE_PATHS
        short = [
            Probe(probe.name, probe.ids[:limit]) for probe in self.probes if probe.first_row == 0
        ]
        long = [probe for probe in self.probes if probe.first_row and self.effort == "full"]
        check_paths(self.report, ReferenceRunner(model), short + long, "torch", self.effort)

    def locate(self, bundle: Bundle, model: GPT) -> None:
        """Record where the bundle's weights and operators part from the reference's, the first
        place first.
        """
        found = locate(bundle, model, progress=self.progress)
        self.report.figures["weights"] = found.weights
        self.report.figures["operators"] = found.operators
        for fault in found.faults:
            self.report.add_place(fault.place.layer, fault.place.name, str(fault.place), fault.text)

    def _against_reference(self, session: Session, scheme: str, name: str) -> None:
        section, found = f"{self.reference} against {name}", ask_session(session, self.probes)
        agreement = parity.compare(self.probes, self.wanted.logits, found.logits)
        if scheme != "fp32":
            self.report.add(
                section, "logits", agreement, {"mean_kl": QUANTIZED_KL[scheme]}, excuse_ties=False
            )
            return
        limit = REFERENCE_TOLERANCE * max(1.0, agreement.spread)
        self.report.add(
            section,
            "logits",
            agreement,
            {"max_difference": limit, "mean_kl": 1e-6},
            excuse_ties=True,
        )
        noise = min(agreement.noise, parity.NEAR_TIE * agreement.spread)
        self.report.add_greedy(section, self.wanted.greedy, found.greedy, self.wanted.gaps, noise)
