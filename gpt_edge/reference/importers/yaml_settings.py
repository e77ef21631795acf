"""Settings of a model in the YAML file that Lightning and Hydra leave near a checkpoint.

Read is what such files have: mappings by indentation, of numbers, words and quoted texts. A tag
such as `!!python/object:model.Config` says which class a mapping was, and is passed over: nothing
is run. So are lists, texts of several lines, anchors and flow mappings. No library is needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gpt_edge.reference.importers.settings import MAX_CONFIG_BYTES

FILES = ("hparams.yaml", "config.yaml", ".hydra/config.yaml")
_KEY = re.compile(r"( *)([A-Za-z_][\w-]*):(?:\s+(.*))?")
_COMMENT = re.compile(r"(^|\s)#.*")
_WORD = re.compile(r"[A-Za-z_][\w./-]*")
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?")
_FLAGS = {"true": True, "false": False}


def settings_near(file: Path) -> tuple[Path, dict[str, Any]] | None:
    """The nearest such file of a checkpoint, in its folder or the one above, and its mappings; None
    where there is none, or none that can be read.
    """
    for folder in (file.parent, file.parent.parent):
        for name in FILES:
            path = folder / name
            try:
                if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
                    continue
                found = parse_mappings(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if found:
                return path, found
    return None


def parse_mappings(text: str) -> dict[str, Any]:
    """The plain values of a YAML text. Raises ValueError for a key that comes twice, and for
    indentation by tabs.
    """
    root: dict[str, Any] = {}
    open_mappings = [(-1, root)]  # by indentation
    for whole in text.splitlines():
        line = _COMMENT.sub("", whole).rstrip()
        if not line or line == "---":
            continue
        content = line.lstrip(" ")
        if content.startswith("\t"):
            raise ValueError("a line is indented by a tab")
        indent = len(line) - len(content)
        while open_mappings[-1][0] >= indent:
            open_mappings.pop()
        found = _KEY.fullmatch(line)
        # what is deeper than a list's entry or than a value goes into a mapping that nobody reads
        inner: dict[str, Any] = {}
        if found is not None:
            _put(open_mappings[-1][1], found[2], (found[3] or "").strip(), inner)
        open_mappings.append((indent, inner))
    return root


def _put(mapping: dict[str, Any], name: str, value: str, inner: dict[str, Any]) -> None:
    if name in mapping:
        raise ValueError(f"the key {name} comes twice")
    is_opening = not value or re.fullmatch(r"!\S*", value)
    scalar = inner if is_opening else _scalar(value)
    if scalar is not None:
        mapping[name] = scalar


def _scalar(text: str) -> int | float | str | bool | None:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        is_plain = not set(text[1:-1]) & {"\\", text[0]}
        return text[1:-1] if is_plain else None
    if text.lower() in _FLAGS:
        return _FLAGS[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    is_word = _WORD.fullmatch(text) is not None and text.lower() != "null"
    return text if is_word else None
