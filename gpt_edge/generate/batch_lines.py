"""Prompts in JSON Lines and their results: what `generate --batch` reads and writes.

A line is an object with `prompt`, perhaps an `id`, and fields of SamplingParams by name, which take
the place of the command's. A result has the number of its line and a hash of what made it, so that
a run that was interrupted can continue. Knows no file names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.batch_handle import BatchHandle
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.context import ContextPolicy, check_context
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams, params_with
from gpt_edge.generate.prompt import Truncate

MAX_LINE_BYTES = 16 << 20
_WINDOW = 4  # batches of lines that are under way: a long text holds up the order, not the others
_FIELDS = [item.name for item in dataclasses.fields(SamplingParams)]


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line that is not blank. number: from 1. hash: of the line and of the run's settings."""

    number: int
    content: bytes
    hash: str
    is_too_long: bool = False


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a line asks for."""

    prompt: str
    params: SamplingParams
    id: object = None


def read_lines(stream: BinaryIO, settings: str) -> Iterator[BatchLine]:
    """The lines of a file, one at a time, without blank ones. settings: what else decides about the
    results, as a text.
    """
    number = 0
    while content := stream.readline(MAX_LINE_BYTES):
        number += 1
        is_too_long = len(content) == MAX_LINE_BYTES and not content.endswith(b"\n")
        more = content
        while is_too_long and more and not more.endswith(b"\n"):
            more = stream.readline(MAX_LINE_BYTES)
        content = content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content
        if content.strip():
            made_by = hashlib.sha256(settings.encode() + b"\n" + content.strip())
            yield BatchLine(number, content, made_by.hexdigest()[:16], is_too_long)


def parse_line(line: BatchLine, defaults: SamplingParams) -> BatchRequest:
    """Raises ValueError for a line that is no request, naming what is wrong."""
    if line.is_too_long:
        raise ValueError(f"the line has more than {MAX_LINE_BYTES >> 20} MiB")
    try:
        values = json.loads(line.content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the line is not UTF-8: byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the line must be an object with a prompt, got {values!r:.60}")
    prompt = values.pop("prompt", None)
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be a string, got {prompt!r:.60}")
    id = values.pop("id", None)
    if isinstance(values.get("logit_bias"), dict):
        values["logit_bias"] = _with_ids(values["logit_bias"])
    try:
        params = params_with(defaults, values)  # type: ignore[arg-type]  # checked there
    except TypeError as error:
        raise ValueError(str(error)) from error
    return BatchRequest(prompt, params, id)


def generate_lines(
    generator: Generator,
    lines: Iterator[BatchLine],
    defaults: SamplingParams,
    *,
    batch_size: int,
    truncate: Truncate | None = None,
    special: bool = False,
    context: ContextPolicy = "error",
    keep_first: int = 0,
) -> Iterator[dict[str, Any]]:
    """The result of each line, in order, as soon as those before it are there. `batch_size` texts
    are generated at a time. An error of a line is its result.
    """
    check_context(context, keep_first, generator.session.config.n_ctx)
    engine = BatchEngine(generator, max_batch=batch_size, interleave=False)
    waiting: deque[tuple[BatchLine, object, BatchHandle | Exception]] = deque()
    with engine:
        for line in lines:
            id: object = None
            try:
                request = parse_line(line, defaults)
                id = request.id
                handle: BatchHandle | Exception = engine.add(
                    request.prompt,
                    request.params,
                    truncate=truncate,
                    special=special,
                    context=context,
                    keep_first=keep_first,
                )
            except (GPTEdgeError, ValueError) as error:
                handle = error
            waiting.append((line, id, handle))
            if len(waiting) >= _WINDOW * batch_size:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _result(line: BatchLine, id: object, handle: BatchHandle | Exception) -> dict[str, Any]:
    start: dict[str, Any] = {"line": line.number, "hash": line.hash}
    if id is not None:
        start["id"] = id
    try:
        if isinstance(handle, Exception):
            raise handle
        return start | _values(handle.result())
    except GPTEdgeError as error:
        hint = {} if error.cli_hint is None else {"hint": error.cli_hint}
        return start | {"error": error.message} | hint
    except ValueError as error:
        return start | {"error": str(error)}


def _values(done: Completion) -> dict[str, Any]:
    """Of a text. No times: the same run again gives the same file."""
    values: dict[str, Any] = {
        "text": done.text,
        "finish_reason": done.finish_reason,
        "prompt_tokens": done.prompt_tokens,
        "dropped_tokens": done.dropped_tokens,
        "completion_tokens": done.completion_tokens,
        "seed": done.seed,
    }
    if done.is_constraint_met is not None:
        values["is_constraint_met"] = done.is_constraint_met
    if done.logprobs is not None:
        values["cumulative_logprob"] = done.cumulative_logprob
        values["logprobs"] = [dataclasses.asdict(entry) for entry in done.logprobs]
    if done.prompt_logprobs is not None:
        values["prompt_logprobs"] = [dataclasses.asdict(entry) for entry in done.prompt_logprobs]
    return values


def _with_ids(bias: dict[str, object]) -> dict[object, object]:
    """JSON has only strings as names."""
    return {int(id) if id.isascii() and id.isdigit() else id: value for id, value in bias.items()}
