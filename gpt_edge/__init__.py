"""gpt-edge: small GPTs where the user is.

    import gpt_edge

    for piece in gpt_edge.load().stream("Once upon a time"):
        print(piece, end="", flush=True)

Names are imported when they are first used, so `import gpt_edge` alone loads neither numpy nor onnxruntime, and takes a
millisecond: a Ctrl-C before the command line runs would end in a traceback.
"""

from __future__ import annotations

import os

from gpt_edge.errors import (
    BundleError,
    CheckpointError,
    ContextLengthError,
    EvaluationError,
    ExportError,
    GPTEdgeError,
    MissingDependencyError,
    NumericError,
    OutputError,
    ParityError,
    TokenizerError,
    TrainingError,
)
from gpt_edge.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it while it is imported

TYPE_CHECKING = False  # as in typing, which takes ten times as long to import as all that is imported here
if TYPE_CHECKING:
    from typing import Any

    from gpt_edge.bundle import Bundle
    from gpt_edge.classify import Classifier, Prediction, Predictions
    from gpt_edge.embed import Embedder
    from gpt_edge.generate import Generator
    from gpt_edge.loading import load
    from gpt_edge.sampling import SamplingParams
    from gpt_edge.session import Session
    from gpt_edge.stream import Completion, TextStream, TokenStream

_MODULE_OF = {
    "Bundle": "bundle",
    "Classifier": "classify",
    "Completion": "stream",
    "Embedder": "embed",
    "Generator": "generate",
    "Prediction": "classify",
    "Predictions": "classify",
    "SamplingParams": "sampling",
    "Session": "session",
    "TextStream": "stream",
    "TokenStream": "stream",
    "load": "loading",
}

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Classifier",
    "Completion",
    "ContextLengthError",
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
    "SamplingParams",
    "Session",
    "TextStream",
    "TokenStream",
    "TokenizerError",
    "TrainingError",
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
