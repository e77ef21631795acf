"""How well a model predicts a text, and how far one model is from another, through any Scorer.

`measures.py` and `compare.py` define the measures, `windows.py` and `run.py` are the protocol.
Imports no torch, and no onnxruntime until a session is opened.
"""

from __future__ import annotations

from gpt_edge.evaluate.compare import Comparison
from gpt_edge.evaluate.corpus import EvaluationSettings, check_same_tokens
from gpt_edge.evaluate.documents import Score, compare_documents, score_documents
from gpt_edge.evaluate.lambada import LambadaScore
from gpt_edge.evaluate.measures import (
    Estimate,
    TextScore,
    log_softmax,
    negative_log_likelihood,
)
from gpt_edge.evaluate.run import Models, Step, TextReport, evaluate_lambada, evaluate_text
from gpt_edge.evaluate.scorer import Scorer, SessionScorer
from gpt_edge.evaluate.state import EvaluationState, fingerprint
from gpt_edge.evaluate.windows import windows

__all__ = [
    "Comparison",
    "Estimate",
    "EvaluationSettings",
    "EvaluationState",
    "LambadaScore",
    "Models",
    "Score",
    "Scorer",
    "SessionScorer",
    "Step",
    "TextReport",
    "TextScore",
    "check_same_tokens",
    "compare_documents",
    "evaluate_lambada",
    "evaluate_text",
    "fingerprint",
    "log_softmax",
    "negative_log_likelihood",
    "score_documents",
    "windows",
]
