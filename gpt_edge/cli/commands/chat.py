"""`chat`: a conversation with a chat model, or a text that a base model and a user continue in
turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import (
    BundleOption,
    MaxMemoryOption,
    ProfileOption,
    RawOption,
    SpecialOption,
    ThreadsOption,
    parse_memory,
)
from gpt_edge.cli.support.sampling import (
    GreedyOption,
    MaxNewTokensOption,
    MinPOption,
    RepetitionPenaltyOption,
    SeedOption,
    StopOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    describe_sampling,
    is_sampling_asked,
    sampling_params,
    warn_without_effect,
    with_defaults,
)
from gpt_edge.cli.support.stdin import check_unicode
from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.params import DEFAULT_MAX_NEW_TOKENS

if TYPE_CHECKING:
    from gpt_edge.generate.chat_template import ChatTemplate
    from gpt_edge.generate.generator import Generator

MAX_TEMPLATE_BYTES = 1 << 20


def chat(
    model: BundleOption = None,
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Chat template in Jinja; by default the model's own. Without one, the model "
            "continues text.",
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="First message of a chat, or what the text begins with."),
    ] = None,
    max_new_tokens: MaxNewTokensOption = DEFAULT_MAX_NEW_TOKENS,
    stop: StopOption = None,
    top_k: TopKOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    min_p: MinPOption = None,
    greedy: GreedyOption = False,
    seed: SeedOption = None,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    context: Annotated[
        Literal["error", "truncate-left", "window"],
        typer.Option(
            help="A conversation that outgrows the context: go on with a window of its newest "
            "tokens, cut its start at each turn, or refuse the turn."
        ),
    ] = "window",
    special: SpecialOption = False,
    threads: ThreadsOption = None,
    profile: ProfileOption = "default",
    max_memory: MaxMemoryOption = None,
    raw: RawOption = False,
) -> None:
    """Talk with a model, or write a text in turns with it.

    A model with a chat template answers. A base model continues what you write, and an empty line
    lets it go on. Alt-Enter begins a new line, Ctrl-C stops a reply, Ctrl-D ends the chat; /help
    lists the commands. Without a terminal, each line of standard input is a turn, or a command; a
    backslash at its end continues it on the next line. Needs the extra gpt-edge[chat] for the
    terminal and for templates.
    """
    from gpt_edge.cli.support.chat_input import open_input
    from gpt_edge.cli.support.chat_session import ChatSession
    from gpt_edge.system.threads import check_threads

    params = sampling_params(
        max_new_tokens=max_new_tokens,
        stop=stop,
        top_k=top_k,
        temperature=temperature,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        repetition_penalty=repetition_penalty,
        logit_bias=None,
        bad_word=None,
    )
    if greedy and is_sampling_asked(params):
        raise ValueError("--greedy goes with no option that samples, such as --top-k")
    if threads is not None:
        check_threads(threads, "--threads")
    if system is not None:
        check_unicode(system, "--system")
    n_bytes = None if max_memory is None else parse_memory(max_memory)
    source = open_input()

    # imports onnxruntime: only after the arguments are checked
    from gpt_edge.generate.load import load

    generator = load(model, threads=threads, profile=profile, max_memory=n_bytes)
    used = params if greedy or is_sampling_asked(params) else with_defaults(params, generator)
    warn_without_effect(params, used, {})
    session = ChatSession(
        generator,
        used,
        template=_template_of(template, generator),
        system=system,
        context=context,
        special=special,
        raw=raw,
    )
    if source.is_terminal:
        console.note(session.greeting)
        if not used.is_greedy:
            console.note(f"sampling: {describe_sampling(used)}")
    session.run(source)
    if session.n_errors and not source.is_terminal:
        raise typer.Exit(1)


def _template_of(path: Path | None, generator: Generator) -> ChatTemplate | None:
    """The template of --template, or the model's own. Raises GPTEdgeError for a file that is no
    template.
    """
    from gpt_edge.generate.chat_template import ChatTemplate

    if path is None:
        return generator.chat_template()
    with path.open("rb") as file:
        data = file.read(MAX_TEMPLATE_BYTES + 1)
    if len(data) > MAX_TEMPLATE_BYTES:
        raise GPTEdgeError(f"{path} has more than {MAX_TEMPLATE_BYTES >> 20} MiB of template")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GPTEdgeError(f"{path} is not UTF-8: byte {error.start}") from error
    manifest = generator.session.bundle.manifest
    roles = (manifest.tokenizer or {}).get("roles", {})
    try:
        return ChatTemplate(text, roles)
    except GPTEdgeError as error:
        raise error.within(str(path)) from error
