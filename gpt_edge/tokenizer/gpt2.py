"""GPT-2's tokenizer: byte-level BPE through tiktoken, constructed from a rank file's content and
from nothing else.

tiktoken is handed the ranks and no special tokens, so text can never become one, and it never
downloads.
Source: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.detokenizer import ByteDetokenizer, look_up
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.spec import TokenizerSpec

# GPT-2's split pattern as tiktoken writes it for r50k_base: the same pieces as the original, found
# without backtracking.
GPT2_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)

# The pattern's `\s+(?!\S)` remembers every character it may give back, and tiktoken dies (a panic,
# no exception) where these reach a million: openai/tiktoken 0.14.0. Longer runs of white space are
# cut before the pattern sees them.
LONGEST_RUN = 1 << 16  # characters
_WHITE_SPACE = re.compile(
    "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]++"
)  # Unicode's White_Space


class GPT2Tokenizer:
    """The `Tokenizer` of kind gpt2. Raises TokenizerError for a rank file that is corrupt or not
    that of `spec`.
    """

    kind: str = "gpt2"

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        import tiktoken  # 30 ms: only when text is needed

        table = parse_ranks(content, where)
        self.vocab_size = spec.vocab_size
        self.end_token = spec.end_token
        self._bytes_of = table.by_id(dict(spec.special_tokens), spec.vocab_size, where)
        self.max_token_bytes: int | None = max(map(len, table.tokens))
        self._id_of_rank = (
            None if table.ids is table.ranks else dict(zip(table.ranks, table.ids, strict=True))
        )
        try:
            self._encoding = tiktoken.Encoding(
                "gpt-edge",
                pat_str=GPT2_PATTERN,
                mergeable_ranks=dict(zip(table.tokens, table.ranks, strict=True)),
                special_tokens={},
            )
        except (ValueError, OverflowError) as error:
            raise TokenizerError(f"{where}: tiktoken refuses the ranks: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; see Tokenizer."""
        if len(text) <= LONGEST_RUN:
            ids = self._encoding.encode_ordinary(text)
        else:
            ids = [
                id for part in cut_long_runs(text) for id in self._encoding.encode_ordinary(part)
            ]
        return ids if self._id_of_rank is None else [self._id_of_rank[rank] for rank in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        bytes_of = self._bytes_of
        return b"".join([look_up(bytes_of, id) for id in ids]).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; see Tokenizer."""
        return look_up(self._bytes_of, id)

    def detokenizer(self) -> ByteDetokenizer:
        """A new streaming decoder."""
        return ByteDetokenizer(self._bytes_of)


def cut_long_runs(text: str) -> Iterator[str]:
    """Cut `text` where the pattern does: before the last character of a long run of white space
    that a word follows.

    The pattern takes all of such a run but its last character as one piece, and at the end of a
    text it takes the whole run, so the parts, encoded one by one, have the ids of the text.
    """
    start = 0
    for run in _WHITE_SPACE.finditer(text):
        if run.end() - run.start() > LONGEST_RUN and run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]
