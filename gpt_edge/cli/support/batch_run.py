"""`generate --batch`: the prompts of a file, several at a time, into a file of results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.sampling import settings_json
from gpt_edge.errors import GPTEdgeError

if TYPE_CHECKING:
    from gpt_edge.generate.batch_lines import BatchLine
    from gpt_edge.generate.context import ContextPolicy
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.prompt import Truncate

MANY = "Many prompts"

BatchOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|-",
        help="JSON Lines in place of PROMPT: objects with a prompt, perhaps an id, and settings by "
        "name, such as max_new_tokens.",
        rich_help_panel=MANY,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Append results to this file; an interrupted run continues. Default: standard output.",
        rich_help_panel=MANY,
    ),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(min=1, help="Texts that are generated at a time.", rich_help_panel=MANY),
]


def run_batch(
    generator: Generator,
    source: str,
    out: Path | None,
    params: SamplingParams,
    *,
    batch_size: int,
    truncate: Truncate | None,
    special: bool,
    context: ContextPolicy,
    keep_first: int,
) -> None:
    """Generate for every line of `source` ("-" is standard input), in order.

    params: for settings that a line does not have. Raises OutputError, and GPTEdgeError at the end
    if a line had an error.
    """
    from gpt_edge.cli.support.results_file import open_results
    from gpt_edge.generate.batch_lines import generate_lines, read_lines

    asked = [generator.session.name, *_all_settings(params), truncate, special]
    if context != "error":
        asked += [context, keep_first]
    settings = json.dumps(asked, sort_keys=True)
    with _opened(source) as stream:
        lines = read_lines(stream, settings)

        def results(lines: Iterator[BatchLine]) -> Iterator[dict[str, object]]:
            return generate_lines(
                generator,
                lines,
                params,
                batch_size=batch_size,
                truncate=truncate,
                special=special,
                context=context,
                keep_first=keep_first,
            )

        if out is None:
            n_errors = 0
            for result in results(lines):
                console.say_json(result)
                n_errors += "error" in result
            _check_errors(n_errors, "standard output")
            return
        with open_results(out) as file, _progress(_n_lines(source)) as show:
            remaining = file.skip_done(lines)
            for result in results(remaining):
                file.append(result)
                show(file.n_done, file.n_errors)
    console.note(f"{out}: {file.n_done} results, {file.n_errors} of them errors")
    _check_errors(file.n_errors, str(out))


def _all_settings(params: SamplingParams) -> list[object]:
    """Everything about `params` that changes a text."""
    return [settings_json(params), params.seed, params.max_new_tokens, params.stop, params.logprobs]


def _check_errors(n_errors: int, place: str) -> None:
    if n_errors:
        lines = "line has" if n_errors == 1 else "lines have"
        raise GPTEdgeError(f'{n_errors} {lines} an "error" in place of a text', hint=f"see {place}")


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source != "-":
        with open(source, "rb") as stream:
            yield stream
        return
    if sys.stdin is None or sys.stdin.closed:
        raise GPTEdgeError("standard input is closed", hint="give a file to --batch")
    yield sys.stdin.buffer


def _n_lines(source: str) -> int | None:
    """Lines of a file that are not blank; None where they cannot be counted ahead."""
    if source == "-" or not Path(source).is_file():
        return None
    with open(source, "rb") as stream:
        return sum(1 for line in stream if line.strip())


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the numbers of results and of errors: a bar on a terminal."""
    with console.bar("lines", total) as update:
        yield lambda done, errors: update(done, f"{errors} errors" if errors else "")
