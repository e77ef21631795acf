"""The keyword arguments of one generation: fields of SamplingParams, and how the call works.

One table of names and types for all methods that take them; each says `**settings: Unpack[…]`, so
that type checkers know every name, and `shows_settings` lets `help()` show them.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from gpt_edge.generate.context import ContextPolicy
from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.params import SamplingParams, SamplingSettings, params_with
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.generate.prompt import Truncate
from gpt_edge.generate.read_sequence import ReadSequence

if TYPE_CHECKING:
    from gpt_edge.generate.text_generator import TextGenerator

Speculation: TypeAlias = 'Literal["lookup"] | TextGenerator | None'
Method = TypeVar("Method", bound=Callable[..., Any])


class GenerationSettings(SamplingSettings, total=False):
    """What `generate_ids` takes by name; see `Generator.stream`."""

    cancel: threading.Event | None
    processors: Sequence[LogitsProcessor]
    context: ContextPolicy
    keep_first: int
    sequence: ReadSequence | None
    prefix_cache: PrefixCache | Literal[False] | None
    speculate: Speculation


class TextSettings(GenerationSettings, total=False):
    """What `stream`, `complete` and `astream` take by name; see `Generator.stream`."""

    truncate: Truncate | None
    special: bool


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Those that are no SamplingParams, with their defaults."""

    truncate: Truncate | None = None
    special: bool = False
    cancel: threading.Event | None = None
    processors: Sequence[LogitsProcessor] = ()
    context: ContextPolicy = "error"
    keep_first: int = 0
    sequence: ReadSequence | None = None
    prefix_cache: PrefixCache | Literal[False] | None = None
    speculate: Speculation = None


_OPTIONS = {item.name: item.default for item in dataclasses.fields(CallOptions)}
_DEFAULTS = {item.name: item.default for item in dataclasses.fields(SamplingParams)} | _OPTIONS


def split_settings(
    params: SamplingParams | None,
    settings: GenerationSettings,
    kind: type[GenerationSettings] = TextSettings,
) -> tuple[SamplingParams, CallOptions]:
    """`params` with those settings that are its fields, and the others. kind: what the method
    takes. Raises as `params_with`.
    """
    taken = _OPTIONS.keys() & kind.__annotations__.keys()
    options: dict[str, Any] = {}
    fields: Any = {}
    for name, value in settings.items():
        (options if name in taken else fields)[name] = value
    return params_with(params, fields, taken), CallOptions(**options)


def shows_settings(kind: type[SamplingSettings]) -> Callable[[Method], Method]:
    """For a method whose `**settings` are of `kind`: the signature that `help()` shows has each
    of them by name, with its default.
    """
    named = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_DEFAULTS[name],
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for name, annotation in kind.__annotations__.items()
    ]

    def with_signature(method: Method) -> Method:
        signature = inspect.signature(method)
        parameters = [*signature.parameters.values()][:-1]  # the last is **settings
        shown: Any = method
        shown.__signature__ = signature.replace(parameters=[*parameters, *named])
        return method

    return with_signature
