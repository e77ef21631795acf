"""The post_processor of a tokenizer.json: which tokens it puts before and after every text.

Source: Hugging Face's tokenizers, processors: TemplateProcessing, BertProcessing,
RobertaProcessing, ByteLevel (which only trims offsets) and a Sequence of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.errors import TokenizerError

HINT = "gpt-edge reads templates of a single text with special tokens around it"


def template_tokens(
    document: Mapping[str, Any], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts of the tokens before and after a single text. Raises TokenizerError for a
    processor that may add tokens in another way.
    """
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    for processor in _processors(document.get("post_processor"), where):
        inner = _around(processor, where)
        before, after = (*inner[0], *before), (*after, *inner[1])
    return before, after


def _processors(value: Any, where: str) -> list[Mapping[str, Any]]:
    """The processors in order; a Sequence holds several."""
    if not value:
        return []
    if isinstance(value, dict) and value.get("type") == "Sequence":
        inner = value.get("processors")
        if isinstance(inner, list):
            return [part for one in inner for part in _processors(one, where)]
    if not isinstance(value, dict):
        raise _unknown(value, where)
    return [value]


def _around(processor: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kind = processor.get("type")
    if kind == "ByteLevel":
        return (), ()
    if kind in ("BertProcessing", "RobertaProcessing"):
        pair = processor.get("cls"), processor.get("sep")
        if all(isinstance(one, list) and one and isinstance(one[0], str) for one in pair):
            return (pair[0][0],), (pair[1][0],)  # type: ignore[index]
    if kind == "TemplateProcessing" and isinstance(template := processor.get("single"), list):
        texts = [_special_text(part) for part in template]
        middle = texts.index(None) if texts.count(None) == 1 else None
        if middle is not None and _is_text(template[middle]):
            known = [text for text in texts if text is not None]
            return tuple(known[:middle]), tuple(known[middle:])
    raise _unknown(kind, where)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and set(part) == {"Sequence"}


def _special_text(part: Any) -> str | None:
    """The token of a part of a template; None for the text itself, or for what is neither."""
    token = part.get("SpecialToken") if isinstance(part, dict) else None
    text = token.get("id") if isinstance(token, dict) else None
    return text if isinstance(text, str) else None


def _unknown(name: object, where: str) -> TokenizerError:
    return TokenizerError(
        f"{where}: post_processor {name!r:.40} may add tokens to every text, which gpt-edge does "
        "not",
        hint=HINT,
    )
