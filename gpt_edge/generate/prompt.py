"""Prompt rules: from a text to the ids that the model processes.

A prompt that cannot fit is refused before any work, by its bytes alone where that suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpt_edge.arguments import check_text, checked_ids
from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.context import ContextPolicy, check_context, window_of
from gpt_edge.tokenizer.spec import Tokenizer

Truncate = Literal["left"]
LENGTH_HINT = "shorten it, or keep its end with truncate='left'"
CLI_LENGTH_HINT = "shorten it, or keep its end with --truncate left"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids that the model processes, and how many were cut from their start.

    healed: the text of those cut from their end, with which the new text begins; see
    `token_healing.py`. keep_first: of a text that goes on as a window, how many of its first ids
    stay; None ends it where the context is full; see `context.py`.
    """

    ids: list[int]
    dropped_tokens: int = 0
    healed: str = ""
    keep_first: int | None = None


def encode_prompt(
    text: str,
    tokenizer: Tokenizer,
    config: GPTConfig,
    max_new_tokens: int,
    truncate: Truncate | None = None,
    *,
    special: bool = False,
    context: ContextPolicy = "error",
    keep_first: int = 0,
) -> Prompt:
    """Ids of `text`, at least one and at most a context full.

    special: whether special tokens that the text spells become their ids; else they are plain text.
    An empty text becomes one end token. truncate="left" keeps the end of the prompt: as many tokens
    as leave room for max_new_tokens, but at least half the context. context, keep_first: see
    `context.py`; "truncate-left" is truncate="left".
    Raises ValueError for a text that is not a string, or is empty where the model has no end token;
    ContextLengthError.
    """
    check_text("prompt", text)
    check_truncate(truncate)
    check_context(context, keep_first, config.n_ctx)
    if truncate is not None and context == "error":
        context = "truncate-left"
    if context == "error":
        _check_bytes(text, tokenizer, config.n_ctx)
    ids = tokenizer.encode(text, special=special)
    if not ids:
        if tokenizer.end_token is None:
            raise ValueError(
                "the prompt is empty, and this model has no end token to start a text from"
            )
        ids = [tokenizer.end_token]
    return fit_prompt(ids, config.n_ctx, max_new_tokens, context, keep_first)


def fit_prompt(
    ids: list[int],
    n_ctx: int,
    max_new_tokens: int,
    context: ContextPolicy = "error",
    keep_first: int = 0,
) -> Prompt:
    """What the model gets to see of a text, by the policy: all of one that fits; else its window,
    or its end with room for max_new_tokens, but at least half the context. Raises
    ContextLengthError.
    """
    if context == "error":
        _check_length(len(ids), n_ctx)
        return Prompt(ids)
    if context == "window":
        kept = window_of(ids, keep_first, n_ctx)
        return Prompt(kept, len(ids) - len(kept), keep_first=keep_first)
    kept = ids[-max(n_ctx - max_new_tokens, n_ctx // 2, 1) :]
    return Prompt(kept, len(ids) - len(kept))


def check_truncate(truncate: object) -> None:
    """Raise ValueError for another value than those of Truncate, and None."""
    if truncate not in (None, "left"):
        raise ValueError(f"truncate must be 'left' or None, got {truncate!r}")


def prompt_of_ids(
    ids: Sequence[int] | IntArray,
    config: GPTConfig,
    max_new_tokens: int,
    context: ContextPolicy = "error",
    keep_first: int = 0,
) -> Prompt:
    """`encode_prompt` for a text that is ids already. Raises ValueError as `checked_ids`,
    ContextLengthError for too many.
    """
    check_context(context, keep_first, config.n_ctx)
    checked = checked_ids(ids, config.vocab_size)
    return fit_prompt(checked, config.n_ctx, max_new_tokens, context, keep_first)


def _check_bytes(text: str, tokenizer: Tokenizer, n_ctx: int) -> None:
    """Refuse a text by its size alone: to tokenize 10 MB would take seconds, only to refuse it."""
    widest = tokenizer.max_token_bytes
    n_bytes = len(text.encode("utf-8", "replace"))
    if widest is not None and n_bytes > widest * n_ctx:
        raise ContextLengthError(
            f"the prompt has {n_bytes} bytes, more than the context of {n_ctx} tokens can hold",
            hint=LENGTH_HINT,
            cli_hint=CLI_LENGTH_HINT,
        )


def _check_length(n_tokens: int, n_ctx: int) -> None:
    if n_tokens > n_ctx:
        raise ContextLengthError(
            f"the prompt has {n_tokens} tokens, the context of this model holds {n_ctx}",
            hint=LENGTH_HINT,
            cli_hint=CLI_LENGTH_HINT,
        )
