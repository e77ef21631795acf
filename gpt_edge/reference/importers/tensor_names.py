"""Tensors under other names: a prefix before all of them, as wrappers write it, and heads that a
language model does not have.

torch.compile writes `_orig_mod.`, DataParallel `module.`, PEFT and TRL `pretrained_model.`,
Lightning the attribute's name. A prefix is taken away only where the whole model shares it, and the
checkpoint notes it. Knows nothing of shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpt_edge.arrays import FloatArray
from gpt_edge.reference.importers.sources import TensorInfo, TensorSource, printable

TRANSFORMER = "transformer."  # where a model with a head keeps what is below the head
OLD_HEAD = "lm_head.decoder.weight"  # DialoGPT's name for "lm_head.weight"
MAX_LISTED = 3
# what wrappers of single layers leave inside names: torch.compile, FSDP, activation checkpointing
_WRAPPERS = re.compile(r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# value heads (TRL, trlX), a second head (GPT2DoubleHeadsModel), and those of transformers'
# classifiers; never lm_head or task_head, which mean something
_OTHER_HEADS = re.compile(
    r"((?!lm_head\.|task_head\.)\w*heads?(_\w+)?|score|classifier|qa_outputs|summary)(\..+)?"
)


@dataclass(frozen=True)
class RenamedTensors:
    """A TensorSource some of whose tensors have other names."""

    source: TensorSource
    stored_names: Mapping[str, str]  # of every tensor, by its name here

    @property
    def where(self) -> str:
        """As TensorSource.where."""
        return self.source.where

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """As TensorSource.infos."""
        infos = self.source.infos
        return {name: infos[stored] for name, stored in self.stored_names.items()}

    def read(self, name: str) -> FloatArray:
        """As TensorSource.read."""
        return self.source.read(self.stored_names[name])

    def release(self, name: str) -> None:
        """As TensorSource.release."""
        self.source.release(self.stored_names[name])


def is_other_head(name: str) -> bool:
    """Whether a tensor belongs to a head beside the language model's, which its logits never
    read.
    """
    return name == OLD_HEAD or _OTHER_HEADS.fullmatch(name) is not None


def common_prefix(names: Iterable[str], anchor: str, parent: str = TRANSFORMER) -> str:
    """What stands before the model's names, "" where nothing does.

    anchor: a tensor that every model has once, such as "wpe.weight"; where the model lies below
    `parent`, that belongs to the names. A name that lacks the prefix is no part of the model,
    and is refused as unknown unless it is another head's.
    """
    anchors = [name for name in names if name == anchor or name.endswith(f".{anchor}")]
    if len(anchors) != 1:
        return ""
    return anchors[0].removesuffix(anchor).removesuffix(parent)


def plain_names_of(
    names: Iterable[str], anchor: str, parent: str = TRANSFORMER
) -> tuple[dict[str, str], list[str]]:
    """Each name without a common prefix and without what wrappers of layers left inside it, and
    notes. anchor, parent: as in `common_prefix`.
    """
    names = list(names)
    notes = []
    if prefix := common_prefix(names, anchor, parent):
        notes.append(f"every tensor's name begins with {printable(prefix)!r}, which is taken away")
    short = {name: name.removeprefix(prefix) for name in names}
    plain = {name: _WRAPPERS.sub("", rest) for name, rest in short.items()}
    if wrapped := [name for name in names if plain[name] != short[name]]:
        found = _WRAPPERS.search(wrapped[0])
        word = "" if found is None else found[1]
        notes.append(f"{word!r} inside {len(wrapped)} tensors' names is taken away")
    return plain, notes


def with_plain_names(
    source: TensorSource, anchor: str, parent: str = TRANSFORMER
) -> tuple[TensorSource, list[str]]:
    """The source without a common prefix and with DialoGPT's head under its usual name, and what
    was changed, in words. anchor, parent: as in `common_prefix`.
    """
    plain_names, notes = plain_names_of(source.infos, anchor, parent)
    stored_names = {plain: name for name, plain in plain_names.items()}
    if len(stored_names) < len(source.infos):
        return source, []
    if OLD_HEAD in stored_names and "lm_head.weight" not in stored_names:
        stored_names["lm_head.weight"] = stored_names.pop(OLD_HEAD)
        notes.append(f"{OLD_HEAD} is read as lm_head.weight")
    return (RenamedTensors(source, stored_names), notes) if notes else (source, [])


def left_out_note(names: Iterable[str]) -> str:
    """The note on heads that were left out."""
    names = sorted(names)
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    listed = ", ".join(map(printable, names[:MAX_LISTED]))
    return f"left out {listed}{rest}: a language model's logits do not depend on them"
