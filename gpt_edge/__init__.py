"""gpt-edge: small GPTs where the user is.

    import gpt_edge

    for piece in gpt_edge.load().stream("Once upon a time"):
        print(piece, end="", flush=True)

Names are imported when they are first used, errors too, so `import gpt_edge` alone loads neither
numpy nor onnxruntime, and takes a fraction of a millisecond: a Ctrl-C before the command line runs
would end in a traceback.
"""

from __future__ import annotations

import os

from gpt_edge.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it while it is imported

# as in typing, which takes ten times as long to import as all that is imported here
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.classify.classifier import Classifier
    from gpt_edge.classify.embedder import Embedder
    from gpt_edge.classify.prediction import Prediction, Predictions
    from gpt_edge.errors import (
        BundleError,
        BusyError,
        CheckpointError,
        ConstraintError,
        ContextLengthError,
        EvaluationError,
        ExportError,
        GPTEdgeError,
        MissingDependencyError,
        NumericError,
        OutputError,
        ParityError,
        SignatureError,
        StateError,
        TokenizerError,
        TrainingError,
    )
    from gpt_edge.generate.async_stream import AsyncTextStream
    from gpt_edge.generate.batch_engine import BatchEngine
    from gpt_edge.generate.batch_handle import BatchHandle
    from gpt_edge.generate.beam_search import BeamParams
    from gpt_edge.generate.chat_template import ChatTemplate
    from gpt_edge.generate.completion import Completion
    from gpt_edge.generate.constraints.constraint import Constraint
    from gpt_edge.generate.contrastive import ContrastiveParams
    from gpt_edge.generate.conversation import Conversation
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.load import load
    from gpt_edge.generate.logprobs import TokenLogprob
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.prefix_cache import PrefixCache
    from gpt_edge.generate.read_sequence import ReadSequence
    from gpt_edge.generate.score import Choice, Score
    from gpt_edge.generate.stream import TextStream, TokenStream
    from gpt_edge.generate.turn import Turn
    from gpt_edge.runtime.session import Session

_MODULE_OF = {
    "AsyncTextStream": "generate.async_stream",
    "BatchEngine": "generate.batch_engine",
    "BatchHandle": "generate.batch_handle",
    "BeamParams": "generate.beam_search",
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "BusyError": "errors",
    "ChatTemplate": "generate.chat_template",
    "CheckpointError": "errors",
    "Choice": "generate.score",
    "Classifier": "classify.classifier",
    "Completion": "generate.completion",
    "Constraint": "generate.constraints.constraint",
    "ConstraintError": "errors",
    "ContextLengthError": "errors",
    "ContrastiveParams": "generate.contrastive",
    "Conversation": "generate.conversation",
    "Embedder": "classify.embedder",
    "EvaluationError": "errors",
    "ExportError": "errors",
    "GPTEdgeError": "errors",
    "Generator": "generate.generator",
    "MissingDependencyError": "errors",
    "NumericError": "errors",
    "OutputError": "errors",
    "ParityError": "errors",
    "Prediction": "classify.prediction",
    "Predictions": "classify.prediction",
    "PrefixCache": "generate.prefix_cache",
    "ReadSequence": "generate.read_sequence",
    "SamplingParams": "generate.params",
    "Score": "generate.score",
    "Session": "runtime.session",
    "SignatureError": "errors",
    "StateError": "errors",
    "TextStream": "generate.stream",
    "TokenLogprob": "generate.logprobs",
    "TokenStream": "generate.stream",
    "TokenizerError": "errors",
    "TrainingError": "errors",
    "Turn": "generate.turn",
    "load": "generate.load",
}

__all__ = [
    "AsyncTextStream",
    "BatchEngine",
    "BatchHandle",
    "BeamParams",
    "Bundle",
    "BundleError",
    "BusyError",
    "ChatTemplate",
    "CheckpointError",
    "Choice",
    "Classifier",
    "Completion",
    "Constraint",
    "ConstraintError",
    "ContextLengthError",
    "ContrastiveParams",
    "Conversation",
    "Embedder",
    "EvaluationError",
    "ExportError",
    "GPTEdgeError",
    "Generator",
    "MissingDependencyError",
    "NumericError",
    "OutputError",
    "ParityError",
    "Prediction",
    "Predictions",
    "PrefixCache",
    "ReadSequence",
    "SamplingParams",
    "Score",
    "Session",
    "SignatureError",
    "StateError",
    "TextStream",
    "TokenLogprob",
    "TokenStream",
    "TokenizerError",
    "TrainingError",
    "Turn",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # found directly the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
