"""Models for the `llm` tool: `llm -m gpt-edge/tinystories-7m-int8 "Once upon a time"`.

Loaded by `llm` through the entry point of the package; the extra `llm` brings the tool. Built-in
bundles that generate text are models, and so is every bundle, or link to one, in the folder
`gpt-edge` of llm's own folder. These are base models: a conversation is one text that goes on.
Source: llm.datasette.io, "Developing a model plugin".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

from gpt_edge.bundle.manifest import MANIFEST_FILE
from gpt_edge.bundle.reader import BUILTIN, RENAMED, builtin_bundles
from gpt_edge.errors import GPTEdgeError

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams

SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_models(register: Callable[..., None]) -> None:
    """Called by llm when it starts: reads manifests, and loads no model."""
    folders = {name: BUILTIN / name for name in builtin_bundles()}
    own = Path(llm.user_dir()) / "gpt-edge"
    if own.is_dir():
        folders |= {path.name: path for path in sorted(own.iterdir())}
    for name, folder in folders.items():
        if generates_text(folder):
            register(EdgeModel(name, folder))
    for old in RENAMED.keys() - folders.keys():
        register(RenamedModel(old, Path(old)))


def generates_text(folder: Path) -> bool:
    """Whether a folder is a bundle, and no classifier. What is wrong with it is said when it is
    used.
    """
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("task") is None


class EdgeOptions(llm.Options):  # type: ignore[misc]
    """Options of `llm -o`: fields of SamplingParams."""

    max_new_tokens: int | None = Field(None, description="Maximum number of new tokens")
    temperature: float | None = Field(None, description="Sampling temperature; 0 is greedy")
    top_k: int | None = Field(None, description="Sample from so many most likely tokens")
    top_p: float | None = Field(None, description="Sample from tokens of this probability")
    min_p: float | None = Field(None, description="Sample from tokens this times as likely")
    repetition_penalty: float | None = Field(None, description="Above 1: fewer repetitions")
    seed: int | None = Field(None, description="The same seed gives the same text")
    stop: str | None = Field(None, description="Stop before this text")
    regex: str | None = Field(None, description="The whole text matches this pattern")


class EdgeModel(llm.Model):  # type: ignore[misc]
    """One bundle, loaded when it is first prompted."""

    can_stream = True
    supports_schema = True
    Options = EdgeOptions

    def __init__(self, name: str, folder: Path) -> None:
        self.model_id = f"gpt-edge/{name}"
        self._folder = folder
        self._generator: Generator | None = None
        self._lock = threading.Lock()

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the text in pieces, or as a whole where `stream` is false. Raises llm.ModelError
        with one line, and perhaps a hint.
        """
        try:
            generator = self._loaded()
            pieces = generator.stream(text_of(prompt, conversation), params_of(prompt, generator))
            with pieces:
                yield from pieces if stream else ["".join(pieces)]
            done = pieces.completion
        except GPTEdgeError as error:
            hint = f" (hint: {error.hint})" if error.hint else ""
            raise llm.ModelError(f"{error.message}{hint}") from error
        except ValueError as error:
            raise llm.ModelError(str(error)) from error
        response.set_usage(input=done.prompt_tokens, output=done.completion_tokens)
        response.response_json = {
            "finish_reason": done.finish_reason,
            "seed": None if done.seed is None else str(done.seed),  # more than JSON's numbers hold
            "is_constraint_met": done.is_constraint_met,
        }

    def _loaded(self) -> Generator:
        from gpt_edge.generate.load import load

        with self._lock:
            if self._generator is None:
                self._generator = load(self._folder)
            return self._generator


class RenamedModel(EdgeModel):
    """A built-in name of before; `load` says in a warning which bundle takes its place."""

    def __str__(self) -> str:
        """As `llm models` lists it."""
        return f"{super().__str__()} (now gpt-edge/{RENAMED[self._folder.name]})"


def text_of(prompt: Any, conversation: Any) -> str:
    """What the model reads: all that was said so far, as one text. A system prompt leads it."""
    parts = [] if not prompt.system else [f"{prompt.system}\n\n"]
    if conversation is not None:
        parts += [f"{one.prompt.prompt}{one.text()}" for one in conversation.responses]
    return "".join([*parts, prompt.prompt])


def params_of(prompt: Any, generator: Generator) -> SamplingParams:
    """The options that were given, and the model's own defaults where none says how to sample; a
    schema becomes a constraint. Raises ValueError for a value.
    """
    from gpt_edge.generate.params import SamplingParams, params_with

    given = {name: value for name, value in prompt.options if value is not None}
    defaults = SamplingParams()
    if not any(name in given for name in SAMPLING):
        defaults = generator.generation_defaults
    if "stop" in given:
        given["stop"] = (given["stop"],)
    if (pattern := given.pop("regex", None)) is not None:
        given["constraint"] = {"regex": pattern}
    if prompt.schema is not None:
        if "constraint" in given:
            raise ValueError("a schema and -o regex exclude each other: a text has one form")
        given["constraint"] = {"json_schema": prompt.schema}
    return params_with(defaults, given)  # type: ignore[arg-type]  # checked there
