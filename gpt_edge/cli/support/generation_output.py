"""What `generate` prints: a text as it comes, several texts, and JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gpt_edge.cli.support import console
from gpt_edge.cli.support.sampling import describe_sampling, settings_json
from gpt_edge.errors import GPTEdgeError

if TYPE_CHECKING:
    from gpt_edge.generate.completion import Completion
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.stream import TextStream


def print_pieces(
    stream: TextStream, before: str, defaults: SamplingParams | None, raw: bool
) -> None:
    """Print each piece as it is generated. After an error in the middle, the cursor is at the start
    of a line, as after Ctrl-C.

    defaults: the model's own, where they are in use; standard error names them.
    """
    if defaults is not None and not defaults.is_greedy:
        console.note(f"sampling: {describe_sampling(defaults)}, seed {stream.seed}")
    try:
        console.write(before, raw=raw)
        for piece in stream:
            console.write(piece, raw=raw)
    except GPTEdgeError:
        console.say()
        raise
    console.say()
    warn_of_form(stream.completion)


def print_several(texts: list[Completion], before: str, raw: bool) -> None:
    """Print whole texts, a line before each that tells them apart."""
    for number, done in enumerate(texts, 1):
        told = f", seed {done.seed}" if done.seed is not None else f", score {done.score:.4f}"
        console.say(f"--- {number} of {len(texts)}{told}")
        console.write(before + done.text, raw=raw)
        console.say()
        warn_of_form(done)


def warn_of_form(done: Completion) -> None:
    """Say on standard error that a text is not whole."""
    if done.is_constraint_met is False:
        console.show_warning(f"the text ends inside its form, by {done.finish_reason}")


def completion_json(
    done: Completion, params: SamplingParams, model: str, before: str
) -> dict[str, Any]:
    """All that is known of a text."""
    return {
        "model": model,
        "text": before + done.text,
        "finish_reason": done.finish_reason,
        **_constraint(done),
        "prompt_tokens": done.prompt_tokens,
        "dropped_tokens": done.dropped_tokens,
        "cached_tokens": done.cached_tokens,
        "completion_tokens": done.completion_tokens,
        **settings_json(params),
        "seed": done.seed,
        **({} if done.score is None else {"score": done.score}),
        "seconds": round(done.prefill_seconds + done.decode_seconds, 6),
        "prefill_seconds": round(done.prefill_seconds, 6),
        "tokens_per_second": round(done.tokens_per_second, 2),
        **_logprobs(done),
        **_speculation(done),
    }


def _speculation(done: Completion) -> dict[str, object]:
    """What speculation did, where it was asked for."""
    if done.speculation is None:
        return {}
    return {"speculation": dataclasses.asdict(done.speculation)}


def _constraint(done: Completion) -> dict[str, object]:
    """Whether the text has the form that was asked for."""
    met = done.is_constraint_met
    return {} if met is None else {"is_constraint_met": met}


def _logprobs(done: Completion) -> dict[str, object]:
    """Log-probabilities, where they were asked for."""
    told: dict[str, object] = {}
    if done.prompt_logprobs is not None:
        told["prompt_logprobs"] = [dataclasses.asdict(entry) for entry in done.prompt_logprobs]
    if done.logprobs is not None:
        told["cumulative_logprob"] = done.cumulative_logprob
        told["logprobs"] = [dataclasses.asdict(entry) for entry in done.logprobs]
    return told
