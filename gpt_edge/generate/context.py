"""What happens when a text outgrows the context: an error, a cut at its start, or a window.

A window keeps the first tokens and the newest, and reads the newest again where they stand then:
learned positions belong to places, so keys and values cannot be moved with their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from gpt_edge.arguments import check_whole

ContextPolicy = Literal["error", "truncate-left", "window"]
UNLIMITED = 1 << 62  # tokens


def check_context(context: ContextPolicy, keep_first: int, n_ctx: int) -> None:
    """Raise ValueError for an unknown policy, or a keep_first that leaves no room for two more."""
    if context not in get_args(ContextPolicy):
        names = ", ".join(get_args(ContextPolicy))
        raise ValueError(f"context must be one of {names}, got {context!r:.40}")
    check_whole("keep_first", keep_first, 0)
    if keep_first and context != "window":
        raise ValueError(f"keep_first needs the context 'window', got {context!r}")
    if context == "window" and keep_first > n_ctx - 2:
        raise ValueError(
            f"keep_first must leave room for two tokens in the context of {n_ctx}, got {keep_first}"
        )


def newest_of_window(n_tokens: int, keep_first: int, n_ctx: int) -> int:
    """How many of the newest tokens a window keeps behind the first: all while they fit, else half
    of the room, so that as many again can follow.
    """
    if n_tokens <= n_ctx:
        return n_tokens - min(keep_first, n_tokens)
    return (n_ctx - keep_first) // 2


def window_of(ids: Sequence[int], keep_first: int, n_ctx: int) -> list[int]:
    """The window of a text: the first `keep_first` ids and the newest."""
    newest = newest_of_window(len(ids), keep_first, n_ctx)
    return [*ids[:keep_first], *ids[len(ids) - newest :]]
