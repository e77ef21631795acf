"""Options that choose tokens and end a text, and SamplingParams from them; shared by the commands
that generate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import complete_bundle
from gpt_edge.cli.support.stdin import check_unicode

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.params import SamplingParams

LENGTH = "Length and end"
CHOICE = "Choosing tokens"
# any of them makes it sample; the temperature first
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p", "typical_p")
# that a model's generation defaults may set
DEFAULT_FIELDS = (*SAMPLING_FIELDS, "repetition_penalty", "no_repeat_ngram_size")

MaxNewTokensOption = Annotated[
    int,
    typer.Option(
        "-n",
        "--max-new-tokens",
        help="Maximum number of new tokens.",
        rich_help_panel=LENGTH,
    ),
]
MinNewTokensOption = Annotated[
    int, typer.Option(help="No end token before so many.", rich_help_panel=LENGTH)
]
StopOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Stop before this text; repeatable, up to four times.", rich_help_panel=LENGTH
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        help="Sample from the K most likely tokens; 40 if only --temperature is given.",
        rich_help_panel=CHOICE,
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        help="Sampling temperature: lower is more deterministic, 0 is greedy; 1 if another "
        "option samples.",
        rich_help_panel=CHOICE,
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        help="Sample from the most likely tokens that have this probability together.",
        rich_help_panel=CHOICE,
    ),
]
MinPOption = Annotated[
    float | None,
    typer.Option(
        help="Sample from the tokens at least this times as likely as the likeliest.",
        rich_help_panel=CHOICE,
    ),
]
TypicalPOption = Annotated[
    float | None,
    typer.Option(
        help="Sample from the most typical tokens that have this probability together.",
        rich_help_panel=CHOICE,
    ),
]
GreedyOption = Annotated[
    bool,
    typer.Option("--greedy", help="Always take the most likely token.", rich_help_panel=CHOICE),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        help="Seed for sampling: the same seed gives the same text.", rich_help_panel=CHOICE
    ),
]
RepetitionPenaltyOption = Annotated[
    float,
    typer.Option(
        help="Above 1, tokens of the prompt and the text become less likely.",
        rich_help_panel=CHOICE,
    ),
]
PresencePenaltyOption = Annotated[
    float,
    typer.Option(
        help="Subtract this from the logits of tokens that the text has.",
        rich_help_panel=CHOICE,
    ),
]
FrequencyPenaltyOption = Annotated[
    float,
    typer.Option(
        help="Subtract this for each time that the text has a token.", rich_help_panel=CHOICE
    ),
]
NoRepeatNgramSizeOption = Annotated[
    int,
    typer.Option(help="Let no N tokens in a row occur twice.", rich_help_panel=CHOICE),
]
LogitBiasOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID=BIAS",
        help="Add BIAS to the logit of a token; -inf bans it; repeatable.",
        rich_help_panel=CHOICE,
    ),
]
BadWordOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", help="Never generate this word; repeatable.", rich_help_panel=CHOICE
    ),
]
TokenHealingOption = Annotated[
    bool,
    typer.Option(
        "--token-healing",
        help="Choose the prompt's last tokens again, with what follows: for a prompt that ends "
        "inside a word.",
        rich_help_panel=CHOICE,
    ),
]
LogprobsOption = Annotated[
    int | None,
    typer.Option(help="With --json: log-probabilities of the tokens, and of so many alternatives."),
]

PromptLogprobsOption = Annotated[
    int | None,
    typer.Option(help="With --json: the same for the tokens of the prompt, but the first."),
]

SpeculateOption = Annotated[
    Literal["lookup"] | None,
    typer.Option(
        help="Guess that the text goes on as it did before, and let the model check several tokens "
        "at once: the same text, sooner where it repeats."
    ),
]
DraftOption = Annotated[
    str | None,
    typer.Option(
        metavar="BUNDLE",
        help="Smaller model with the same tokenizer that guesses tokens for the model to check: "
        "the same text, sooner.",
        autocompletion=complete_bundle,
    ),
]


def sampling_params(
    *, stop: list[str] | None, logit_bias: list[str] | None, bad_word: list[str] | None, **rest: Any
) -> SamplingParams:
    """SamplingParams of the options, by their names. Raises ValueError naming the option."""
    from gpt_edge.generate.params import SamplingParams

    for text in stop or ():
        check_unicode(text, "--stop")
    for text in bad_word or ():
        check_unicode(text, "--bad-word")
    biases = tuple(map(_parse_bias, logit_bias or ()))
    try:
        return SamplingParams(
            stop=tuple(stop or ()), logit_bias=biases, bad_words=tuple(bad_word or ()), **rest
        )
    except ValueError as error:
        raise ValueError(_as_option(str(error))) from error


def with_defaults(params: SamplingParams, generator: Generator) -> SamplingParams:
    """`params`, with what the model's maker chose for settings that the user left alone."""
    defaults = generator.generation_defaults
    plain = type(params)()
    chosen = {
        name: getattr(defaults, name)
        for name in DEFAULT_FIELDS
        if getattr(params, name) == getattr(plain, name)
    }
    return dataclasses.replace(params, **chosen)


def warn_without_effect(
    asked: SamplingParams, used: SamplingParams, unused: Mapping[str, str | bool]
) -> None:
    """Write one line to standard error for each option that changes nothing.

    asked, used: without and with the model's defaults. unused: reasons that the command itself
    found, by option; False for an option that has an effect.
    """
    reasons = dict(unused)
    given = [name for name in SAMPLING_FIELDS if getattr(asked, name) is not None]
    if asked.temperature == 0:
        reasons |= {_option(name): "--temperature 0 is greedy" for name in given[1:]}
    elif asked.top_k == 1:
        others = [name for name in given if name != "top_k"]
        if asked.seed is not None:
            others.append("seed")
        reasons |= {_option(name): "--top-k 1 leaves one token" for name in others}
    if asked.seed is not None and used.is_greedy:
        reasons["--seed"] = "nothing is sampled"
    if asked.min_new_tokens > asked.max_new_tokens:
        limit = asked.max_new_tokens
        reasons[f"--min-new-tokens beyond {limit}"] = "--max-new-tokens ends the text there"
    for option, reason in reasons.items():
        if reason:
            console.show_warning(f"{option} has no effect: {reason}")


def is_sampling_asked(params: SamplingParams) -> bool:
    """Whether an option says how to sample, or not to by a temperature of 0."""
    return any(getattr(params, name) is not None for name in SAMPLING_FIELDS)


def describe_sampling(params: SamplingParams) -> str:
    """How it samples, such as "top_k 40, temperature 0.8"."""
    chosen = {
        "top_k": params.effective_top_k,
        "temperature": params.effective_temperature,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "typical_p": params.typical_p,
    }
    return ", ".join(f"{name} {value:g}" for name, value in chosen.items() if value is not None)


def settings_json(params: SamplingParams) -> dict[str, Any]:
    """For --json: top_k and temperature, and the other settings that are not at their defaults."""
    plain = type(params)()
    told = (
        "top_k",
        "temperature",
        "seed",
        "max_new_tokens",
        "stop",
        "logprobs",
        "ignore_end_token",
    )
    others = {
        item.name: getattr(params, item.name)
        for item in dataclasses.fields(params)
        if item.name not in told and getattr(params, item.name) != getattr(plain, item.name)
    }
    if params.constraint is not None:
        others["constraint"] = params.constraint.to_dict()
    return {
        "top_k": params.effective_top_k,
        "temperature": params.effective_temperature,
        **others,
    }


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_option(message: str) -> str:
    """Return the message with the name of the option in place of the SamplingParams field."""
    from gpt_edge.generate.params import SamplingParams

    name, _, rest = message.partition(" ")
    if name in {item.name for item in dataclasses.fields(SamplingParams)} - {"stop"}:
        return f"{_option(name)} {rest}"
    return f"--stop: {message}" if "stop" in message.split(" must ")[0] else message


def _parse_bias(text: str) -> tuple[int, float]:
    """(id, bias) of "ID=BIAS". Raises ValueError for another text."""
    id, _, bias = text.partition("=")
    try:
        return int(id), float(bias)
    except ValueError:
        raise ValueError(
            f"--logit-bias must be ID=BIAS, such as 50256=-inf, got {text!r}"
        ) from None
