"""The exception tree, and `require`, which turns a missing extra into one clear line.

    GPTEdgeError                     exit code 1: message on one line, hint on the next
    ├── BundleError                  a bundle that is missing, corrupt, or of a newer version
    │   └── SignatureError           one that is not signed, or not as it was signed; a wrong key
    ├── CheckpointError              a checkpoint that is missing, corrupt, unsafe or unsupported
    ├── TokenizerError               a tokenizer file, or text that it cannot encode
    ├── ContextLengthError           more tokens than the context holds
    ├── ConstraintError              a constraint that the model's tokens cannot follow further
    ├── NumericError                 NaN or infinite values
    ├── BusyError                    more requests than may wait
    ├── StateError                   a saved state that is corrupt or another model's
    ├── OutputError                  a target that cannot be written
    ├── ExportError                  an export that cannot be done
    │   ├── ParityError              an exported graph that is out of tolerance
    │   └── BudgetError              no format meets the limits (in export.budget.run)
    ├── TrainingError                a recipe, a corpus or a run that cannot be trained
    ├── EvaluationError              a text that cannot be scored, or models that cannot be compared
    └── MissingDependencyError       a package of an extra is not installed

A caller's wrong argument is a ValueError; a runtime error is a GPTEdgeError.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing: this file is read before the command line can catch Ctrl-C
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any, Self

EXTRA_OF = {
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "optimum": "export",
    "transformers": "export",
    "tokenizers": "gpt1",
    "llguidance": "constraints",
    "jinja2": "chat",
    "prompt_toolkit": "chat",
    "huggingface_hub": "hub",
    "gguf": "gguf",
}


MAX_MESSAGE = 1000  # characters: a message may quote what a file or a caller gave


def _shown(message: str) -> str:
    """A message that is one line of at most MAX_MESSAGE characters, and that no terminal obeys."""
    if not message.isprintable():
        message = "".join(map(_escaped, message))
    if len(message) <= MAX_MESSAGE:
        return message
    half = MAX_MESSAGE // 2 - 20
    return f"{message[:half]} ... ({len(message)} characters) ... {message[-half:]}"


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class GPTEdgeError(Exception):
    """Anything gpt-edge refuses or could not do. `hint` is a command to run, a thing to check or an
    argument to give.

    cli_hint: what the command line shows in place of `hint`, where an option stands for an argument
    of Python; None takes `hint`.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, cli_hint: str | None = None
    ) -> None:
        self.message = _shown(message)
        super().__init__(self.message)
        self.hint = hint
        self.cli_hint = cli_hint or hint

    def within(self, place: str) -> Self:
        """The same error, its message begun with `place: `, such as the number of an example."""
        return type(self)(f"{place}: {self.message}", hint=self.hint, cli_hint=self.cli_hint)


class GPTEdgeWarning(UserWarning):
    """Something to know that stops nothing; the command line prints it in one line."""


class BundleError(GPTEdgeError):
    """A bundle that is missing, corrupt, newer than this version, or not a bundle."""


class SignatureError(BundleError):
    """A bundle that is not signed, or not as it was signed, or a key that cannot be used."""


class CheckpointError(GPTEdgeError):
    """A checkpoint that is missing, corrupt, unsafe, or of another architecture."""


class TokenizerError(GPTEdgeError):
    """A tokenizer file that is missing or wrong, or text that it cannot encode."""


class ContextLengthError(GPTEdgeError):
    """More tokens than the model's context holds."""


class ConstraintError(GPTEdgeError):
    """A constraint that no token of the model can follow further, or that is too complex."""


class NumericError(GPTEdgeError):
    """NaN or infinite logits, weights or loss: nothing after it can be trusted."""


class BusyError(GPTEdgeError):
    """More requests than a BatchEngine lets wait: try again later."""


class StateError(GPTEdgeError):
    """A saved state that is corrupt, of a newer format, or of another model."""


class OutputError(GPTEdgeError):
    """A target that exists, is busy, is not writable, or does not fit on the disk."""


class ExportError(GPTEdgeError):
    """An export that cannot be done, or lost an operator on the way."""


class ParityError(ExportError):
    """An exported graph whose outputs differ too much from its reference's. `figures` is what was
    measured, by section and name.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        cli_hint: str | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, cli_hint=cli_hint)
        self.figures = dict(figures or {})


class TrainingError(GPTEdgeError):
    """A recipe or corpus that cannot be trained on, or a run that cannot resume."""


class EvaluationError(GPTEdgeError):
    """A text that cannot be scored, or models that cannot be compared on it."""


class MissingDependencyError(GPTEdgeError):
    """A package of an extra is not installed."""


def require(package: str, extra: str | None = None) -> ModuleType:
    """Import and return `package`, or raise MissingDependencyError naming the pip command that
    brings it.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = (error.name or package).partition(".")[0]
        extra = extra or EXTRA_OF.get(top, "export")
        raise MissingDependencyError(
            f"this needs the package {top!r}, which is not installed",
            hint=f"pip install 'gpt-edge[{extra}]'",
        ) from error
