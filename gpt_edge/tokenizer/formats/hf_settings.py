"""What stands beside a vocabulary in a Hugging Face folder: tokenizer_config.json,
special_tokens_map.json, added_tokens.json, and the ids in config.json.

A setting that changes ids is honoured or refused by name. Where transformers reads two files
differently, the one that `AutoTokenizer` follows counts. Source: transformers,
tokenization_utils_base.py and tokenization_utils_fast.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.json_file import parse_json, parse_vocab
from gpt_edge.tokenizer.load import read_tokenizer_file
from gpt_edge.tokenizer.special_tokens import ALWAYS, LEFT, RIGHT, WORD

SETTINGS_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
# in the order in which transformers gives ids to those that the vocabulary lacks
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
# settings that change the ids of a byte-level vocabulary in no released tokenizer class
UNSUPPORTED = ("do_lower_case", "add_eos_token")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in a text as it is spelled, before anything else happens to the
    text.
    """

    text: str
    id: int | None  # None: the next free id
    is_special: bool
    rules: tuple[str, ...] = ()  # of `special_tokens.RULES`


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """What the files beside a vocabulary say."""

    values: Mapping[str, Any] = field(default_factory=dict)  # of tokenizer_config.json
    where: str = SETTINGS_FILE
    added: Mapping[str, AddedToken] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    end: str | int | None = None  # the end token's text, or its id in config.json
    # whether a file says which tokens a text may spell; else every special token counts
    is_explicit: bool = False
    model_values: Mapping[str, Any] = field(default_factory=dict)  # of config.json

    @property
    def add_prefix_space(self) -> bool | None:
        """As tokenizer_config.json says; None where it does not."""
        return self._flag("add_prefix_space")

    @property
    def add_bos_token(self) -> bool:
        """Whether the beginning token stands before every text."""
        return self._flag("add_bos_token") or False

    @property
    def do_lower_case(self) -> bool:
        """Whether text is read in lower case."""
        return self._flag("do_lower_case") or False

    def refuse_unsupported(self) -> None:
        """Raise TokenizerError for a setting that gpt-edge does not have."""
        for name in UNSUPPORTED:
            if self._flag(name):
                raise TokenizerError(
                    f"{self.where}: {name} is true, which gpt-edge does not have for this "
                    "vocabulary",
                    hint=f"set {name} to false if the model was trained without it",
                )

    def _flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise TokenizerError(f"{self.where}: {name} is {value!r:.40}, expected true or false")
        return value


def read_folder_settings(folder: Path) -> FolderSettings:
    """Return what the files in `folder` say. Raises TokenizerError for one that is corrupt."""
    values, special = read_object(folder / SETTINGS_FILE), read_object(folder / SPECIAL_TOKENS_FILE)
    where = str(folder / SETTINGS_FILE)
    added: dict[str, AddedToken] = {}
    decoder: Any = values.get("added_tokens_decoder")
    has_decoder = isinstance(decoder, dict)
    if has_decoder:
        added |= _from_decoder(decoder, where)
    tokens = values if has_decoder else _both(values, special)
    roles = {role: text for role in ROLES if (text := _text_of(tokens.get(role))) is not None}
    named = _named_special(tokens, roles, where)
    if not has_decoder:
        added |= _from_added_file(folder / ADDED_TOKENS_FILE, set(named))
    for text, rules in named.items():
        added.setdefault(text, AddedToken(text, None, True, rules))
    model_values = read_object(folder / "config.json")
    end = _end_token(values, special, model_values)
    is_explicit = bool(added) or (folder / SETTINGS_FILE).is_file()
    return FolderSettings(values, where, added, roles, end, is_explicit, model_values)


def added_token(entry: object, id: object, where: str) -> AddedToken:
    """Return one entry of added_tokens or added_tokens_decoder. Raises TokenizerError."""
    text = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(text, str) or type(id) is not int:
        raise TokenizerError(f"{where}: an added token is {entry!r:.80}, expected content and id")
    is_special = bool(entry.get("special"))
    return AddedToken(text, id, is_special, _rules_of(entry, is_special))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no such file."""
    return parse_json(read_tokenizer_file(path), str(path)) if path.is_file() else {}


def _rules_of(entry: Mapping[str, Any], is_special: bool) -> tuple[str, ...]:
    """Source: AddedToken's fields. A token that is not special is found in every text."""
    flags = tuple(name for name in (LEFT, RIGHT, WORD) if entry.get(name))
    return flags if is_special else (ALWAYS, *flags)


def _both(values: Mapping[str, Any], special: Mapping[str, Any]) -> dict[str, Any]:
    """special_tokens_map.json counts before tokenizer_config.json; of one list all tokens do."""
    tokens = {**values, **special}
    name = LISTS[0]
    if isinstance(values.get(name), list) and isinstance(special.get(name), list):
        tokens[name] = [*values[name], *special[name]]
    return tokens


def _from_decoder(decoder: Mapping[str, Any], where: str) -> dict[str, AddedToken]:
    tokens = {}
    for key, entry in decoder.items():
        id = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else None
        token = added_token(entry, id, f"{where}: added_tokens_decoder")
        tokens[token.text] = token
    return tokens


def _from_added_file(path: Path, special: set[str]) -> dict[str, AddedToken]:
    """added_tokens.json says nothing of its tokens but the ids: special are those that another
    file names as such, as in transformers.
    """
    values = read_object(path)
    if not values:
        return {}
    return {
        text: AddedToken(text, id, text in special, () if text in special else (ALWAYS,))
        for text, id in parse_vocab(values, str(path)).items()
    }


def _named_special(
    tokens: Mapping[str, Any], roles: Mapping[str, str], where: str
) -> dict[str, tuple[str, ...]]:
    """The special tokens that the files name by role or in a list, with their rules."""
    named: dict[str, tuple[str, ...]] = {}
    entries = [tokens.get(role) for role in roles]
    for name in LISTS:
        value = tokens.get(name)
        if isinstance(value, dict):  # transformers 4.50 and later: role to token
            value = list(value.values())
        entries += value if isinstance(value, list) else []
    for entry in entries:
        if (text := _text_of(entry)) is None:
            raise TokenizerError(f"{where}: a special token is {entry!r:.60}, expected a text")
        named.setdefault(text, _rules_of(entry, True) if isinstance(entry, dict) else ())
    return named


def _text_of(entry: object) -> str | None:
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) and text else None


def _end_token(*files: Mapping[str, Any]) -> str | int | None:
    """The text of the end token, or its id where only config.json says it."""
    *named, config = files
    for values in named:
        if (text := _text_of(values.get("eos_token"))) is not None:
            return text
    id = config.get("eos_token_id")
    return id if type(id) is int else None
