"""A byte-level vocabulary as GGUF has it: tokens in GPT-2's stand-ins for bytes, their types, and
the merges.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.errors import ExportError
from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte
from gpt_edge.tokenizer.formats.hf_files import merges_from_ranks
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.spec import TokenizerSource

NORMAL, CONTROL, UNUSED = 1, 3, 5  # gguf.TokenType
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
    """The vocabulary of a model with `vocab_size` rows; rows without a token are unused ones.

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
    if spec.vocab_size > vocab_size:
        raise ExportError(
            f"{source.origin} has {spec.vocab_size} tokens, the model {vocab_size} rows: llama.cpp "
            "would write tokens that the model does not have",
            hint="give the tokenizer that the model was trained with: --tokenizer FILE",
        )
    table = parse_ranks(source.content, source.origin)
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]
    types = [UNUSED] * vocab_size
    name_of = {byte: name for name, byte in unicode_to_byte().items()}
    for token, id in zip(table.tokens, table.ids, strict=True):
        tokens[id], types[id] = "".join([name_of[byte] for byte in token]), NORMAL
    for text, id in spec.special_tokens:
        tokens[id], types[id] = text, CONTROL
    merges = [f"{left} {right}" for left, right in merges_from_ranks(table, source.origin)]
    return Vocabulary(
        tokens, types, merges, pre, spec.end_token, bool(spec.prefix), spec.add_prefix_space
    )
