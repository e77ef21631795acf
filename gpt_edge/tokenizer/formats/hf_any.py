"""A tokenizer.json of any kind as the source of a bundle's tokenizer: stored as it is, with what
stands beside it written into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.added_tokens import added_ids, parse_added_tokens, rules_of
from gpt_edge.tokenizer.formats.hf_json import check_dropout
from gpt_edge.tokenizer.formats.hf_settings import AddedToken, FolderSettings
from gpt_edge.tokenizer.hf_library import guarded, open_library
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec

FILE = "tokenizer.json"
# tokens that a vocabulary without an end token of its own ends a text with
END_TOKENS = (END_OF_TEXT, "</s>", "[SEP]", "[EOS]", "<eos>")


def source_from_any_json(
    document: Mapping[str, Any], settings: FolderSettings, where: str
) -> TokenizerSource:
    """Return the tokenizer of a tokenizer.json that the `tokenizers` library runs.

    Tokens that its template puts before a text stand before it here too; one after a text must be
    the end token, which a prompt does without. Raises TokenizerError for a file that the library
    refuses, MissingDependencyError without it.
    """
    model = document.get("model")
    if isinstance(model, dict):
        check_dropout(model, where)
    document = _with_prefix_space(document, settings)
    added = {**settings.added, **parse_added_tokens(document.get("added_tokens"), where)}
    content = _with_added(document, settings, where)
    library = open_library(content, where)
    vocab: dict[str, int] = library.get_vocab(with_added_tokens=True)
    before, after = _template(library, where)
    special_tokens = {text: vocab[text] for text in added if text in vocab}
    text_of = {id: text for text, id in vocab.items()}
    special_tokens |= {text_of[id]: id for id in (*before, *after)}
    end = _end_of(settings, special_tokens, after)
    if any(id != end for id in after):
        raise TokenizerError(
            f"{where}: its post_processor puts {text_of[after[0]]!r:.40} after every text, and it "
            "is not the end token",
            hint="name it as eos_token in tokenizer_config.json if it ends a text",
        )
    kept = {role: text for role, text in settings.roles.items() if text in special_tokens}
    try:
        spec = TokenizerSpec(
            "hf",
            FILE,
            max(vocab.values()) + 1,
            end,
            tuple(special_tokens.items()),
            prefix=before,
            token_rules=rules_of(special_tokens, added, is_explicit=False),
            roles=tuple(kept.items()),
        )
    except ValueError as error:
        raise TokenizerError(f"{where}: {error}") from error
    return TokenizerSource(spec, content, where)


def _with_prefix_space(document: Mapping[str, Any], settings: FolderSettings) -> Mapping[str, Any]:
    """The file with the add_prefix_space of tokenizer_config.json, which transformers writes into a
    pre_tokenizer that has one, and not into the parts of a Sequence.
    """
    wanted, splitter = settings.add_prefix_space, document.get("pre_tokenizer")
    if wanted is None or not isinstance(splitter, dict) or "add_prefix_space" not in splitter:
        return document
    return {**document, "pre_tokenizer": {**splitter, "add_prefix_space": wanted}}


def _with_added(document: Mapping[str, Any], settings: FolderSettings, where: str) -> bytes:
    """The file with the tokens that only the files beside it name."""
    own = parse_added_tokens(document.get("added_tokens"), where)
    missing = {text: token for text, token in settings.added.items() if text not in own}
    if not missing:
        return _json(document)
    library = open_library(_json(document), where)
    vocab = library.get_vocab(with_added_tokens=True)
    ids = added_ids(vocab, missing, where)
    entries = [_entry(token, ids[text]) for text, token in missing.items()]
    listed = [*(document.get("added_tokens") or []), *entries]
    listed.sort(key=lambda entry: int(entry["id"]))
    return _json({**document, "added_tokens": listed})


def _entry(token: AddedToken, id: int) -> dict[str, Any]:
    flags = {name: name in token.rules for name in ("lstrip", "rstrip", "single_word")}
    return {
        "id": id,
        "content": token.text,
        **flags,
        "normalized": not token.is_special,
        "special": token.is_special,
    }


def _template(library: Any, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text, found by encoding one."""
    encoding = guarded(lambda: library.encode("a b", add_special_tokens=True), where)
    plain: list[int] = library.encode("a b", add_special_tokens=False).ids
    ids: list[int] = encoding.ids
    starts = [n for n in range(len(ids) + 1) if ids[n : n + len(plain)] == plain]
    if not starts:
        raise TokenizerError(f"{where}: its post_processor changes the tokens of a text")
    return tuple(ids[: starts[0]]), tuple(ids[starts[0] + len(plain) :])


def _end_of(
    settings: FolderSettings, special_tokens: Mapping[str, int], after: tuple[int, ...]
) -> int | None:
    """The end token: named by the folder, put after every text, or known by its name."""
    for text, id in special_tokens.items():
        if settings.end in (text, id):
            return id
    if after:
        return after[-1]
    return next((special_tokens[text] for text in END_TOKENS if text in special_tokens), None)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
