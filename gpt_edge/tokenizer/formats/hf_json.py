"""Hugging Face's tokenizer.json, read without their library: GPT-2's kind, GPT-1's kind, or a clear
refusal.

A setting that changes ids and that gpt-edge does not have is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.detokenizer import END_OF_WORD
from gpt_edge.tokenizer.formats.bpe_files import Merge, ranks_from_merges, unicode_to_byte
from gpt_edge.tokenizer.formats.gpt1_file import (
    BERT_NORMALIZER,
    UNKNOWN,
    check_gpt1_vocabulary,
    format_gpt1_file,
)
from gpt_edge.tokenizer.formats.json_file import parse_merge_list, parse_vocab
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec

RANK_FILE = "tokenizer.tiktoken"
GPT1_FILE = "tokenizer.json"
HINT = "give GPT-2's or GPT-1's tokenizer files, or a .tiktoken rank file: --tokenizer FILE"


def source_from_json(
    document: Mapping[str, Any], end: str | int | None, where: str
) -> TokenizerSource:
    """Return the tokenizer of a parsed tokenizer.json. `end`: the end token's text or id if known;
    see `make_spec`.
    """
    model: Any = document.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        found = model.get("type") if isinstance(model, dict) else "none"
        raise TokenizerError(f"{where} holds a {found!r:.40} model, expected BPE", hint=HINT)
    for name in ("dropout", "continuing_subword_prefix", "byte_fallback"):
        if model.get(name):
            raise TokenizerError(
                f"{where}: model.{name} is {model[name]!r:.40}, which gpt-edge does not have",
                hint=HINT,
            )
    vocab = parse_vocab(model.get("vocab"), where)
    merges = parse_merge_list(model.get("merges"), where)
    added = parse_added_tokens(document.get("added_tokens"), where)
    suffix = model.get("end_of_word_suffix")
    is_gpt1 = suffix == END_OF_WORD
    if suffix and not is_gpt1:
        raise TokenizerError(
            f"{where}: model.end_of_word_suffix is {suffix!r:.40}, expected {END_OF_WORD!r} or "
            "none",
            hint=HINT,
        )
    if is_gpt1:
        _check_gpt1_settings(document, where)
    else:
        _check_byte_settings(document, where)
        if model.get("ignore_merges") and not set(vocab) - set(added) <= made_tokens(merges):
            raise TokenizerError(
                f"{where}: model.ignore_merges is set and some tokens are made by no merge",
                hint=HINT,
            )
    return source_from_merges(vocab, merges, added, end, where)


def source_from_merges(
    vocab: Mapping[str, int],
    merges: list[Merge],
    added: Mapping[str, int],
    end: str | int | None,
    where: str,
) -> TokenizerSource:
    """Return the tokenizer of a vocabulary and its merges, whichever kind they are.

    added: special tokens, in `vocab` or beyond it. Raises TokenizerError when neither kind fits.
    """
    for text, id in added.items():
        if vocab.get(text, id) != id:
            raise TokenizerError(
                f"{where}: token {text!r:.60} has id {vocab[text]} in the vocabulary and {id} as "
                "an added token"
            )
    if is_byte_level(vocab):
        content, special_tokens = ranks_from_merges(vocab, merges, added, where)
        special_tokens |= {text: id for text, id in added.items() if text not in vocab}
        return TokenizerSource(
            make_spec("gpt2", RANK_FILE, len(vocab), special_tokens, end, where), content, where
        )
    if any(token.endswith(END_OF_WORD) for token in vocab):
        check_gpt1_vocabulary(vocab, merges, where)
        special_tokens = {UNKNOWN: vocab[UNKNOWN], **added}
        content = format_gpt1_file(vocab, merges, special_tokens)
        return TokenizerSource(
            make_spec("gpt1", GPT1_FILE, len(vocab), special_tokens, end, where), content, where
        )
    raise TokenizerError(
        f"{where} is neither GPT-2's kind (a token for each of the 256 bytes) nor GPT-1's (words "
        f"that end in {END_OF_WORD})",
        hint=HINT,
    )


def make_spec(
    kind: str,
    file: str,
    n_tokens: int,
    special_tokens: Mapping[str, int],
    end: str | int | None,
    where: str,
) -> TokenizerSpec:
    """Return the spec of a vocabulary of `n_tokens`, those special tokens counted that lie inside
    it.

    end: the end token's text or id, taken when it is a special token; else `<|endoftext|>` is,
    where there is one.
    """
    ends = [id for text, id in special_tokens.items() if end in (text, id)]
    end_token = ends[0] if ends else special_tokens.get(END_OF_TEXT)
    vocab_size = max([n_tokens - 1, *special_tokens.values()]) + 1
    pattern = "gpt2" if kind == "gpt2" else None
    try:
        return TokenizerSpec(
            kind, file, vocab_size, end_token, tuple(special_tokens.items()), pattern
        )
    except ValueError as error:
        raise TokenizerError(f"{where}: {error}") from error


def is_byte_level(vocab: Mapping[str, int]) -> bool:
    """Whether nearly every byte is a token: a vocabulary that lacks a few is meant as one, and
    refused with a better message.
    """
    return sum(character in vocab for character in unicode_to_byte()) > 200


def made_tokens(merges: list[Merge]) -> set[str]:
    """The tokens that bytes and merges make."""
    return {*unicode_to_byte(), *(left + right for left, right in merges)}


def parse_added_tokens(value: object, where: str) -> dict[str, int]:
    """Return the special tokens of `added_tokens`. Raises TokenizerError for one that plain text
    would become.
    """
    added: dict[str, int] = {}
    for entry in value if isinstance(value, list) else []:
        text, id = (
            (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(text, str) or type(id) is not int:
            raise TokenizerError(
                f"{where}: an added token is {entry!r:.80}, expected content and id"
            )
        if not entry.get("special"):
            raise TokenizerError(
                f"{where}: the added token {text!r:.60} (id {id}) is not special: its maker "
                "encodes plain text to it, which gpt-edge does not",
                hint='mark it "special": true in the file if the model never reads it from '
                "plain text",
            )
        added[text] = id
    return added


def _check_byte_settings(document: Mapping[str, Any], where: str) -> None:
    """Raise TokenizerError unless text is split as GPT-2 splits it and nothing else
    happens to it.
    """
    splitter: Any = document.get("pre_tokenizer")
    if (
        not isinstance(splitter, dict)
        or splitter.get("type") != "ByteLevel"
        or splitter.get("use_regex") is False
    ):
        found = splitter.get("type") if isinstance(splitter, dict) else None
        raise TokenizerError(
            f"{where}: pre_tokenizer is {found!r:.40}, expected ByteLevel with GPT-2's split "
            "pattern",
            hint=HINT,
        )
    if splitter.get("add_prefix_space", True):
        raise TokenizerError(
            f"{where}: add_prefix_space is true, GPT-2 puts no space before a text", hint=HINT
        )
    if document.get("normalizer"):
        raise TokenizerError(f"{where}: a normalizer changes the text, GPT-2 has none", hint=HINT)
    _check_post_processor(document, where)


def _check_gpt1_settings(document: Mapping[str, Any], where: str) -> None:
    """Raise TokenizerError unless text is lower-cased and split as GPT-1's is."""
    normalizer, splitter = document.get("normalizer"), document.get("pre_tokenizer")
    if normalizer != BERT_NORMALIZER:
        raise TokenizerError(
            f"{where}: normalizer is {normalizer!r:.160}, expected {BERT_NORMALIZER}", hint=HINT
        )
    if splitter != {"type": "BertPreTokenizer"}:
        raise TokenizerError(
            f"{where}: pre_tokenizer is {splitter!r:.80}, expected BertPreTokenizer", hint=HINT
        )
    _check_post_processor(document, where)


def _check_post_processor(document: Mapping[str, Any], where: str) -> None:
    """ByteLevel only trims offsets, and a template may be the text alone; others may put special
    tokens around it.
    """
    found: Any = document.get("post_processor")
    if not found or (
        isinstance(found, dict) and (found.get("type") == "ByteLevel" or _is_text_alone(found))
    ):
        return
    name = found.get("type") if isinstance(found, dict) else found
    raise TokenizerError(
        f"{where}: post_processor {name!r:.40} may add tokens to every text, which gpt-edge does "
        "not",
        hint=HINT,
    )


def _is_text_alone(processor: Mapping[str, Any]) -> bool:
    """Whether a template leaves a single text as it is; transformers 5 writes such a one into every
    tokenizer.json.
    """
    template = processor.get("single")
    if (
        processor.get("type") != "TemplateProcessing"
        or not isinstance(template, list)
        or len(template) != 1
    ):
        return False
    return isinstance(template[0], dict) and set(template[0]) == {"Sequence"}
