"""Is a bundle's tokenizer that of the checkpoint? Its settings, the bytes of every token, how they
are joined, and the ids of texts that are hard to cut.

Two vocabularies of the same tokens may still read a text differently (two merges in another order),
so each is compared by itself, and the first token, merge or text that differs is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import TokenizerError
from gpt_edge.tasks import n_text_rows
from gpt_edge.tokenizer import (
    Tokenizer,
    TokenizerSource,
    TokenizerSpec,
    build_tokenizer,
    fit_to_rows,
)
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.load import read_tokenizer_file
from gpt_edge.verify.parity import PASSAGE

# what a text may hold that splits differently: spaces, contractions, digits, marks, scripts,
# characters of several bytes and of several code points, controls
TORTURE = (
    PASSAGE,
    "  two  spaces,   three,\tone tab\t\ttwo \n\n\n lines \r\n of \u00a0 DOS\u2003",
    "I'm you're he'LL THEY'VE don't 'S 'T 'x x' ''s \u2019s o'clock rock'n'roll",
    "1 12 123 1234 12345678901234567890 3.14 1,000,000 0x1F 2^10 50% $5 \u00bd \u0663\u0664 \u2167",
    "foo_bar fooBar FOOBar foo-bar foo.bar(baz)[0]{x}=>#!/usr/bin/env <a href='b'>&amp;</a>",
    "Gr\u00f6\u00dfe na\u00efve e\u0301 \u00c5ngstr\u00f6m \u01c4 \ufb01 \u0130 \u1e9e",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764",
    "\x00\x01\x1f\x7f\x80\x9f\ufeff\ufffd\u2028\u2029\u200b",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "!" * 33 + " " * 35 + "=" * 34,
    "",
    " ",
    "\n",
)
N_DRAWN = 64  # texts of tokens drawn from the vocabulary
TOKENS_OF_A_TEXT = 24
SEED = 20190214
MAX_FAULTS = 8


def compare_tokenizers(bundle: Bundle, source: TokenizerSource) -> list[str]:
    """What differs between a bundle's tokenizer and `source`, the checkpoint's, the first token
    first; empty where nothing does.

    Raises BundleError for a bundle without a tokenizer, TokenizerError for one that is corrupt.
    """
    assert bundle.manifest.tokenizer is not None
    spec = TokenizerSpec.from_dict(bundle.manifest.tokenizer)
    ours = bundle.load_tokenizer()
    n_rows = n_text_rows(bundle.config.vocab_size, bundle.task)
    theirs = fit_to_rows(build_tokenizer(source), n_rows)
    content = read_tokenizer_file(bundle.path / spec.file)
    faults = [
        *_token_faults(ours, theirs),
        *_setting_faults(spec, source.spec),
        *_content_faults(spec.kind, content, source),
        *_text_faults(ours, theirs, source.spec),
    ]
    return faults[:MAX_FAULTS]


def _token_faults(ours: Tokenizer, theirs: Tokenizer) -> Iterator[str]:
    n_both = min(ours.vocab_size, theirs.vocab_size)
    differing = [id for id in range(n_both) if ours.token_bytes(id) != theirs.token_bytes(id)]
    if differing:
        id = differing[0]
        yield (
            f"token {id} is {ours.token_bytes(id)!r:.60}, the checkpoint's is "
            f"{theirs.token_bytes(id)!r:.60}{_more(len(differing) - 1, 'token')}"
        )
    if ours.vocab_size > n_both:
        extra = f"the first that the checkpoint lacks is {ours.token_bytes(n_both)!r:.60}"
        yield f"it has {ours.vocab_size} tokens, the checkpoint {n_both}: {extra}"
    if theirs.vocab_size > n_both:
        missing = f"the first that is missing is {theirs.token_bytes(n_both)!r:.60}"
        yield f"it has {n_both} tokens, the checkpoint {theirs.vocab_size}: {missing}"


def _more(number: int, what: str) -> str:
    return f" (and {number:,} more {what}{'s' * (number > 1)})" if number else ""


def _setting_faults(ours: TokenizerSpec, theirs: TokenizerSpec) -> Iterator[str]:
    """Each setting of the manifest that differs; the file's name is the bundle's own."""
    expected = theirs.to_dict()
    actual = ours.to_dict()
    for name in sorted({*expected, *actual} - {"file", "vocab_size"}):
        a, b = actual.get(name), expected.get(name)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            first = next(key for key in sorted({*a, *b}) if a.get(key) != b.get(key))
            which = f"{name} of {first!r:.60} is {a.get(first)!r:.60}"
            yield f"{which}, the checkpoint's is {b.get(first)!r:.60}"
        else:
            yield f"its {name} is {a!r:.80}, the checkpoint's is {b!r:.80}"


def _content_faults(kind: str, content: bytes, source: TokenizerSource) -> Iterator[str]:
    """How tokens are joined: ranks, merges, and whatever else the file says."""
    if content == source.content or kind != source.spec.kind:
        return
    if kind == "gpt2":
        yield from _rank_faults(content, source)
        return
    try:
        ours, theirs = json.loads(content), json.loads(source.content)
    except (ValueError, RecursionError):  # a model of SentencePiece
        yield "its file is not that of the checkpoint"
        return
    if difference := _first_difference(ours, theirs, ""):
        yield f"its file differs from the checkpoint's at {difference}"


def _rank_faults(content: bytes, source: TokenizerSource) -> Iterator[str]:
    ours, theirs = parse_ranks(content, "the bundle"), parse_ranks(source.content, source.origin)
    ranks = dict(zip(ours.tokens, ours.ranks, strict=True))
    expected = dict(zip(theirs.tokens, theirs.ranks, strict=True))
    differing = [token for token in expected if ranks.get(token) != expected[token]]
    differing += [token for token in ranks if token not in expected]
    if differing:
        token = differing[0]
        yield (
            f"the rank of {token!r:.60} is {ranks.get(token)}, the checkpoint's is "
            f"{expected.get(token)}{_more(len(differing) - 1, 'rank')}"
        )


def _first_difference(ours: Any, theirs: Any, place: str) -> str:
    """Where two JSON values first differ, with both values; "" where they are equal."""
    if type(ours) is type(theirs) and isinstance(ours, dict):
        for key in sorted({*ours, *theirs}):
            if key not in ours or key not in theirs:
                side = "the bundle" if key not in ours else "the checkpoint"
                return f"{place}.{key!s:.40}, which {side} lacks"
            if found := _first_difference(ours[key], theirs[key], f"{place}.{key!s:.40}"):
                return found
        return ""
    if type(ours) is type(theirs) and isinstance(ours, list):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b and (found := _first_difference(a, b, f"{place}[{index}]")):
                return found
        if len(ours) != len(theirs):
            return f"{place}, which has {len(ours)} values against {len(theirs)}"
        return ""
    return "" if ours == theirs else f"{place}: {ours!r:.60} against {theirs!r:.60}"


def _text_faults(ours: Tokenizer, theirs: Tokenizer, spec: TokenizerSpec) -> Iterator[str]:
    """The first text that becomes other ids."""
    for text in (*TORTURE, *_special_texts(spec), *_drawn_texts(theirs)):
        for special in (False, True):
            found, expected = _encode(ours, text, special), _encode(theirs, text, special)
            if found == expected:
                continue
            at = _first_unequal(found, expected)
            yield (
                f"the text {text!r:.60} becomes other ids: id {at} is "
                f"{_shown(found, at, ours)}, the checkpoint's is {_shown(expected, at, theirs)}"
            )
            return
    characters = [chr(code) for code in range(1, 0x250)]
    differing = [c for c in characters if _encode(ours, c, False) != _encode(theirs, c, False)]
    if differing:
        yield f"the text {differing[0]!r} becomes other ids"


def _special_texts(spec: TokenizerSpec) -> Iterator[str]:
    for text, _ in spec.special_tokens[:32]:
        yield f"a {text} b{text}{text}c"


def _drawn_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Texts whose tokens meet in ways that no passage has."""
    rng = np.random.default_rng(SEED)
    for _ in range(N_DRAWN):
        ids = rng.integers(0, tokenizer.vocab_size, TOKENS_OF_A_TEXT)
        yield tokenizer.decode([int(id) for id in ids])


def _encode(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    """Ids of a text; of one that the model does not have, those of its other characters."""
    try:
        return tokenizer.encode(text, special=special)
    except TokenizerError:
        ids: list[int] = []
        for character in text:
            try:
                ids += tokenizer.encode_part(character, special=special)
            except TokenizerError:
                ids.append(-1)
        return ids


def _first_unequal(found: Sequence[int], expected: Sequence[int]) -> int:
    pairs = enumerate(zip(found, expected, strict=False))
    both = min(len(found), len(expected))
    return next((i for i, (a, b) in pairs if a != b), both)


def _shown(ids: Sequence[int], at: int, tokenizer: Tokenizer) -> str:
    if at >= len(ids):
        return "none"
    if ids[at] < 0:
        return "unknown"
    return f"{ids[at]} {tokenizer.token_bytes(ids[at])!r:.40}"
