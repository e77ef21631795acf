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


def with_plain_names(
    source: TensorSource, anchor: str, parent: str = TRANSFORMER
) -> tuple[TensorSource, list[str]]:
    """The source without a common prefix and with DialoGPT's head under its usual name, and what
    was changed, in words. anchor, parent: as in `common_prefix`.
    """
    prefix = common_prefix(source.infos, anchor, parent)
    notes = [prefix_note(prefix)] if prefix else []
    stored_names = {name.removeprefix(prefix): name for name in source.infos}
    if len(stored_names) < len(source.infos):
        return source, []
    if OLD_HEAD in stored_names and "lm_head.weight" not in stored_names:
        stored_names["lm_head.weight"] = stored_names.pop(OLD_HEAD)
        notes.append(f"{OLD_HEAD} is read as lm_head.weight")
    return (RenamedTensors(source, stored_names), notes) if notes else (source, [])


def prefix_note(prefix: str) -> str:
    """The note on a prefix that was taken away."""
    return f"every tensor's name begins with {printable(prefix)!r}, which is taken away"


def left_out_note(names: Iterable[str]) -> str:
    """The note on heads that were left out."""
    names = sorted(names)
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    listed = ", ".join(map(printable, names[:MAX_LISTED]))
    return f"left out {listed}{rest}: a language model's logits do not depend on them"
