"""`generate`: continue a prompt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.batch_run import BatchOption, BatchSizeOption, OutOption, run_batch
from gpt_edge.cli.support.constraint_options import (
    ChoiceOption,
    GrammarOption,
    JsonSchemaOption,
    RegexOption,
    constraint_of,
)
from gpt_edge.cli.support.generation_output import (
    completion_json,
    print_pieces,
    print_several,
    warn_of_form,
)
from gpt_edge.cli.support.options import (
    BundleOption,
    JsonOption,
    MaxMemoryOption,
    ProfileOption,
    RawOption,
    SpecialOption,
    ThreadsOption,
    parse_memory,
)
from gpt_edge.cli.support.sampling import (
    BadWordOption,
    DraftOption,
    FrequencyPenaltyOption,
    GreedyOption,
    LogitBiasOption,
    LogprobsOption,
    MaxNewTokensOption,
    MinNewTokensOption,
    MinPOption,
    NoRepeatNgramSizeOption,
    PresencePenaltyOption,
    PromptLogprobsOption,
    RepetitionPenaltyOption,
    SeedOption,
    SpeculateOption,
    StopOption,
    TemperatureOption,
    TokenHealingOption,
    TopKOption,
    TopPOption,
    TypicalPOption,
    is_sampling_asked,
    sampling_params,
    warn_without_effect,
    with_defaults,
)
from gpt_edge.cli.support.search_options import (
    BeamsOption,
    BestOfOption,
    LengthPenaltyOption,
    PenaltyAlphaOption,
    SamplesOption,
    Search,
)
from gpt_edge.cli.support.stdin import (
    check_unicode,
    is_terminal_input,
    note_special_token,
    read_stdin,
)
from gpt_edge.generate.params import DEFAULT_MAX_NEW_TOKENS

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.read_sequence import ReadSequence
    from gpt_edge.generate.stream import TextStream


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
    max_new_tokens: MaxNewTokensOption = DEFAULT_MAX_NEW_TOKENS,
    min_new_tokens: MinNewTokensOption = 0,
    stop: StopOption = None,
    top_k: TopKOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    min_p: MinPOption = None,
    typical_p: TypicalPOption = None,
    greedy: GreedyOption = False,
    seed: SeedOption = None,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    presence_penalty: PresencePenaltyOption = 0.0,
    frequency_penalty: FrequencyPenaltyOption = 0.0,
    no_repeat_ngram_size: NoRepeatNgramSizeOption = 0,
    logit_bias: LogitBiasOption = None,
    bad_word: BadWordOption = None,
    token_healing: TokenHealingOption = False,
    json_schema: JsonSchemaOption = None,
    regex: RegexOption = None,
    choice: ChoiceOption = None,
    grammar: GrammarOption = None,
    logprobs: LogprobsOption = None,
    prompt_logprobs: PromptLogprobsOption = None,
    truncate: Annotated[
        Literal["left"] | None,
        typer.Option(
            help="Truncate the start of a prompt that exceeds the context, instead of failing."
        ),
    ] = None,
    context: Annotated[
        Literal["error", "truncate-left", "window"],
        typer.Option(
            help="A text that outgrows the context: stop with an error, cut the prompt's start, or "
            "go on with a window of its newest tokens."
        ),
    ] = "error",
    keep_first: Annotated[
        int, typer.Option(help="With --context window: keep so many first tokens.")
    ] = 0,
    special: SpecialOption = False,
    prompt_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what the model reads in FILE: a later prompt that begins alike is read from "
            "where it differs. Made if it is not there.",
        ),
    ] = None,
    speculate: SpeculateOption = None,
    draft: DraftOption = None,
    samples: SamplesOption = None,
    best_of: BestOfOption = None,
    beams: BeamsOption = None,
    length_penalty: LengthPenaltyOption = 1.0,
    penalty_alpha: PenaltyAlphaOption = None,
    threads: ThreadsOption = None,
    profile: ProfileOption = "default",
    max_memory: MaxMemoryOption = None,
    batch: BatchOption = None,
    out: OutOption = None,
    batch_size: BatchSizeOption = 8,
    echo: Annotated[
        bool, typer.Option("--echo", help="Print the prompt before the generated text.")
    ] = False,
    raw: RawOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate text that continues a prompt.

    Prints the text while it is generated. --temperature, --top-k, --top-p, --min-p or --typical-p
    sample, --greedy does not. Without them the model's own defaults apply, and standard error names
    them; a model without defaults is greedy. With --batch, texts for many prompts go to --out, one
    JSON object a line, in order.
    """
    from gpt_edge.system.threads import check_threads

    params = sampling_params(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        stop=stop,
        top_k=top_k,
        temperature=temperature,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        seed=seed,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        logit_bias=logit_bias,
        bad_word=bad_word,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        token_healing=token_healing,
        constraint=constraint_of(
            json_schema=json_schema, regex=regex, choice=choice, grammar=grammar
        ),
    )
    if threads is not None:
        check_threads(threads, "--threads")
    _check_together(params, greedy, as_json or batch is not None, draft, speculate)
    others = {
        "PROMPT": prompt,
        "--echo": echo,
        "--draft": draft,
        "--speculate": speculate,
        "--prompt-cache": prompt_cache,
    }
    _check_batch(batch, out, others)
    search = Search(samples, best_of, beams, length_penalty, penalty_alpha)
    others["--context"] = None if context == "error" else context
    search.check(params, {"--batch": batch, **others, "PROMPT": None, "--echo": None})
    n_bytes = None if max_memory is None else parse_memory(max_memory)
    text = _read_prompt(prompt) if batch is None else ""

    # imports onnxruntime: only after the arguments are checked
    from gpt_edge.generate.load import load

    generator = load(model, threads=threads, profile=profile, max_memory=n_bytes)
    uses_defaults = not (greedy or search.is_deterministic or is_sampling_asked(params))
    asked = params
    if uses_defaults:
        params = with_defaults(params, generator)
    unused = {"--echo": echo and not text and batch is None and "there is no prompt"}
    unused["--raw"] = raw and as_json and "--json escapes control characters itself"
    warn_without_effect(asked, params, unused)
    if batch is not None:
        run_batch(
            generator,
            batch,
            out,
            params,
            batch_size=batch_size,
            truncate=truncate,
            special=special,
            context=context,
            keep_first=keep_first,
        )
        return
    if not special:
        note_special_token(text, generator.tokenizer)
    if search.is_asked:
        _print_search(search, generator, text, params, truncate, special, echo, raw, as_json)
        return
    drafter = None if draft is None else load(draft, threads=threads, profile=profile)
    stream = generator.stream(
        text,
        params,
        truncate=truncate,
        special=special,
        context=context,
        keep_first=keep_first,
        sequence=_read_before(generator, prompt_cache),
        speculate=drafter or speculate,
    )
    before = text if echo else ""
    if as_json:
        for _ in stream:
            pass
        name = generator.session.name
        console.say_json(completion_json(stream.completion, params, name, before))
    else:
        print_pieces(stream, before, params if uses_defaults else None, raw)
    _keep_read(generator, prompt_cache, stream)


def _print_search(
    search: Search,
    generator: Generator,
    text: str,
    params: SamplingParams,
    truncate: Literal["left"] | None,
    special: bool,
    echo: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Several texts, or the one that a search finds."""
    before = text if echo else ""
    is_one = not as_json and (search.samples or 1) == 1

    def tell(piece: str) -> None:
        if is_one:
            console.write(piece, raw=raw)

    tell(before)
    texts = search.run(generator, text, params, truncate, special=special, on_text=tell)
    if as_json:
        each = [completion_json(one, params, generator.session.name, before) for one in texts]
        console.say_json(each[0] if search.samples is None else {"texts": each})
    elif is_one:
        console.say()
        warn_of_form(texts[0])
    else:
        print_several(texts, before, raw)


def _read_before(generator: Generator, prompt_cache: Path | None) -> ReadSequence | None:
    """What the file of --prompt-cache holds; None without it."""
    if prompt_cache is None or not os.path.lexists(prompt_cache):
        return None
    return generator.load_state(prompt_cache)


def _keep_read(generator: Generator, prompt_cache: Path | None, stream: TextStream) -> None:
    """Put what the model has read into the file of --prompt-cache."""
    if prompt_cache is None:
        return
    done = stream.completion
    console.note(f"prompt cache: {done.cached_tokens} of {done.prompt_tokens} tokens reused")
    generator.save_state(prompt_cache, stream)


def _check_together(
    params: SamplingParams, greedy: bool, as_json: bool, draft: str | None, speculate: str | None
) -> None:
    """Raise ValueError for options that contradict each other."""
    if greedy and is_sampling_asked(params):
        raise ValueError("--greedy goes with no option that samples, such as --top-k")
    if params.logprobs is not None and not as_json:
        raise ValueError("--logprobs needs --json")
    if params.prompt_logprobs is not None and not as_json:
        raise ValueError("--prompt-logprobs needs --json")
    if draft is not None and speculate is not None:
        raise ValueError("--draft and --speculate are two ways to guess: give one of them")


def _check_batch(batch: str | None, out: Path | None, others: Mapping[str, object]) -> None:
    """Raise ValueError for options that --batch does not go with, and for --out without it."""
    if batch is None:
        if out is not None:
            raise ValueError("--out is for --batch: a single text goes to standard output")
        return
    for name, value in others.items():
        if value not in (None, False):
            raise ValueError(f"{name} goes with a single text, not with --batch")


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
