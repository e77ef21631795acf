"""Does the exported graph say what the reference says? torch against fp32 ONNX against the quantised graph, and each
graph against itself on every path a prompt can take. What is out of tolerance stops the publication.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gpt_edge import parity
from gpt_edge.parity import FloatArray, IntArray, Probe
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.session import Session
from gpt_edge.verification import Progress, Verification, check_paths

# max |difference| of logits, as a share of their spread within a row (and at least as if that were 1).
REFERENCE_TOLERANCE = 1e-3  # torch against ONNX fp32: summation order (RELIABILITY N1)
# Mean KL in nats against fp32. The gate is for broken graphs; how good a scheme is, the figures themselves say.
QUANTIZED_KL = {"int8": 5e-3, "int8-block": 5e-3, "int4": 0.5, "int8-dynamic": 2.0}
N_GREEDY, N_PROMPT = 32, 12


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said to the probes: logits [rows, V] of each, and its greedy continuation of the first.

    gaps: the logit margin of each greedy choice over the second best; known for the reference only.
    """

    logits: list[FloatArray]
    greedy: list[int]
    gaps: tuple[float, ...] = ()


def ask_reference(checkpoint: Checkpoint, probes: list[Probe]) -> Answers:
    """Run the probes through torch fp32. The model is loaded and dropped here, so that its memory is free afterwards."""
    model = checkpoint.load_model()
    with torch.inference_mode():
        logits = [_reference_logits(model, probe) for probe in probes]
        tokens, gaps = reference_greedy(model, probes[0].ids[:N_PROMPT], N_GREEDY)
    return Answers(logits, tokens, gaps)


def _reference_logits(model: GPT, probe: Probe) -> FloatArray:
    hidden, _ = model.hidden(torch.from_numpy(probe.ids)[None])
    return model.lm_head(hidden[0, probe.first_row :]).numpy()  # type: ignore[no-any-return]


def reference_greedy(model: GPT, prompt: IntArray, n_new: int) -> tuple[list[int], tuple[float, ...]]:
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


def ask_session(session: Session, probes: list[Probe]) -> Answers:
    """Run the probes through onnxruntime."""
    return Answers(
        [parity.answer(session, probe) for probe in probes], parity.greedy(session, probes[0].ids[:N_PROMPT], N_GREEDY)
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """Holds graphs against one reference. `reference` is its name in the figures: "torch" or "fp32"."""

    reference: str
    probes: list[Probe]
    wanted: Answers
    progress: Progress
    report: Verification = field(default_factory=Verification)

    def check(self, session: Session, scheme: str) -> None:
        """Record how a graph of this scheme agrees with the reference, and with itself on every path."""
        self.progress(f"checking {scheme} against {self.reference}")
        self._against_reference(session, scheme)
        self.progress(f"checking the paths of {scheme}")
        check_paths(self.report, session, self.probes, scheme)

    def _against_reference(self, session: Session, scheme: str) -> None:
        section, found = f"{self.reference} against {scheme}", ask_session(session, self.probes)
        agreement = parity.compare(self.probes, self.wanted.logits, found.logits)
        if scheme != "fp32":
            self.report.add(section, "logits", agreement, {"mean_kl": QUANTIZED_KL[scheme]}, excuse_ties=False)
            return
        limit = REFERENCE_TOLERANCE * max(1.0, agreement.spread)
        self.report.add(section, "logits", agreement, {"max_difference": limit, "mean_kl": 1e-6}, excuse_ties=True)
        noise = min(agreement.noise, parity.NEAR_TIE * agreement.spread)
        self.report.add_greedy(section, self.wanted.greedy, found.greedy, self.wanted.gaps, noise)
