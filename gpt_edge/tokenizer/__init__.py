"""Text to ids and back: GPT-2's byte-level BPE, GPT-1's words, lists of characters, and what the
`tokenizers` and `sentencepiece` libraries read; and streaming detokenizers.

Light to import: each name is imported when it is first used, tiktoken and tokenizers when a
tokenizer is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_edge.tokenizer.discover import find_tokenizer, source_from_ranks, tokenizer_from
    from gpt_edge.tokenizer.load import build_tokenizer, load_tokenizer
    from gpt_edge.tokenizer.rows import check_fits, fit_source, fit_to_rows
    from gpt_edge.tokenizer.spec import Detokenizer, Tokenizer, TokenizerSource, TokenizerSpec

_MODULE_OF = {
    "Detokenizer": "spec",
    "Tokenizer": "spec",
    "TokenizerSource": "spec",
    "TokenizerSpec": "spec",
    "build_tokenizer": "load",
    "check_fits": "rows",
    "find_tokenizer": "discover",
    "fit_source": "rows",
    "fit_to_rows": "rows",
    "load_tokenizer": "load",
    "source_from_ranks": "discover",
    "tokenizer_from": "discover",
}

__all__ = [
    "Detokenizer",
    "Tokenizer",
    "TokenizerSource",
    "TokenizerSpec",
    "build_tokenizer",
    "check_fits",
    "find_tokenizer",
    "fit_source",
    "fit_to_rows",
    "load_tokenizer",
    "source_from_ranks",
    "tokenizer_from",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
