"""A byte-level vocabulary as GGUF has it: tokens in GPT-2's stand-ins for bytes, their types, and
the merges.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from gpt_edge.errors import ExportError, GPTEdgeWarning
from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte
from gpt_edge.tokenizer.formats.hf_files import merges_from_ranks
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.spec import TokenizerSource

NORMAL, CONTROL, UNUSED = 1, 3, 5  # gguf.TokenType
DEFAULT_END = 11  # llama.cpp's, where the file says none
# llama.cpp's names of split patterns
PRE_TOKENIZERS = {"gpt2": "gpt-2"}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, one for each row of the embedding; merges as "left right"."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    end_token: int | None
    has_prefix: bool  # whether the end token comes before every text
    add_prefix_space: bool


def gguf_vocabulary(source: TokenizerSource, vocab_size: int) -> Vocabulary:
    """The vocabulary of a model with `vocab_size` rows; rows without a token are unused ones, and
    tokens without a row are left out, with the merges that make them.

    Raises ExportError for another kind than byte-level BPE with GPT-2's pattern, TokenizerError for
    tokens that no merges make.
    """
    spec = source.spec
    pre = PRE_TOKENIZERS.get(spec.pattern or "")
    if spec.kind != "gpt2" or pre is None:
        pattern = f" and pattern {spec.pattern!a:.40}" if spec.pattern else ""
        raise ExportError(
            f"{source.origin} is a tokenizer of kind {spec.kind}{pattern}, expected GPT-2's "
            "byte-level one",
            hint="llama.cpp splits text by patterns that it knows; export it as a bundle instead",
        )
    if spec.prefix not in ((), (spec.end_token,)):
        raise ExportError(
            f"{source.origin} puts ids {list(spec.prefix)} before every text, llama.cpp can put "
            f"the end token {spec.end_token} there",
            hint="export it as a bundle instead",
        )
    table = parse_ranks(source.content, source.origin)
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]
    types = [UNUSED] * vocab_size
    name_of = {byte: name for name, byte in unicode_to_byte().items()}
    for token, id in zip(table.tokens, table.ids, strict=True):
        if id < vocab_size:
            tokens[id], types[id] = "".join([name_of[byte] for byte in token]), NORMAL
    for text, id in spec.special_tokens:
        if id < vocab_size:
            tokens[id], types[id] = text, CONTROL
    known = set(tokens)
    pairs = merges_from_ranks(table, source.origin)
    merges = [f"{left} {right}" for left, right in pairs if left + right in known]
    end_token = spec.end_token
    if end_token is None:
        end_token = _stand_in_for_end(tokens, types)
    return Vocabulary(
        tokens, types, merges, pre, end_token, bool(spec.prefix), spec.add_prefix_space
    )


def _stand_in_for_end(tokens: Sequence[str], types: Sequence[int]) -> int | None:
    """What ends a text where the model has no end token: llama.cpp would take token 11, whatever
    that is. A row without a token is never generated; else a special token may do, and is noted.
    """
    if UNUSED in types:
        return types.index(UNUSED)
    special = [id for id, kind in enumerate(types) if kind == CONTROL]
    found = special[-1] if special else None
    id = DEFAULT_END if found is None else found
    if id < len(tokens):
        warnings.warn(
            f"the tokenizer names no end token: llama.cpp ends a text at token {id}, "
            f"{tokens[id]!r:.40}",
            GPTEdgeWarning,
            stacklevel=3,
        )
    return found
