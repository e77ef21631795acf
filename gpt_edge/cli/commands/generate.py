"""`generate`: continue a prompt."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BundleOption, JsonOption, SpecialOption, ThreadsOption
from gpt_edge.cli.support.stdin import (
    check_unicode,
    is_terminal_input,
    note_special_token,
    read_stdin,
)
from gpt_edge.errors import GPTEdgeError

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.stream import TextStream

OPTION_FIELDS = ("max_new_tokens", "temperature", "top_k", "seed", "threads")
MAX_NEW_TOKENS = 400  # stories of the built-in model end earlier


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT|-",
            help="Prompt text; - reads standard input. Without it, read piped input, or generate "
            "unconditionally on a terminal.",
        ),
    ] = None,
    model: BundleOption = None,
    max_new_tokens: Annotated[
        int,
        typer.Option("-n", "--max-new-tokens", help="Maximum number of new tokens."),
    ] = MAX_NEW_TOKENS,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Sample from the K most likely tokens; 40 if only --temperature is given."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Sampling temperature: lower is more deterministic, 0 is greedy; 1 if only "
            "--top-k is given."
        ),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always take the most likely token.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed for sampling: the same seed gives the same text.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop before this text; repeatable, up to four times.")
    ] = None,
    truncate: Annotated[
        Literal["left"] | None,
        typer.Option(
            help="Truncate the start of a prompt that exceeds the context, instead of failing."
        ),
    ] = None,
    special: SpecialOption = False,
    threads: ThreadsOption = None,
    echo: Annotated[
        bool, typer.Option("--echo", help="Print the prompt before the generated text.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate text that continues a prompt.

    Prints the text while it is generated. --top-k or --temperature sample, --greedy does not.
    Without them the model's own defaults apply, and standard error names them; a model without
    defaults is greedy.
    """
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.system.threads import check_threads

    is_explicit = greedy or top_k is not None or temperature is not None
    if greedy and (top_k is not None or temperature is not None):
        raise ValueError("--greedy goes with neither --top-k nor --temperature")
    try:
        params = SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            stop=tuple(stop or ()),
        )
        if threads is not None:
            check_threads(threads)
    except ValueError as error:
        raise ValueError(_as_option(str(error))) from error
    for end in stop or ():
        check_unicode(end, "--stop")
    text = _read_prompt(prompt)

    # imports onnxruntime: only after the arguments are checked
    from gpt_edge.generate.load import load

    generator = load(model, threads=threads)
    if not is_explicit:
        params = _with_defaults(params, generator)
    if not special:
        note_special_token(text, generator.tokenizer)
    stream = generator.stream(text, params, truncate=truncate, special=special)
    if as_json:
        _print_json(stream, params, generator.session.name, text if echo else "")
        return
    if not is_explicit and not params.is_greedy:
        console.note(
            f"sampling: top_k {params.effective_top_k}, "
            f"temperature {params.effective_temperature:g}, seed {stream.seed}"
        )
    _print_pieces(stream, text if echo else "")


def _with_defaults(params: SamplingParams, generator: Generator) -> SamplingParams:
    """`params` with the sampling that the model's maker chose; warns of what is not applied."""
    from gpt_edge.generate.defaults import unapplied

    if (message := unapplied(generator.bundle_defaults)) is not None:
        console.show_warning(message)
    defaults = generator.generation_defaults
    return dataclasses.replace(params, top_k=defaults.top_k, temperature=defaults.temperature)


def _print_pieces(stream: TextStream, before: str) -> None:
    """Print each piece as it is generated. After an error in the middle, the cursor is at the start
    of a line, as after Ctrl-C.
    """
    try:
        console.write(before)
        for piece in stream:
            console.write(piece)
    except GPTEdgeError:
        console.say()
        raise
    console.say()


def _print_json(stream: TextStream, params: SamplingParams, model: str, before: str) -> None:
    for _ in stream:
        pass
    done = stream.completion
    console.say_json(
        {
            "model": model,
            "text": before + done.text,
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "dropped_tokens": done.dropped_tokens,
            "completion_tokens": done.completion_tokens,
            "top_k": params.effective_top_k,
            "temperature": params.effective_temperature,
            "seed": done.seed,
            "seconds": round(done.prefill_seconds + done.decode_seconds, 6),
            "prefill_seconds": round(done.prefill_seconds, 6),
            "tokens_per_second": round(done.tokens_per_second, 2),
        }
    )


def _as_option(message: str) -> str:
    """Return the message with the name of the option in place of the SamplingParams field."""
    name, _, rest = message.partition(" ")
    return f"--{name.replace('_', '-')} {rest}" if name in OPTION_FIELDS else f"--stop: {message}"


def _read_prompt(prompt: str | None) -> str:
    """Return the argument, or standard input without the line ending that `echo` adds."""
    if prompt is None and is_terminal_input():
        return ""  # unconditional generation
    if prompt in (None, "-"):
        prompt = read_stdin()
        prompt = prompt.removesuffix("\n").removesuffix("\r")
    assert prompt is not None
    check_unicode(prompt)
    if not prompt:
        raise ValueError('the prompt is empty: give some text, such as "Once upon a time"')
    return prompt
