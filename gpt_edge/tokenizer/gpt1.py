"""GPT-1's tokenizer: lower-cased words, byte-pair encoded with `</w>` at their ends, through the
`tokenizers` library.

The words are those of transformers' OpenAIGPTTokenizer, whose reference splits them with BERT's
BasicTokenizer. The library's own BertNormalizer is close but has other Unicode tables, so the
splitting is done here with Python's, and the library joins the pairs. Source:
openai/finetune-transformer-lm, text_utils.py; Radford et al. 2018.

Characters outside the vocabulary become `<unk>`, and so does a literal `<unk>` in the text, in any
case: the reference reads it so, and WikiText holds thousands. It is the one special token that text
can spell.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Sequence

from gpt_edge.arguments import check_several
from gpt_edge.errors import require
from gpt_edge.tokenizer.detokenizer import END_OF_WORD, WordDetokenizer, decode_words, look_up
from gpt_edge.tokenizer.encoder import TextEncoder
from gpt_edge.tokenizer.formats.gpt1_file import UNKNOWN, parse_gpt1_file
from gpt_edge.tokenizer.spec import TokenizerSpec
from gpt_edge.tokenizer.special_tokens import SpecialTokenFinder


class GPT1Tokenizer(TextEncoder):
    """The `Tokenizer` of kind gpt1. Raises TokenizerError for a corrupt file,
    MissingDependencyError without the extra.
    """

    kind: str = "gpt1"
    max_token_bytes: int | None = None  # control characters vanish: no length of text is too long

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        tokenizers = require("tokenizers", "gpt1")
        super().__init__(spec)
        # `<unk>` in a text is found whether special tokens count or not
        others = {text: id for text, id in spec.special_tokens if text != UNKNOWN}
        self._special_tokens = SpecialTokenFinder(others, spec.token_rules)
        vocab, merges = parse_gpt1_file(content, spec, where)
        self._unknown = vocab[UNKNOWN]
        tokens = {**vocab, **dict(spec.special_tokens)}
        self._token_of = sorted(tokens, key=tokens.__getitem__)
        # The library's `<unk>` ids are the vocabulary's; added tokens stay out of it, so text never
        # becomes one.
        self._pairs = tokenizers.models.BPE(
            vocab=vocab, merges=merges, unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD
        )

    def _encode_plain(self, text: str) -> list[int]:
        """Ids equal to those of transformers' OpenAIGPTTokenizer without ftfy and spaCy."""
        ids: list[int] = []
        for number, part in enumerate(text.translate(_LOWER).split(UNKNOWN)):
            if number:
                ids.append(self._unknown)
            ids += self._encode_words(spaced_words(part))
        return ids

    def _encode_words(self, text: str) -> list[int]:
        """Ids of words with white space between. Each word is joined once, without the offsets that
        the library's `encode` works out beside the ids: a mebibyte of letters takes half the time.
        """
        words = text.split()
        tokenize = self._pairs.tokenize
        ids_of = {word: [token.id for token in tokenize(word)] for word in dict.fromkeys(words)}
        return list(itertools.chain.from_iterable(map(ids_of.__getitem__, words)))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, lower case, a space between words; see Tokenizer."""
        check_several("ids", ids, "token ids")
        return decode_words([look_up(self._token_of, id) for id in ids])

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of one token, a space for its `</w>`; see Tokenizer."""
        return look_up(self._token_of, id).replace(END_OF_WORD, " ").encode("utf-8")

    def detokenizer(self) -> WordDetokenizer:
        """A new streaming decoder."""
        return WordDetokenizer(self._token_of)


def spaced_words(text: str) -> str:
    """Return the words of `text` with white space between: lower case, no accents, punctuation and
    Chinese apart.

    The steps and their order are BasicTokenizer's: drop control characters, set Chinese characters
    apart, compose, lower-case, decompose, drop accents, set punctuation apart.
    """
    text = unicodedata.normalize("NFC", text.translate(_CLEAN))
    return unicodedata.normalize("NFD", text.lower()).translate(_SPLIT)


class _Table(dict[int, str]):
    """A `str.translate` table that is worked out character by character, and remembered for the
    common plane.
    """

    def __init__(self, replace: Callable[[str], str]) -> None:
        super().__init__()
        self._replace = replace

    def __missing__(self, code: int) -> str:
        replacement = self._replace(chr(code))
        if code <= 0xFFFF:  # no text can make the tables grow without end
            self[code] = replacement
        return replacement


def _clean(character: str) -> str:
    """Control characters (surrogates and unassigned too) and U+FFFD vanish, white space is " ",
    Chinese is " 中 ".
    """
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if category.startswith("C") or character == "\N{REPLACEMENT CHARACTER}":
        return ""
    if category == "Zs":
        return " "
    return (
        f" {character} "
        if any(first <= character <= last for first, last in CHINESE)
        else character
    )


def _split(character: str) -> str:
    """Accents vanish, punctuation is set apart. Every ASCII sign counts as punctuation, "$" and "^"
    too.
    """
    category = unicodedata.category(character)
    if category == "Mn":
        return ""
    is_sign = "!" <= character <= "~" and not character.isalnum()
    return f" {character} " if is_sign or category.startswith("P") else character


# The blocks that BERT counts as Chinese: CJK ideographs, their extensions A to E, the compatibility
# blocks.
CHINESE = (
    ("\u4e00", "\u9fff"),
    ("\u3400", "\u4dbf"),
    ("\U00020000", "\U0002a6df"),
    ("\U0002a700", "\U0002b73f"),
    ("\U0002b740", "\U0002b81f"),
    ("\U0002b820", "\U0002ceaf"),
    ("\uf900", "\ufaff"),
    ("\U0002f800", "\U0002fa1f"),
)
# each character by itself, as the reference does before anything else: no final sigma
_LOWER = _Table(str.lower)
_CLEAN = _Table(_clean)
_SPLIT = _Table(_split)
