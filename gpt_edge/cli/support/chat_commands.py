"""The commands of `chat`, and the values that /set takes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_edge.generate.params import SamplingParams

# name, argument, what it does
COMMANDS = {
    "/help": ("", "list the commands"),
    "/set": ("NAME VALUE", "change a setting, such as /set temperature 0.8; none takes it back"),
    "/params": ("", "show the settings"),
    "/retry": ("", "replace the last reply by another"),
    "/undo": ("", "forget the last turn"),
    "/stats": ("", "count turns and tokens, and tell the speed of the last reply"),
    "/save": ("FILE", "keep the conversation, and what the model has read, in a file"),
    "/load": ("FILE", "continue a conversation that was kept"),
    "/exit": ("", "end the chat, as Ctrl-D does"),
}
SEVERAL = ("stop", "bad_words", "stop_token_ids")


def help_text() -> str:
    """The list of commands."""
    width = max(len(f"{name} {argument}") for name, (argument, _) in COMMANDS.items())
    rows = [
        f"{f'{name} {argument}':<{width}}  {what}" for name, (argument, what) in COMMANDS.items()
    ]
    return "\n".join([*rows, "A text that begins with / is written with two of them: //text."])


def changed_params(params: SamplingParams, assignment: str) -> SamplingParams:
    """`params` after "NAME VALUE". A value is JSON, or a text as it is; none is the default.

    Raises ValueError or TypeError, which name the setting.
    """
    from gpt_edge.generate.params import SamplingParams, params_with

    name, _, text = assignment.strip().partition(" ")
    name = name.replace("-", "_")
    if not name or not text.strip():
        raise ValueError("/set needs a name and a value, such as /set temperature 0.8")
    value: Any = _value_of(name, text.strip())
    if text.strip().lower() == "none":
        value = getattr(SamplingParams(), name, None)
    return params_with(params, {name: value})  # type: ignore[misc]


def shown_params(params: SamplingParams) -> str:
    """How replies are chosen, and every setting that is not at its default."""
    from gpt_edge.cli.support.sampling import describe_sampling

    how = "greedy" if params.is_greedy else f"sampling: {describe_sampling(params)}"
    rows = [
        f"  {item.name} {getattr(params, item.name)!r}"
        for item in dataclasses.fields(params)
        if item.name == "max_new_tokens" or getattr(params, item.name) != item.default
    ]
    return "\n".join([how, *rows])


def _value_of(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if name in SEVERAL and not isinstance(value, list):
        return (value,)
    if name == "logit_bias" and isinstance(value, dict):
        return {int(id) if id.isdecimal() else id: bias for id, bias in value.items()}
    return value
