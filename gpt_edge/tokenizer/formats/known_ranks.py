"""Rank files that tiktoken publishes, known by their SHA-256: each has its own split pattern and
special tokens, which no rank file says.

For another rank file the pattern is checked: one that splits a token of the vocabulary in two did
not make it. Source: tiktoken_ext/openai_public.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.added_tokens import unused_tokens
from gpt_edge.tokenizer.formats.rank_file import N_BYTES, parse_ranks
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.tokenizer.patterns import PATTERNS
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec
from gpt_edge.tokenizer.special_tokens import NEVER

FILE = "tokenizer.tiktoken"
MAX_CUT = 0.01  # of the tokens that merges made
END_OF_PROMPT = "<|endofprompt|>"


@dataclass(frozen=True, slots=True)
class KnownRanks:
    """One published rank file."""

    name: str  # tiktoken's
    pattern: str
    special_tokens: Mapping[str, int]


KNOWN = {
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": KnownRanks(
        "r50k_base", "gpt2", {END_OF_TEXT: 50256}
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": KnownRanks(
        "p50k_base", "gpt2", {END_OF_TEXT: 50256}
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": KnownRanks(
        "cl100k_base",
        "cl100k",
        {
            END_OF_TEXT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            END_OF_PROMPT: 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": KnownRanks(
        "o200k_base", "o200k", {END_OF_TEXT: 199999, END_OF_PROMPT: 200018}
    ),
}


def known_rank_file(content: bytes) -> KnownRanks | None:
    """Return what is known of a rank file by its hash."""
    return KNOWN.get(hashlib.sha256(content).hexdigest())


def source_of_known(
    known: KnownRanks, content: bytes, where: str, pattern: str | None = None
) -> TokenizerSource:
    """Return the tokenizer of a published rank file. Raises TokenizerError for another pattern."""
    if pattern not in (None, known.pattern):
        raise TokenizerError(
            f"{where} is tiktoken's {known.name}, whose split pattern is {known.pattern}, not "
            f"{pattern!r:.60}",
            hint="leave out --pattern",
        )
    taken = {*parse_ranks(content, where).ids, *known.special_tokens.values()}
    vocab_size = max(taken) + 1
    unused = unused_tokens(id for id in range(vocab_size) if id not in taken)
    spec = TokenizerSpec(
        "gpt2",
        FILE,
        vocab_size,
        known.special_tokens[END_OF_TEXT],
        tuple({**known.special_tokens, **unused}.items()),
        known.pattern,
        token_rules=tuple((text, (NEVER,)) for text in unused),
    )
    return TokenizerSource(spec, content, where)


def check_pattern_of_ranks(source: TokenizerSource) -> None:
    """Raise TokenizerError, naming the first, where the split pattern of `source` cuts more than 1
    in 100 of its merged tokens in two: the vocabulary was made with another pattern, and would
    encode text differently.

    Of tiktoken's own files the right pattern cuts none, of o200k_base 12 of 199,998; a wrong one
    cuts 1.6 % or more, GPT-2's of the other two 16 %.
    """
    tokenizer = build_tokenizer(source)
    table = parse_ranks(source.content, source.origin)
    wrong = []
    for token, id in zip(table.tokens, table.ids, strict=True):
        try:
            text = token.decode("utf-8")
        except UnicodeDecodeError:  # part of a character
            continue
        # "'l" is half of "'ll", which every pattern keeps whole
        is_half = len(text) == 2 and text[0] == "'"
        if not is_half and tokenizer.encode(text) != [id]:
            wrong.append(text)
    if len(wrong) > MAX_CUT * (len(table.tokens) - N_BYTES):
        others = ", ".join(name for name in PATTERNS if name != source.spec.pattern)
        raise TokenizerError(
            f"{source.origin}: the split pattern {source.spec.pattern!r:.60} never makes the token "
            f"{wrong[0]!r:.40} and {len(wrong) - 1} others, so the vocabulary belongs to another "
            "pattern",
            hint=f"name it with --pattern: {others}, or a regular expression",
        )
