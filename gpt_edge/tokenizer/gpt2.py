"""GPT-2's tokenizer: byte-level BPE, constructed from a rank file's content and from nothing else.

tiktoken joins the bytes. It is handed the ranks and no special tokens, so text can never become
one, and it never downloads. Where it cannot be imported, the `tokenizers` library takes its place,
with the same ids.
Source: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpt_edge.arguments import check_several
from gpt_edge.errors import MissingDependencyError
from gpt_edge.tokenizer.byte_pairs import BytePairs, TiktokenBytePairs, TokenizersBytePairs
from gpt_edge.tokenizer.detokenizer import ByteDetokenizer, look_up
from gpt_edge.tokenizer.encoder import TextEncoder
from gpt_edge.tokenizer.formats.rank_file import RankTable, parse_ranks
from gpt_edge.tokenizer.spec import TokenizerSpec


class GPT2Tokenizer(TextEncoder):
    """The `Tokenizer` of kind gpt2. Raises TokenizerError for a rank file that is corrupt or not
    that of `spec`, MissingDependencyError where neither library is installed.
    """

    kind: str = "gpt2"

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        super().__init__(spec)
        assert spec.pattern is not None, "checked by the spec"
        table = parse_ranks(content, where)
        self._bytes_of = table.by_id(dict(spec.special_tokens), spec.vocab_size, where)
        self.max_token_bytes: int | None = max(map(len, table.tokens))
        self._id_of_rank = (
            None if table.ids is table.ranks else dict(zip(table.ranks, table.ids, strict=True))
        )
        self._byte_pairs = _byte_pairs(table, spec.pattern, where)

    def _encode_plain(self, text: str) -> list[int]:
        ranks = self._byte_pairs.encode(text)
        return ranks if self._id_of_rank is None else [self._id_of_rank[rank] for rank in ranks]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        check_several("ids", ids, "token ids")
        bytes_of = self._bytes_of
        return b"".join([look_up(bytes_of, id) for id in ids]).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; see Tokenizer."""
        return look_up(self._bytes_of, id)

    def detokenizer(self) -> ByteDetokenizer:
        """A new streaming decoder."""
        return ByteDetokenizer(self._bytes_of)


def _byte_pairs(table: RankTable, pattern: str, where: str) -> BytePairs:
    for library in (TiktokenBytePairs, TokenizersBytePairs):
        try:
            return library(table, pattern, where)
        except ModuleNotFoundError:
            continue
    raise MissingDependencyError(
        "text needs the package 'tiktoken' or the package 'tokenizers', neither is installed",
        hint="pip install tiktoken, or where it has no wheel, as on Windows on Arm: "
        "pip install tokenizers",
    )
