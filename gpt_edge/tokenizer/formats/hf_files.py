"""A tokenizer as Hugging Face's files: tokenizer.json, vocab.json, merges.txt, and the two that
name special tokens.

The way back from `bpe_files.py`: the merges are recovered from the ranks. Exact or refused: what
was written is read again, and every id, token and merge must come back. Needs no library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.bpe_files import Merge, byte_names, join_by_rank, spell
from gpt_edge.tokenizer.formats.gpt1_file import UNKNOWN, parse_gpt1_file
from gpt_edge.tokenizer.formats.hf_json import source_from_json
from gpt_edge.tokenizer.formats.hf_settings import FolderSettings
from gpt_edge.tokenizer.formats.json_file import parse_json
from gpt_edge.tokenizer.formats.rank_file import RankTable, parse_ranks
from gpt_edge.tokenizer.spec import TokenizerSource, TokenizerSpec
from gpt_edge.tokenizer.special_tokens import ALWAYS, LEFT, NEVER, RIGHT, WORD

VERSION_LINE = "#version: 0.2"  # transformers skips the first line of merges.txt, whatever it is
FILE_NAMES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
HINT = "such a vocabulary can be used by gpt-edge alone"


def hf_files(source: TokenizerSource, n_ctx: int) -> dict[str, bytes]:
    """Return the content of each of FILE_NAMES for a tokenizer, of kind hf without vocab.json and
    merges.txt; n_ctx is the longest text that its model reads, in tokens.

    Raises TokenizerError for a vocabulary that merges cannot express: a token that no pair of
    lower-ranked tokens makes, or a special token whose text is another token's name; and for a kind
    or a split pattern that these files do not have here.
    """
    spec = source.spec
    if spec.kind == "hf":
        return _library_files(source, n_ctx)
    if spec.kind not in ("gpt2", "gpt1") or spec.pattern not in ("gpt2", None):
        what = f"kind {spec.kind}" if spec.pattern is None else f"pattern {spec.pattern:.40}"
        beside = ", and its file can be put beside it" if spec.kind == "sentencepiece" else ""
        raise TokenizerError(
            f"{source.origin} is a tokenizer of the {what}, which gpt-edge does not write as "
            "Hugging Face's files",
            hint=f"--tokenizer none writes the model alone{beside}",
        )
    if spec.kind == "gpt1":
        vocab, merges = parse_gpt1_file(source.content, spec, source.origin)
        names = _names_with_special(vocab, spec, source.origin)
        document = source.content
    else:
        table = parse_ranks(source.content, source.origin)
        merges = merges_from_ranks(table, source.origin)
        names_of_bytes = byte_names()
        plain = {
            spell(token, names_of_bytes): id
            for token, id in zip(table.tokens, table.ids, strict=True)
        }
        names = _names_with_special(plain, spec, source.origin)
        document = _json(_byte_level_document(names, merges, spec))
    ordered = dict(sorted(names.items(), key=lambda item: item[1]))
    merge_lines = [VERSION_LINE, *(f"{left} {right}" for left, right in merges)]
    files = {
        "tokenizer.json": document,
        "vocab.json": _json(ordered),
        "merges.txt": ("\n".join(merge_lines) + "\n").encode("utf-8"),
        "tokenizer_config.json": _json(_settings(spec, n_ctx), indent=1),
        "special_tokens_map.json": _json(_roles(spec), indent=1),
    }
    _check_round_trip(source, files)
    return files


def _library_files(source: TokenizerSource, n_ctx: int) -> dict[str, bytes]:
    """The files of a tokenizer.json that is kept as it is. transformers sets add_prefix_space of
    its pre_tokenizer anew, so that is said again.
    """
    spec = source.spec
    splitter = parse_json(source.content, source.origin).get("pre_tokenizer")
    adds_space = isinstance(splitter, dict) and splitter.get("add_prefix_space")
    end = next((text for text, id in spec.special_tokens if id == spec.end_token), None)
    roles = {**({"eos_token": end} if end else {}), **dict(spec.roles)}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": n_ctx,
        "clean_up_tokenization_spaces": False,
        **({"add_prefix_space": True} if adds_space else {}),
        **roles,
    }
    return {
        "tokenizer.json": source.content,
        "tokenizer_config.json": _json(settings, indent=1),
        "special_tokens_map.json": _json(roles, indent=1),
    }


def merges_from_ranks(table: RankTable, where: str) -> list[Merge]:
    """Return the merges of a rank table, lowest rank first, in GPT-2's stand-ins for bytes.

    The two parts of a token are what byte-pair encoding with only the lower ranks leaves of it.
    Raises TokenizerError for a token of which it leaves more: no list of merges makes that one.
    Source: the same recovery is known from transformers' TikTokenConverter.
    """
    rank_of = dict(zip(table.tokens, table.ranks, strict=True))
    names, merges = byte_names(), []
    for token, rank in sorted(rank_of.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = join_by_rank(token, rank_of, below=rank)
        if len(parts) != 2:
            raise TokenizerError(
                f"{where}: the token {token!r:.60} (rank {rank}) is no pair of lower-ranked "
                "tokens, its bytes join to "
                f"{len(parts)}: merges.txt cannot say it",
                hint=HINT,
            )
        merges.append((spell(parts[0], names), spell(parts[1], names)))
    return merges


def _names_with_special(
    vocab: Mapping[str, int], spec: TokenizerSpec, where: str
) -> dict[str, int]:
    """Special tokens go into the vocabulary under their own text, where every reader looks for
    them.
    """
    names = dict(vocab)
    for text, id in spec.special_tokens:
        if names.setdefault(text, id) != id:
            raise TokenizerError(
                f"{where}: the special token {text!r:.60} (id {id}) is spelled like the token "
                f"{names[text]}, and "
                "vocab.json can hold only one of them",
                hint=HINT,
            )
    return names


def _byte_level_document(
    names: Mapping[str, int], merges: Sequence[Merge], spec: TokenizerSpec
) -> dict[str, Any]:
    """tokenizer.json as the `tokenizers` library writes GPT-2's."""
    rules_of = dict(spec.token_rules)
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": spec.add_prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, **_added(text, rules_of.get(text, ()))}
            for text, id in spec.special_tokens
            if NEVER not in rules_of.get(text, ())
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _template(spec) or {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(names.items(), key=lambda item: item[1])),
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def _template(spec: TokenizerSpec) -> dict[str, Any] | None:
    """The post_processor that puts the prefix before a text."""
    if not spec.prefix:
        return None
    text_of = {id: text for text, id in spec.special_tokens}
    names = [text_of[id] for id in spec.prefix]
    single = [*({"SpecialToken": {"id": name, "type_id": 0}} for name in names)]
    return {
        "type": "TemplateProcessing",
        "single": [*single, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            *single,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            name: {"id": name, "ids": [id], "tokens": [name]}
            for name, id in zip(names, spec.prefix, strict=True)
        },
    }


def _added(text: str, rules: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "content": text,
        "single_word": WORD in rules,
        "lstrip": LEFT in rules,
        "rstrip": RIGHT in rules,
        "normalized": False,
        "special": ALWAYS not in rules,
    }


def _settings(spec: TokenizerSpec, n_ctx: int) -> dict[str, Any]:
    is_gpt1 = spec.kind == "gpt1"
    rules_of = dict(spec.token_rules)
    return {
        "tokenizer_class": "OpenAIGPTTokenizer" if is_gpt1 else "GPT2Tokenizer",
        **({} if is_gpt1 else {"add_prefix_space": spec.add_prefix_space}),
        "model_max_length": n_ctx,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(id): _added(text, rules_of.get(text, ()))
            for text, id in spec.special_tokens
            if NEVER not in rules_of.get(text, ())
        },
        **_roles(spec),
    }


def _roles(spec: TokenizerSpec) -> dict[str, str]:
    """What transformers calls the special tokens. GPT-2's one token begins and ends a text, and is
    what is unknown.
    """
    end = next((text for text, id in spec.special_tokens if id == spec.end_token), None)
    roles = dict(spec.roles)
    if spec.kind == "gpt1":
        return {"unk_token": UNKNOWN, **({"eos_token": end} if end else {}), **roles}
    return {**({"bos_token": end, "eos_token": end, "unk_token": end} if end else {}), **roles}


def _check_round_trip(source: TokenizerSource, files: Mapping[str, bytes]) -> None:
    """Read tokenizer.json again: every id, merge and special token must be what it was."""
    spec, where = source.spec, "the tokenizer.json to be written"
    end = next((text for text, id in spec.special_tokens if id == spec.end_token), None)
    document = parse_json(files["tokenizer.json"], where)
    read = source_from_json(document, FolderSettings(end=end), where)
    # one without a row ends nothing, and the file does not say so; see `fit_source`
    end_token = read.spec.end_token if spec.end_token is None else spec.end_token
    wanted = dataclasses.replace(spec, file=read.spec.file, roles=(), end_token=end_token)
    is_same = read.spec == wanted
    if spec.kind == "gpt1":
        expected = parse_gpt1_file(source.content, spec, source.origin)
        is_same = is_same and parse_gpt1_file(read.content, read.spec, where) == expected
    else:
        is_same = is_same and _meaning(source) == _meaning(read)
    if not is_same:
        raise TokenizerError(
            f"{source.origin} does not come back from Hugging Face's files as it was", hint=HINT
        )


def _meaning(source: TokenizerSource) -> tuple[list[bytes], list[bytes]]:
    """The token of each id, and the joined tokens in the order of their ranks."""
    table = parse_ranks(source.content, source.origin)
    by_rank = sorted(zip(table.ranks, table.tokens, strict=True))
    by_id = table.by_id(dict(source.spec.special_tokens), source.spec.vocab_size, source.origin)
    return by_id, [token for _, token in by_rank if len(token) > 1]


def _json(value: object, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return (
        json.dumps(value, ensure_ascii=False, indent=indent, separators=separators) + "\n"
    ).encode("utf-8")
