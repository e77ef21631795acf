"""BERT's vocab.txt, a token on each line, as a tokenizer.json: the vocabulary of GPT2-Chinese and
its relatives.

Source: transformers, convert_slow_tokenizer.py, BertConverter; google-research/bert,
tokenization.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.json_file import parse_vocab

FILE = "vocab.txt"
UNKNOWN, START, SEPARATOR = "[UNK]", "[CLS]", "[SEP]"
SPECIAL_TOKENS = ("[PAD]", UNKNOWN, START, SEPARATOR, "[MASK]")
CONTINUATION = "##"


def word_piece_document(content: bytes, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the tokenizer.json of a vocab.txt. settings: of tokenizer_config.json, of which
    do_lower_case, strip_accents and tokenize_chinese_chars count.

    Raises TokenizerError for a file that is no such vocabulary.
    """
    vocab = _vocab(content, where)
    for token in (UNKNOWN, START, SEPARATOR):
        if token not in vocab:
            raise TokenizerError(
                f"{where} has no token {token}, so it is not a vocabulary of BERT's kind",
                hint="a WordPiece vocabulary has one token on each line, [UNK], [CLS] and [SEP] "
                "among them",
            )
    listed = [token for token in SPECIAL_TOKENS if token in vocab]
    around = [
        {"SpecialToken": {"id": START, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": SEPARATOR, "type_id": 0}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token, vocab[token]) for token in listed],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": _flag(settings, "tokenize_chinese_chars", True, where),
            "strip_accents": settings.get("strip_accents"),
            "lowercase": _flag(settings, "do_lower_case", True, where),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [vocab[token]], "tokens": [token]}
                for token in (START, SEPARATOR)
            },
        },
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def _vocab(content: bytes, where: str) -> dict[str, int]:
    """A token on each line; a token that comes twice has the later id, as in transformers."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{where} is not UTF-8: {error}") from error
    if lines[-1] == "":
        lines.pop()
    return parse_vocab({line.rstrip("\r"): id for id, line in enumerate(lines)}, where)


def _added(text: str, id: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": text, **flags, "special": True}


def _flag(settings: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise TokenizerError(f"{where}: {name} beside it is {value!r:.40}, expected true or false")
    return value
