"""Examples for `classify` and `embed`: from arguments, lines, or JSON lines; whatever is wrong is
told by line number.

Read as a stream: an endless standard input is answered as batches of it come.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from gpt_edge.errors import ContextLengthError, GPTEdgeError, TokenizerError

MAX_LINE_BYTES = 64 << 20
UTF8_HINT = "convert it, for example with iconv -t UTF-8"
COLUMNS = {  # names that `finetune` takes where nobody names others
    "embedding": ("text",),
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("sentence1", "sentence2"),
    "multiple-choice": ("question", "choices"),
}
WANTED = {
    "embedding": "a text",
    "classification": "a text",
    "entailment": "a premise and a hypothesis",
    "similarity": "two texts",
    "multiple-choice": "a question and at least two answers",
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """Its texts, and where it stands: "standard input, line 3"; "" for an argument."""

    texts: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Keys of JSON lines. texts: of the texts, of multiple choice the question's, joined by a
    space; choices: answers.
    """

    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()


def columns_of(
    kind: str,
    text: Sequence[str] | None = None,
    premise: str | None = None,
    hypothesis: str | None = None,
    choice: Sequence[str] | None = None,
) -> Columns:
    """The keys that were named, in place of those that `finetune` has. Raises ValueError for those
    of another task.
    """
    default = COLUMNS[kind]
    if kind != "entailment" and (premise or hypothesis):
        raise ValueError(f"--premise and --hypothesis are for entailment, {kind} has --text")
    if kind != "multiple-choice" and choice:
        raise ValueError(f"--choice is for multiple-choice, not for {kind}")
    if kind == "entailment":
        if text:
            raise ValueError("entailment has --premise and --hypothesis, not --text")
        return Columns((premise or default[0], hypothesis or default[1]))
    if kind == "multiple-choice":
        return Columns(tuple(text or default[:1]), tuple(choice or default[1:]))
    if text and len(text) != len(default):
        raise ValueError(f"{kind} wants --text {len(default)} time(s), got {len(text)}")
    return Columns(tuple(text or default))


def read_examples(
    kind: str, texts: Sequence[str], file: Path | None, as_jsonl: bool, columns: Columns
) -> Iterator[Example]:
    """Yield the examples of a command line, one after the other.

    texts: the arguments; one example, but for one-text tasks one for each; none, or "-", reads
    standard input. Lines hold one example each, its texts parted by tabs; of JSON lines each is an
    object with `columns`, a list of texts, or a text. Raises ValueError for arguments that
    contradict each other; GPTEdgeError, naming the line, for what is no example.
    """
    is_stdin = list(texts) in ([], ["-"])
    if file is not None and texts:
        raise ValueError("give TEXT or --file, not both")
    if file is None and not is_stdin:
        if as_jsonl:
            raise ValueError("--jsonl is for standard input or --file, not for TEXT")
        yield from _of_arguments(kind, texts)
        return
    if file is None and not texts and _is_terminal():
        raise ValueError(f"give TEXT ({WANTED[kind]}), - to read standard input, or --file FILE")
    where = "standard input" if file is None else str(file)
    parse = (
        _of_json if as_jsonl or (file is not None and file.suffix.lower() == ".jsonl") else _of_line
    )
    for number, line in _lines(file, where):
        place = f"{where}, line {number}"
        if not line.strip() and parse is _of_json:
            continue
        yield Example(parse(kind, line, place, columns), place)


@contextmanager
def at(example: Example) -> Iterator[None]:
    """Errors about an example's texts name its line; those of an argument are wrong usage."""
    try:
        yield
    except ContextLengthError as error:
        if not example.where:
            raise
        raise ContextLengthError(f"{example.where}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        if not example.where:
            raise
        raise GPTEdgeError(f"{example.where}: {error}") from error


def encode_chunks(
    examples: Iterator[Example], encode: Callable[[tuple[str, ...]], T], size: int
) -> Iterator[list[T]]:
    """Ids of up to `size` examples at a time; those before a wrong one come first."""

    def encoded() -> Iterator[T]:
        for example in examples:
            with at(example):
                found = encode(example.texts)
            yield found

    stream = encoded()
    while True:
        chunk: list[T] = []
        fault: Exception | None = None
        try:
            for found in islice(stream, size):
                chunk.append(found)
        except (GPTEdgeError, ValueError) as error:
            fault = error
        if chunk:
            yield chunk
        if fault is not None:
            raise fault
        if not chunk:
            return


def _of_arguments(kind: str, texts: Sequence[str]) -> Iterator[Example]:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text is not UTF-8: character {error.start} cannot be read", hint=UTF8_HINT
            ) from error
    if len(COLUMNS[kind]) == 1:
        yield from (Example((text,)) for text in texts)
    else:
        yield Example(_checked(kind, tuple(texts), "TEXT"))


def _lines(file: Path | None, where: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends. Raises GPTEdgeError for what is not UTF-8 or too long,
    OSError.
    """
    with _opened(file) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise GPTEdgeError(f"{where}, line {number}: more than {MAX_LINE_BYTES >> 20} MiB")
            try:
                text = (
                    line.removesuffix(b"\n")
                    .removesuffix(b"\r")
                    .decode("utf-8-sig" if number == 1 else "utf-8")
                )
            except UnicodeDecodeError as error:
                raise TokenizerError(
                    f"{where}, line {number}: not UTF-8", hint=UTF8_HINT
                ) from error
            yield number, text


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        if sys.stdin is None or sys.stdin.closed:
            raise TokenizerError("standard input is closed", hint="give the text as an argument")
        yield sys.stdin.buffer
        return
    if file.exists() and not file.is_file():
        raise GPTEdgeError(
            f"{file} is not a regular file", hint="give a file with one example a line"
        )
    with file.open("rb") as stream:
        yield stream


def _of_line(kind: str, line: str, where: str, columns: Columns) -> tuple[str, ...]:
    parts = (line,) if len(COLUMNS[kind]) == 1 else tuple(line.split("\t"))
    return _checked(kind, parts, where)


def _of_json(kind: str, line: str, where: str, columns: Columns) -> tuple[str, ...]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GPTEdgeError(f"{where}: not JSON: {error}") from error
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        value = _of_object(value, where, columns)
    if not isinstance(value, list):
        raise GPTEdgeError(
            f"{where}: wanted an object, a list of texts or a text, found {json.dumps(value)[:40]}"
        )
    for part in value:
        if not isinstance(part, str):
            raise GPTEdgeError(f"{where}: {json.dumps(part)[:40]} is no text")
    return _checked(kind, tuple(value), where)


def _of_object(values: Mapping[str, Any], where: str, columns: Columns) -> list[Any]:
    wanted = (*columns.texts, *columns.choices)
    if missing := [name for name in wanted if name not in values]:
        hint = f"it has: {', '.join(values) or 'nothing'}"[:300]
        raise GPTEdgeError(f"{where}: there is no {missing[0]!r}", hint=hint)
    texts = [values[name] for name in columns.texts]
    if not columns.choices:
        return texts
    if not all(isinstance(text, str) for text in texts):
        return texts
    answers = [values[name] for name in columns.choices]
    if len(answers) == 1 and isinstance(answers[0], list):
        answers = answers[0]
    return [" ".join(texts), *answers]


def _checked(kind: str, texts: tuple[str, ...], where: str) -> tuple[str, ...]:
    wanted = len(COLUMNS[kind])
    is_right = len(texts) >= 3 if kind == "multiple-choice" else len(texts) == wanted
    if not is_right:
        fault = f"{where}: {len(texts)} text{'s' * (len(texts) != 1)}, {kind} wants {WANTED[kind]}"
        if where == "TEXT":
            raise ValueError(fault)
        is_short = kind == "multiple-choice" or len(texts) < wanted
        raise GPTEdgeError(
            fault,
            hint="part them with a tab, or give JSON lines with --jsonl" if is_short else None,
        )
    return texts


def _is_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
