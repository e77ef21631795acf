"""GPT-1's one file in a bundle: a `tokenizer.json` as the `tokenizers` library writes it, which
others can open too.

Made from OpenAI's `encoder_bpe_40000.json` + `vocab_40000.bpe`, Hugging Face's `vocab.json` +
`merges.txt`, or another tokenizer.json. Only the vocabulary, the merges and the added tokens are
taken from it; the rest is GPT-1's, always.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.detokenizer import END_OF_WORD
from gpt_edge.tokenizer.formats.bpe_files import Merge, check_merges
from gpt_edge.tokenizer.formats.json_file import parse_json, parse_merge_list, parse_vocab
from gpt_edge.tokenizer.spec import TokenizerSpec

UNKNOWN = "<unk>"
BERT_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}


def format_gpt1_file(
    vocab: Mapping[str, int], merges: Sequence[Merge], special_tokens: Mapping[str, int]
) -> bytes:
    """Return the tokenizer.json: the same vocabulary gives the same bytes."""
    added = [
        {
            "id": id,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, id in sorted(special_tokens.items(), key=lambda item: item[1])
    ]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": BERT_NORMALIZER,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "BPEDecoder", "suffix": END_OF_WORD},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": END_OF_WORD,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"


def parse_gpt1_file(
    content: bytes, spec: TokenizerSpec, where: str
) -> tuple[dict[str, int], list[Merge]]:
    """Return vocabulary and merges. Raises TokenizerError unless they are whole and are those of
    `spec`.
    """
    document = parse_json(content, where)
    model: Any = document.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != END_OF_WORD:
        raise TokenizerError(
            f"{where} is not a GPT-1 tokenizer.json: model.end_of_word_suffix must be "
            f"{END_OF_WORD!r}"
        )
    vocab = parse_vocab(model.get("vocab"), where)
    merges = parse_merge_list(model.get("merges"), where)
    check_gpt1_vocabulary(vocab, merges, where)
    ids = sorted({**vocab, **dict(spec.special_tokens)}.values())
    if ids != list(range(spec.vocab_size)):
        raise TokenizerError(
            f"{where}: its {len(ids)} ids from {ids[0]} to {ids[-1]} are not 0 to "
            f"{spec.vocab_size - 1}, each once",
            hint="this is not the tokenizer the description belongs to, or its special tokens are "
            "missing",
        )
    return vocab, merges


def check_gpt1_vocabulary(vocab: Mapping[str, int], merges: Sequence[Merge], where: str) -> None:
    """Raise TokenizerError unless `vocab` and `merges` are those of a GPT-1 tokenizer."""
    if UNKNOWN not in vocab:
        raise TokenizerError(
            f"{where}: a GPT-1 vocabulary needs the token {UNKNOWN!r}, there is none"
        )
    check_merges(vocab, merges, where)
    inside = [merge for merge in merges if END_OF_WORD in merge[0]]
    if inside:
        raise TokenizerError(
            f"{where}: the merge {inside[0]} has {END_OF_WORD!r} in its first part, only a word's "
            "end has one"
        )
