"""Hugging Face's tokenizer.json and its older pair of files, read without their library: GPT-2's
kind or GPT-1's kind.

A setting that changes ids is honoured, or named in an UnsupportedTokenizer: then the `tokenizers`
library may run the file as it is, see `hf_library.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.detokenizer import END_OF_WORD
from gpt_edge.tokenizer.formats.added_tokens import (
    added_ids,
    merge_added,
    parse_added_tokens,
    rules_of,
    unused_between,
)
from gpt_edge.tokenizer.formats.bpe_files import Merge, ranks_from_merges, unicode_to_byte
from gpt_edge.tokenizer.formats.gpt1_file import (
    BERT_NORMALIZER,
    UNKNOWN,
    check_gpt1_vocabulary,
    format_gpt1_file,
)
from gpt_edge.tokenizer.formats.hf_settings import AddedToken, FolderSettings
from gpt_edge.tokenizer.formats.hf_template import template_tokens
from gpt_edge.tokenizer.formats.json_file import parse_merge_list, parse_vocab
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec
from gpt_edge.tokenizer.special_tokens import ALWAYS, NEVER, TokenRules

RANK_FILE = "tokenizer.tiktoken"
GPT1_FILE = "tokenizer.json"
HINT = "give GPT-2's or GPT-1's tokenizer files, or a .tiktoken rank file: --tokenizer FILE"


class UnsupportedTokenizer(TokenizerError):
    """A tokenizer that is sound, but of neither kind that gpt-edge runs without a library."""


def source_from_json(
    document: Mapping[str, Any], settings: FolderSettings | None, where: str
) -> TokenizerSource:
    """Return the tokenizer of a parsed tokenizer.json. settings: of the files beside it.

    Raises UnsupportedTokenizer for a kind or a setting that gpt-edge does not have.
    """
    settings = settings or FolderSettings()
    model: Any = document.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        found = model.get("type") if isinstance(model, dict) else "none"
        raise UnsupportedTokenizer(f"{where} holds a {found!r:.40} model, expected BPE", hint=HINT)
    check_dropout(model, where)
    for name in ("continuing_subword_prefix", "byte_fallback"):
        if model.get(name):
            raise UnsupportedTokenizer(
                f"{where}: model.{name} is {model[name]!r:.40}, which gpt-edge does not have",
                hint=HINT,
            )
    vocab = parse_vocab(model.get("vocab"), where)
    merges = parse_merge_list(model.get("merges"), where)
    added = merge_added(parse_added_tokens(document.get("added_tokens"), where), settings)
    suffix = model.get("end_of_word_suffix")
    is_gpt1 = suffix == END_OF_WORD
    if suffix and not is_gpt1:
        raise UnsupportedTokenizer(
            f"{where}: model.end_of_word_suffix is {suffix!r:.40}, expected {END_OF_WORD!r} or "
            "none",
            hint=HINT,
        )
    before, after = template_tokens(document, where)
    settings = _ended_by(after, settings, added, where)
    adds_space = False
    if is_gpt1:
        _check_gpt1_settings(document, where)
    else:
        adds_space = _check_byte_settings(document, settings, where)
        if model.get("ignore_merges") and not set(vocab) - set(added) <= made_tokens(merges):
            raise UnsupportedTokenizer(
                f"{where}: model.ignore_merges is set and some tokens are made by no merge",
                hint=HINT,
            )
    return source_from_merges(
        vocab, merges, added, settings, where, before=before, add_prefix_space=adds_space
    )


def _ended_by(
    after: tuple[str, ...],
    settings: FolderSettings,
    added: Mapping[str, AddedToken],
    where: str,
) -> FolderSettings:
    """The settings, with the end token that a template puts after every text; a prompt does without
    it. Raises TokenizerError for another token there.
    """
    if not after:
        return settings
    end = after[-1] if settings.end is None else settings.end
    for text in after:
        if end != text and (text not in added or added[text].id != end):
            raise TokenizerError(
                f"{where}: its post_processor may add tokens after every text, such as "
                f"{text!r:.40}, and it is not the end token",
                hint="name it as eos_token in tokenizer_config.json if it ends a text",
            )
    return dataclasses.replace(settings, end=end)


def source_from_merges(
    vocab: Mapping[str, int],
    merges: list[Merge],
    added: Mapping[str, AddedToken],
    settings: FolderSettings,
    where: str,
    *,
    before: tuple[str, ...] = (),
    add_prefix_space: bool = False,
    is_explicit: bool = True,
) -> TokenizerSource:
    """Return the tokenizer of a vocabulary and its merges, whichever kind they are.

    added: in `vocab` or beyond it. before: the tokens before every text. is_explicit: whether
    `added` holds all tokens that a text may spell. Raises TokenizerError when neither kind fits.
    """
    ids = added_ids(vocab, added, where)
    unused = unused_between(vocab, ids)
    if is_byte_level(vocab):
        content, special_tokens = ranks_from_merges(vocab, merges, added, where)
        _refuse_merged_words(set(vocab) - set(special_tokens), added, where)
        special_tokens |= {text: id for text, id in ids.items() if text not in vocab}
        kind, file = "gpt2", RANK_FILE
    elif any(token.endswith(END_OF_WORD) for token in vocab):
        check_gpt1_vocabulary(vocab, merges, where)
        special_tokens = {UNKNOWN: vocab[UNKNOWN], **ids}
        content = format_gpt1_file(vocab, merges, {**special_tokens, **unused})
        kind, file = "gpt1", GPT1_FILE
    else:
        raise UnsupportedTokenizer(
            f"{where} is neither GPT-2's kind (a token for each of the 256 bytes) nor GPT-1's "
            f"(words that end in {END_OF_WORD})",
            hint=HINT,
        )
    rules = rules_of(special_tokens, added, is_explicit)
    spec = make_spec(
        kind,
        file,
        len(vocab),
        {**special_tokens, **unused},
        settings.end,
        where,
        add_prefix_space=add_prefix_space,
        prefix=_ids_of(before, special_tokens, where),
        token_rules=(*rules, *((text, (NEVER,)) for text in unused)),
        roles=settings.roles,
    )
    return TokenizerSource(spec, content, where)


def make_spec(
    kind: str,
    file: str,
    n_tokens: int,
    special_tokens: Mapping[str, int],
    end: str | int | None,
    where: str,
    *,
    add_prefix_space: bool = False,
    prefix: tuple[int, ...] = (),
    token_rules: TokenRules = (),
    roles: Mapping[str, str] | None = None,
) -> TokenizerSpec:
    """Return the spec of a vocabulary of `n_tokens`, those special tokens counted that lie inside
    it.

    end: the end token's text or id, taken when it is a special token; else `<|endoftext|>` is,
    where there is one. roles: kept are those of special tokens that the end token does not play.
    """
    ends = [id for text, id in special_tokens.items() if end in (text, id)]
    end_token = ends[0] if ends else special_tokens.get(END_OF_TEXT)
    kept_roles = {
        role: text
        for role, text in (roles or {}).items()
        if special_tokens.get(text) not in (None, end_token)
    }
    vocab_size = max([n_tokens - 1, *special_tokens.values()]) + 1
    try:
        return TokenizerSpec(
            kind,
            file,
            vocab_size,
            end_token,
            tuple(special_tokens.items()),
            "gpt2" if kind == "gpt2" else None,
            add_prefix_space,
            prefix,
            token_rules,
            tuple(kept_roles.items()),
        )
    except ValueError as error:
        raise TokenizerError(f"{where}: {error}") from error


def check_dropout(model: Mapping[str, Any], where: str) -> None:
    """Raise TokenizerError for a model that encodes a text differently each time."""
    if model.get("dropout"):
        raise TokenizerError(
            f"{where}: model.dropout is {model['dropout']!r:.40}, which gpt-edge does not have",
            hint="set it to null: it is for training alone",
        )


def _ids_of(texts: tuple[str, ...], ids: Mapping[str, int], where: str) -> tuple[int, ...]:
    for text in texts:
        if text not in ids:
            raise TokenizerError(
                f"{where}: {text!r:.60} is to stand before every text, and is no special token"
            )
    return tuple(ids[text] for text in texts)


def _refuse_merged_words(merged: set[str], added: Mapping[str, AddedToken], where: str) -> None:
    """Raise TokenizerError for a word that text always spells and that merges make too: such a
    token splits words that the merges would join.
    """
    for text, token in added.items():
        if text in merged and ALWAYS in token.rules:
            raise UnsupportedTokenizer(
                f"{where}: the added token {text!r:.60} is also made by merges, which gpt-edge "
                "does not have",
                hint=HINT,
            )


def is_byte_level(vocab: Mapping[str, int]) -> bool:
    """Whether nearly every byte is a token: a vocabulary that lacks a few is meant as one, and
    refused with a better message.
    """
    return sum(character in vocab for character in unicode_to_byte()) > 200


def made_tokens(merges: list[Merge]) -> set[str]:
    """The tokens that bytes and merges make."""
    return {*unicode_to_byte(), *(left + right for left, right in merges)}


def _check_byte_settings(document: Mapping[str, Any], settings: FolderSettings, where: str) -> bool:
    """Return whether a text gets a space before it. Raises UnsupportedTokenizer unless text is
    split as GPT-2 splits it and nothing else happens to it.
    """
    settings.refuse_unsupported()
    splitter: Any = document.get("pre_tokenizer")
    if (
        not isinstance(splitter, dict)
        or splitter.get("type") != "ByteLevel"
        or splitter.get("use_regex") is False
    ):
        found = splitter.get("type") if isinstance(splitter, dict) else None
        raise UnsupportedTokenizer(
            f"{where}: pre_tokenizer is {found!r:.40}, expected ByteLevel with GPT-2's split "
            "pattern",
            hint=HINT,
        )
    if document.get("normalizer"):
        raise UnsupportedTokenizer(
            f"{where}: a normalizer changes the text, GPT-2 has none", hint=HINT
        )
    # transformers sets its own value in place of the file's
    beside = settings.add_prefix_space
    return bool(splitter.get("add_prefix_space", True)) if beside is None else beside


def _check_gpt1_settings(document: Mapping[str, Any], where: str) -> None:
    """Raise UnsupportedTokenizer unless text is lower-cased and split as GPT-1's is."""
    normalizer, splitter = document.get("normalizer"), document.get("pre_tokenizer")
    if normalizer != BERT_NORMALIZER:
        raise UnsupportedTokenizer(
            f"{where}: normalizer is {normalizer!r:.160}, expected {BERT_NORMALIZER}", hint=HINT
        )
    if splitter != {"type": "BertPreTokenizer"}:
        raise UnsupportedTokenizer(
            f"{where}: pre_tokenizer is {splitter!r:.80}, expected BertPreTokenizer", hint=HINT
        )
