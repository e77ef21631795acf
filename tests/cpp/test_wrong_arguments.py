"""Arguments that are wrong: an error with one line, never a crash."""

from __future__ import annotations

import ctypes
import math

import pytest

from tests.conftest import REPO
from tests.support.cpp_library import CppError, CppLibrary, CppModel, OnText, Params

TINY = REPO / "tests" / "golden" / "tiny-edge"

SETTINGS: tuple[tuple[dict[str, object], str], ...] = (
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ({"top_k": -1}, "top_k must be at least 1"),
    ({"temperature": math.nan}, "temperature must be a finite"),
    ({"temperature": math.inf}, "temperature must be a finite"),
    ({"top_p": 0.0}, "top_p must be above 0"),
    ({"top_p": 1.5}, "top_p must be above 0"),
    ({"min_p": math.nan}, "min_p must be from 0 to 1"),
    ({"typical_p": 2.0}, "typical_p must be"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
    ({"presence_penalty": math.nan}, "presence_penalty must be"),
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be"),
    ({"min_new_tokens": -1}, "min_new_tokens must be"),
    ({"stop": [""]}, "a stop string must be 1 to 64 characters"),
    ({"stop": ["é" * 65]}, "a stop string must be 1 to 64 characters"),
    ({"stop": list("abcde")}, "n_stop must be at most 4"),
    ({"stop_token_ids": [277]}, "a stop token's id must be in the vocabulary"),
    ({"stop_token_ids": [-1]}, "a stop token's id must be in the vocabulary"),
)


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=repr)
def test_a_setting_out_of_range_is_refused(
    settings: dict[str, object], message: str, tiny: CppModel
) -> None:
    with pytest.raises(CppError, match=message) as error:
        tiny.generate("ab", **settings)
    assert error.value.status == "invalid_argument"


PROMPTS: tuple[tuple[str | bytes | list[int], str, str], ...] = (
    (b"a\xff", "invalid_argument", "byte 1 is not"),
    (b"\xed\xa0\x80", "invalid_argument", "byte 0 is not"),
    (b"\xf4\x90\x80\x80", "invalid_argument", "byte 0 is not"),
    (b"\xc0\x80", "invalid_argument", "byte 0 is not"),
    (b"ok \xe2\x82", "invalid_argument", "byte 3 is not"),
    ("xyz" * 30, "context_length", "the context of this model holds 64"),
    ("x" * 100_000, "context_length", "bytes, more than the context of 64 tokens can hold"),
    ([1] * 65, "context_length", "the prompt has 65 tokens"),
    ([], "invalid_argument", "ids must be at least one"),
    ([277], "invalid_argument", "an id must be in the vocabulary"),
    ([-1], "invalid_argument", "an id must be in the vocabulary"),
)


@pytest.mark.parametrize(
    ("prompt", "status", "message"), PROMPTS, ids=lambda value: repr(value)[:30]
)
def test_a_prompt_that_cannot_be_read_is_refused(
    prompt: str | bytes | list[int], status: str, message: str, tiny: CppModel
) -> None:
    with pytest.raises(CppError, match=message) as error:
        tiny.generate(prompt)
    assert error.value.status == status


def test_a_pointer_that_is_null_is_an_error(cpp: CppLibrary, tiny: CppModel) -> None:
    c, size = cpp.c, ctypes.c_size_t
    model = ctypes.c_void_p()
    calls = (
        lambda: c.gpt_edge_open(None, None, ctypes.byref(model)),
        lambda: c.gpt_edge_open(str(TINY).encode(), None, None),
        lambda: c.gpt_edge_generate(None, b"a", size(1), None, OnText(), None, None),
        lambda: c.gpt_edge_generate(tiny.handle, None, size(1), None, OnText(), None, None),
        lambda: c.gpt_edge_generate_ids(tiny.handle, None, size(1), None, OnText(), None, None),
        lambda: c.gpt_edge_encode(tiny.handle, b"a", size(1), 0, None, size(0), None),
        lambda: c.gpt_edge_encode(
            tiny.handle, b"a", size(1), 0, None, size(1), ctypes.byref(size())
        ),
        lambda: c.gpt_edge_decode(tiny.handle, None, size(1), None, size(0), ctypes.byref(size())),
        lambda: c.gpt_edge_get_defaults(tiny.handle, None),
        lambda: c.gpt_edge_get_defaults(None, ctypes.byref(Params())),
    )
    for number, call in enumerate(calls):
        assert call() == 1, number
        assert b"NULL" in c.gpt_edge_last_error()
    c.gpt_edge_close(None)
    c.gpt_edge_free_result(None)
    c.gpt_edge_init_params(None)
    assert (c.gpt_edge_n_ctx(None), c.gpt_edge_vocab_size(None)) == (0, 0)


def test_a_prompt_of_no_bytes_needs_no_pointer_and_no_result(
    cpp: CppLibrary, tiny: CppModel
) -> None:
    call = cpp.c.gpt_edge_generate
    assert call(tiny.handle, None, ctypes.c_size_t(0), None, OnText(), None, None) == 0
