"""Parts of a tokenizer.json: what its decoder makes of a token, and what its template adds."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.hf_pieces import pieces_of
from gpt_edge.tokenizer.formats.hf_template import template_tokens

MARK = "\u2581"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True}
METASPACE = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always"}
REPLACE = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
VOCAB = {"a": 0, f"{MARK}b": 1, "\u0120c": 2, "<0xE3>": 4, f"<{MARK}>": 5, "x<0x41>": 6}
ADDED = [{"id": 5, "content": f"<{MARK}>", "special": True}]


def pieces(decoder: dict[str, Any] | None, **document: Any) -> list[bytes | None] | None:
    return pieces_of({"decoder": decoder, "added_tokens": ADDED, **document}, VOCAB, 8)


def in_order(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "decoders": list(parts)}


def test_a_byte_level_decoder_has_stand_ins_for_bytes() -> None:
    as_bytes = [b"a", None, b" c", None, b"<0xE3>", f"<{MARK}>".encode(), b"x<0x41>", None]
    assert pieces(BYTE_LEVEL) == pieces(in_order(BYTE_LEVEL)) == as_bytes
    # without added tokens the mark has no byte
    assert pieces(BYTE_LEVEL, added_tokens=None) == [*as_bytes[:5], None, *as_bytes[6:]]


@pytest.mark.parametrize(
    "decoder",
    [METASPACE, REPLACE, in_order(REPLACE, FUSE, STRIP), in_order(METASPACE, FUSE)],
)
def test_marked_spaces_are_spaces(decoder: dict[str, Any]) -> None:
    marked = [b"a", b" b", "\u0120c".encode(), None, b"<0xE3>", f"<{MARK}>".encode(), b"x<0x41>"]
    assert pieces(decoder) == [*marked, None]
    fallen = pieces(in_order(decoder, FALLBACK) if "decoders" not in decoder else
                    in_order(*decoder["decoders"], FALLBACK))  # fmt: skip
    assert fallen == [*marked[:4], b"\xe3", *marked[5:], None]
    assert pieces(in_order(METASPACE, REPLACE, FALLBACK, FUSE, STRIP)) == fallen


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        in_order(),
        FUSE | {"type": "WordPiece"},
        in_order(BYTE_LEVEL, METASPACE),
        {**METASPACE, "replacement": "_"},
        {**REPLACE, "content": ""},
        {**REPLACE, "pattern": {"String": "_"}},
        {**REPLACE, "pattern": {"Regex": MARK}},
        in_order(METASPACE, {**REPLACE, "content": "-"}),
        in_order(REPLACE, {**METASPACE, "replacement": "_"}),
    ],
)
def test_another_decoder_gives_tokens_no_bytes_of_their_own(decoder: dict[str, Any] | None) -> None:
    assert pieces(decoder) is None


def special(text: Any) -> dict[str, Any]:
    return {"SpecialToken": {"id": text, "type_id": 0}}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def template(*single: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": list(single)}


def around(cls: Any, sep: Any, kind: str = "BertProcessing") -> dict[str, Any]:
    return {"type": kind, "cls": cls, "sep": sep}


@pytest.mark.parametrize(
    ("processor", "tokens"),
    [
        (None, ((), ())),
        (BYTE_LEVEL, ((), ())),
        (template(TEXT), ((), ())),
        (template(special("<s>"), TEXT), (("<s>",), ())),
        (template(special("<s>"), special("<b>"), TEXT, special("</s>")),
         (("<s>", "<b>"), ("</s>",))),
        (around(["[CLS]", 1], ["[SEP]", 2]), (("[CLS]",), ("[SEP]",))),
        (around(["<s>", 0], ["</s>", 2], "RobertaProcessing"), (("<s>",), ("</s>",))),
        ({"type": "Sequence", "processors": []}, ((), ())),
        ({"type": "Sequence", "processors": [BYTE_LEVEL, template(special("<s>"), TEXT)]},
         (("<s>",), ())),
        # what comes later is put around what came before
        ({"type": "Sequence", "processors": [template(special("<1>"), TEXT, special("<2>")),
                                             template(special("<0>"), TEXT, special("<3>"))]},
         (("<0>", "<1>"), ("<2>", "<3>"))),
    ],
)  # fmt: skip
def test_a_template_puts_tokens_around_a_text(processor: Any, tokens: Any) -> None:
    assert template_tokens({"post_processor": processor}, "file") == tokens


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ({"type": "Other"}, "'Other'"),
        ("Sequence", "'Sequence'"),
        (["Sequence"], "'Sequence'"),
        ({"type": "Sequence", "processors": "x"}, "'Sequence'"),
        ({"type": "Other", "processors": [BYTE_LEVEL]}, "'Other'"),
        ({"type": "Sequence", "processors": ["x"]}, "'x'"),
        (around(None, ["[SEP]", 2]), "'BertProcessing'"),
        (around(["[CLS]", 1], []), "'BertProcessing'"),
        (around([1, "[CLS]"], ["[SEP]", 2]), "'BertProcessing'"),
        (around(["[CLS]", 1], ["[SEP]", 2], "Other"), "'Other'"),
        (template(), "'TemplateProcessing'"),
        (template(TEXT, TEXT), "'TemplateProcessing'"),
        (template(special(1)), "'TemplateProcessing'"),
        (template(special("<s>")), "'TemplateProcessing'"),
        (template({**TEXT, "x": 1}), "'TemplateProcessing'"),
        ({**template(), "single": TEXT}, "'TemplateProcessing'"),
    ],
)
def test_another_template_is_refused(processor: Any, name: str) -> None:
    with pytest.raises(TokenizerError, match=f"post_processor .*{name}"):
        template_tokens({"post_processor": processor}, "file")
