"""TokenizerSpec: what a manifest may say about a tokenizer, and what it may not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSpec, check_fits
from gpt_edge.tokenizer.spec import OPTIONAL_FIELDS
from gpt_edge.tokenizer.special_tokens import ALWAYS, NEVER, check_rules

SPEC = TokenizerSpec(
    "gpt2", "tokenizer.tiktoken", 259, 258, (("<|endoftext|>", 258), ("<pad>", 257)), "gpt2"
)


def test_a_spec_survives_json() -> None:
    assert TokenizerSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_a_spec_with_settings_survives_json_and_one_without_names_none() -> None:
    assert not set(SPEC.to_dict()) & set(OPTIONAL_FIELDS)
    spec = dataclasses.replace(
        SPEC,
        add_prefix_space=True,
        prefix=(258,),
        token_rules=(("<pad>", ("lstrip", "always")),),
        roles=(("pad_token", "<pad>"),),
    )
    assert spec.token_rules == (("<pad>", ("always", "lstrip")),)
    assert TokenizerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_special_tokens_are_kept_by_id() -> None:
    assert [id for _, id in SPEC.special_tokens] == [257, 258]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "llama"}, "kind must be one of gpt2, gpt1, characters, hf, sentencepiece, got"),
        ({"kind": ["gpt2"]}, "kind must be one of"),
        ({"file": "../tokenizer.tiktoken"}, "plain file name"),
        ({"file": "/etc/passwd"}, "plain file name"),
        ({"file": ".."}, "plain file name"),
        ({"file": "a\n"}, "plain file name"),
        ({"file": "a" * 81}, "plain file name"),
        ({"file": 3}, "plain file name"),
        ({"vocab_size": 0}, "vocab_size must be from 1"),
        ({"vocab_size": True}, "vocab_size must be from 1"),
        ({"vocab_size": 1 << 40}, "vocab_size must be from 1"),
        ({"vocab_size": "259"}, "vocab_size must be from 1"),
        ({"end_token": 259}, "end_token must be an id below 259, got 259"),
        ({"end_token": -1}, "end_token must be an id below 259, got -1"),
        ({"end_token": False}, "end_token must be an id"),
        ({"special_tokens": {"x": 259}}, "special token 'x' must have an id below 259"),
        ({"special_tokens": {"x": "1"}}, "special token 'x' must have an id"),
        ({"special_tokens": {"": 1}}, "non-empty"),
        ({"special_tokens": {"\ud800": 1}}, "valid"),
        ({"special_tokens": {"a": 1, "b": 1}}, "must differ in text and in id"),
        ({"special_tokens": [["a", 1]]}, "special_tokens must be an object, got list"),
        (
            {"pattern": "llama"},
            "pattern must be one of gpt2, cl100k, o200k, or a regular .* 'llama'",
        ),
        (
            {"vocab_size": 1 << 15, "special_tokens": {str(id): id for id in range((1 << 14) + 1)}},
            "special tokens must be at most 16384, got 16385",
        ),
        ({"pattern": "[a]" * 400}, "pattern must be one of gpt2, cl100k, o200k"),
        ({"pattern": None}, "pattern must be one of gpt2, cl100k, o200k, .* got None"),
        ({"kind": "characters"}, "pattern of kind characters must be None, got 'gpt2'"),
        ({"add_prefix_space": 1}, "add_prefix_space must be true or false, got 1"),
        ({"prefix": [259]}, "prefix must be up to 8 ids below 259"),
        ({"prefix": "a"}, "prefix must be up to 8 ids below 259"),
        ({"token_rules": {"x": ["always"]}}, "token_rules names 'x', which is not a special"),
        ({"token_rules": {"<pad>": ["often"]}}, "rules of '<pad>' must be some of always, never"),
        ({"token_rules": {"<pad>": []}}, "rules of '<pad>' must be some of"),
        ({"token_rules": {"<pad>": ["always", "never"]}}, "rules of '<pad>' must be some of"),
        ({"token_rules": []}, "token_rules must be an object, got list"),
        ({"roles": {"bos_token": "<s>"}}, "roles must name special tokens, got 'bos_token'"),
        ({"roles": {"Bos": "<pad>"}}, "roles must name special tokens, got 'Bos'"),
        ({"merges": []}, "unknown tokenizer fields: merges"),
    ],
)
def test_a_wrong_description_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        TokenizerSpec.from_dict({**SPEC.to_dict(), **change})


@pytest.mark.parametrize(
    "field", ["kind", "file", "vocab_size", "end_token", "special_tokens", "pattern"]
)
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    values = SPEC.to_dict()
    del values[field]
    with pytest.raises(TokenizerError, match=f"missing tokenizer fields: {field}"):
        TokenizerSpec.from_dict(values)


def test_a_description_that_is_no_object_is_refused() -> None:
    with pytest.raises(TokenizerError, match="must be an object, got list"):
        TokenizerSpec.from_dict([])  # type: ignore[arg-type]


def test_the_embedding_may_be_larger_than_the_vocabulary_but_not_smaller() -> None:
    check_fits(SPEC, 259)
    check_fits(SPEC, 304)
    with pytest.raises(TokenizerError, match="259 tokens, the model's embedding has 200 rows"):
        check_fits(SPEC, 200)


def test_importing_the_package_loads_no_tokenizer_library() -> None:
    code = (
        "import sys, gpt_edge.tokenizer as t; [getattr(t, name) for name in t.__all__];"
        "print(sorted({'tiktoken', 'tokenizers', 'torch', 'transformers', 'requests'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import gpt_edge.tokenizer

    with pytest.raises(AttributeError, match="no attribute 'Tokeniser'"):
        gpt_edge.tokenizer.Tokeniser  # noqa: B018


def test_a_token_is_not_always_and_never_special() -> None:
    special_tokens = {"<x>": 3}
    with pytest.raises(ValueError, match="the rules of '<x>' must be some of"):
        check_rules((("<x>", (ALWAYS, NEVER)),), special_tokens)
    assert check_rules((("<x>", (ALWAYS,)),), special_tokens) == (("<x>", (ALWAYS,)),)
