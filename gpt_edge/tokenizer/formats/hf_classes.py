"""tokenizer_class of a Hugging Face folder: what a class does to a vocabulary without a
tokenizer.json, whose rules stand in its own code.

A class is known or refused by name. Source: transformers, the tokenization_*.py of each model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.hf_settings import AddedToken, FolderSettings
from gpt_edge.tokenizer.special_tokens import LEFT

NAME = "tokenizer_class"
# what AutoTokenizer falls back to, which has no rules of its own
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
# texts of vocab.json and merges.txt as GPT-2 reads them, or as GPT-1 does
_PLAIN = ("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "OpenAIGPTTokenizer")
# the same, between <s> and </s>
_ENCLOSED = (
    "RobertaTokenizer",
    "BartTokenizer",
    "LongformerTokenizer",
    "LEDTokenizer",
    "MvpTokenizer",
)
_ENCLOSED_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_BERT = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
_BEGINS = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")
# T5Tokenizer's token after a text is the end token, see `sentence_piece_file.py`
_SENTENCE_PIECE = ("T5Tokenizer", *_BEGINS)


def settings_of_pair(settings: FolderSettings) -> tuple[FolderSettings, tuple[str, ...]]:
    """The settings of a byte-pair vocabulary with what its class adds, and the tokens that the
    class puts before a text. Raises TokenizerError for a class that is not known.
    """
    name = _known(settings, (*_PLAIN, *_ENCLOSED), "vocab.json and merges.txt", "GPT2Tokenizer")
    if name not in _ENCLOSED:
        return settings, ()
    roles = {**_ENCLOSED_ROLES, **settings.roles}
    added = dict(settings.added)
    for role, text in roles.items():
        rules = (LEFT,) if role == "mask_token" else ()
        added.setdefault(text, AddedToken(text, None, True, rules))
    made = dataclasses.replace(settings, added=added, roles=roles, end=roles["sep_token"])
    return made, (roles["cls_token"],)


def check_word_piece(settings: FolderSettings) -> None:
    """Raise TokenizerError for a class that reads vocab.txt in another way than BERT's."""
    _known(settings, _BERT, "vocab.txt", "BertTokenizer")


def begins_texts(settings: FolderSettings) -> bool:
    """Whether the beginning token stands before every text of a SentencePiece model: as
    add_bos_token says, else as the class does. Raises TokenizerError for a class that is not known.
    """
    name = _known(settings, _SENTENCE_PIECE, "a SentencePiece model", "T5Tokenizer")
    is_said = settings.values.get("add_bos_token") is not None
    return settings.add_bos_token if is_said else name in _BEGINS


def with_normalizer_of_bert(
    document: dict[str, Any],
    settings: FolderSettings,
) -> dict[str, Any]:
    """A tokenizer.json with what BertTokenizerFast writes into its normalizer: the settings of
    tokenizer_config.json, where it has them.
    """
    normalizer = document.get("normalizer")
    if _class_of(settings) not in _BERT or not isinstance(normalizer, dict):
        return document
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    if normalizer.get("type") != "BertNormalizer":
        return document
    beside = {own: settings.values[name] for own, name in names.items() if name in settings.values}
    return {**document, "normalizer": {**normalizer, **beside}}


def _known(
    settings: FolderSettings, known: tuple[str, ...], files: str, plainest: str
) -> str | None:
    """The class without "Fast", None where the folder names none."""
    name = _class_of(settings)
    if name is None or name in known or name in _GENERIC:
        return name
    raise TokenizerError(
        f"{settings.where}: {NAME} is {name!a:.60}, whose rules for {files} gpt-edge does not have",
        hint=f"transformers' fast tokenizer saves a tokenizer.json, which is read; or set {NAME} "
        f"to {plainest} if it reads text as that does",
    )


def _class_of(settings: FolderSettings) -> str | None:
    name = settings.values.get(NAME) or settings.model_values.get(NAME)
    return name.removesuffix("Fast") if isinstance(name, str) else None
