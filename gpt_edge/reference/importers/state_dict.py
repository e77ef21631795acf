"""State dicts of GPT-2's names that other trainers save: build-nanogpt's log/model_*.pt, minGPT's
model.pt, Lightning's .ckpt, or the tensors alone.

Shapes say all of a config but the number of heads and the non-linearity. Those are looked for in
what lies in the file and beside it, and in the file that the caller names; a guess is noted. Linear
weights are [out, in], or [in, out] where a model of transformers was trained. Sources:
github.com/karpathy/build-nanogpt, train_gpt2.py; github.com/karpathy/minGPT, mingpt/model.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.bundle.transformers_config import ACTIVATIONS
from gpt_edge.config import PRESETS
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_weights import is_buffer, query_scale, refuse_unsupported
from gpt_edge.reference.importers.nanogpt import is_tied, without_prefix
from gpt_edge.reference.importers.near_misses import WEIGHTS
from gpt_edge.reference.importers.settings import CheckpointSettings, read_json_object
from gpt_edge.reference.importers.sources import printable
from gpt_edge.reference.importers.tensor_map import (
    LINEAR_WEIGHTS,
    UNMERGED_HINT,
    Checkpoint,
    Origin,
    open_tensors,
)
from gpt_edge.reference.importers.tensor_names import (
    TRANSFORMER,
    common_prefix,
    is_other_head,
)
from gpt_edge.reference.importers.torch_pickle import Inert, as_tensors
from gpt_edge.reference.importers.yaml_settings import settings_near

MAX_DEPTH = 3  # of settings inside settings
_LAYER = re.compile(r"(transformer\.)?h\.(\d+)\.ln_1\.weight")
_HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads", "nhead")
_ACTIVATION = ("activation_function", "activation")
_OF_MODEL = ("n_layer", "n_embd")  # sizes that tell whose settings they are
# where trainers keep the settings of a model
_NESTED = (
    "model",
    "config",
    "cfg",
    "model_config",
    "gpt_config",
    "model_args",
    "settings",
    "hparams",
    "hyper_parameters",
    "args",
)
_ANCHOR = "wpe.weight"
HEAD = "lm_head.weight"
# minGPT's names of sizes, and their heads
_MINGPT_HEADS = {
    "openai-gpt": 12,
    "gpt2": 12,
    "gpt2-medium": 16,
    "gpt2-large": 20,
    "gpt2-xl": 25,
    "gopher-44m": 16,
    "gpt-mini": 6,
    "gpt-micro": 4,
    "gpt-nano": 3,
}
_SHAPE_HEADS = {
    (config.n_layer, config.n_embd): (name, config.n_head)
    for name, config in PRESETS.items()
    if name.startswith("gpt2")
}


@dataclass(frozen=True, slots=True)
class StateDict:
    """A state dict found in a torch file. kind: of its trainer; settings: what the file says
    about its model.
    """

    kind: str
    tensors: Mapping[str, Any]
    settings: Mapping[str, Any]


def find_state_dict(content: object) -> StateDict | None:
    """The state dict in the content of a torch file, None where there is none."""
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("state_dict"), dict):
        return StateDict("lightning", content["state_dict"], _flat(content))
    if isinstance(content.get("model"), dict):
        is_build_nanogpt = isinstance(content.get("config"), Inert)
        kind = "build-nanogpt" if is_build_nanogpt else "state-dict"
        settings = {name: value for name, value in content.items() if name != "model"}
        return StateDict(kind, content["model"], _flat(settings))
    if content and all(hasattr(value, "shape") for value in content.values()):
        return StateDict("state-dict", content, {})
    # scripts call it as they like: model_state_dict, module (DeepSpeed), net
    names = [name for name, value in content.items() if _is_gpt2(value)]
    if len(names) != 1:
        return None
    settings = {name: value for name, value in content.items() if name != names[0]}
    return StateDict("state-dict", content[names[0]], _flat(settings))


def _is_gpt2(value: object) -> bool:
    return isinstance(value, dict) and any(str(name).endswith(_ANCHOR) for name in value)


def open_state_dict(
    path: Path, file: Path, found: StateDict, given: Mapping[str, Any] | None
) -> Checkpoint:
    """The checkpoint of a state dict.

    path: as the caller gave it. given: settings from beside the file or from the caller, which
    count before those in it. What neither says of heads and non-linearity is looked for in a YAML
    file near it. Raises CheckpointError for tensors that are not GPT-2's, for a number of heads
    that nothing says, and as `open_tensors` does.
    """
    source, notes = without_prefix(as_tensors(str(file), found.tensors))
    _refuse_classifier(file, source.infos)
    # metrics and losses of a LightningModule, beside its model
    before = common_prefix(found.tensors, _ANCHOR) if found.kind == "lightning" else ""
    beside = {name for name in found.tensors if not str(name).startswith(before)}
    tables = {TRANSFORMER + _ANCHOR, f"{TRANSFORMER}wte.weight"}  # a writer may drop the latter
    prefix = "" if tables.isdisjoint(source.infos) else TRANSFORMER
    shapes = {name: info.shape for name, info in source.infos.items()}
    if HEAD in shapes:  # which may stand for the embedding, too
        shapes.setdefault(f"{prefix}wte.weight", shapes[HEAD])
    sizes = _sizes(file, shapes, prefix)
    said = {**found.settings, **_flat(given or {})}
    from_near, near_notes = _from_near(file, said, sizes)
    settings = CheckpointSettings(str(file), {**from_near, **said})
    refuse_unsupported(settings)
    n_head, head_notes = _heads(found.kind, settings, sizes)
    is_conv1d = shapes[f"{prefix}h.0.attn.c_attn.weight"][0] == sizes["n_embd"]
    tied = is_tied(source, f"{prefix}wte.weight")
    activation, activation_notes = _activation(found.kind, settings, is_conv1d, tied)
    config = settings.config(
        **sizes,
        n_head=n_head,
        activation=activation,
        layer_norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
        scale_attention=settings.flag("scale_attn_weights", True),
        tied_embeddings=tied,
    )
    scale_of = query_scale(settings)
    has_bias = any(name.endswith("ln_1.bias") for name in shapes)

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        if name == HEAD:
            return Origin((name,), shape)
        if name.endswith(".bias") and not has_bias:
            return Origin((), shape)
        is_transposed = is_conv1d and name.endswith(LINEAR_WEIGHTS)
        stored = shape[::-1] if is_transposed else shape
        return Origin((prefix + name,), stored, is_transposed, query_scale=scale_of(name))

    return open_tensors(
        found.kind,
        path,
        config,
        source,
        origin_of,
        is_buffer,
        tied_copy=HEAD,
        is_left_out=lambda name: name in beside or is_other_head(name),
        notes=[*notes, *near_notes, *head_notes, *activation_notes],
    )


def _refuse_classifier(file: Path, names: Collection[str]) -> None:
    """Raise CheckpointError for a head of transformers' classifiers without a language model's."""
    for name in ("score.weight", "classifier.weight"):
        if name in names and HEAD not in names:
            raise CheckpointError(
                f"{file} holds a classifier: {name} and no {HEAD}; a state dict names no labels",
                hint="save it with model.save_pretrained(FOLDER) of transformers, and take FOLDER",
            )


def _sizes(file: Path, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, int]:
    """What the shapes say. Raises CheckpointError for tensors that are not GPT-2's."""
    layers = [int(found[2]) for name in shapes if (found := _LAYER.fullmatch(name))]
    names = (f"{prefix}wte.weight", f"{prefix}wpe.weight", f"{prefix}h.0.mlp.c_fc.weight")
    missing = [name for name in names if len(shapes.get(name, ())) != 2]
    attention = shapes.get(f"{prefix}h.0.attn.c_attn.weight", ())
    if missing or not layers or len(attention) != 2:
        raise CheckpointError(
            f"{file} holds a state dict but no GPT-2: it has no {(*missing, 'h.0.attn.c_attn')[0]}",
            hint=_hint_of_others(file, shapes),
        )
    (vocab_size, n_embd), (n_ctx, _), c_fc = (shapes[name] for name in names)
    n_inner = max(c_fc) if n_embd == min(c_fc) else c_fc[0]
    sizes = {"n_layer": max(layers) + 1, "n_embd": n_embd, "n_ctx": n_ctx, "vocab_size": vocab_size}
    return sizes if n_inner == 4 * n_embd else {**sizes, "n_inner": n_inner}


def _hint_of_others(file: Path, names: Iterable[str]) -> str:
    """A folder's config.json says which other architecture its weights have."""
    beside = file.parent / "config.json"
    if file.name in WEIGHTS and beside.is_file() and "model_type" in read_json_object(beside):
        return f"try {file.parent}"
    if any(".lora_A." in name for name in names):
        return UNMERGED_HINT
    return f"its tensors: {printable(', '.join(list(names)[:4]))}"


def _from_near(
    file: Path, said: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[dict[str, Any], list[str]]:
    """Heads and non-linearity from a YAML file near a state dict that says no heads itself, and a
    note; nothing from one whose sizes are another model's.
    """
    if any(said.get(name) is not None for name in _HEADS):
        return {}, []
    near = settings_near(file)
    if near is None:
        return {}, []
    path, mappings = near
    values = _flat(mappings)
    if any(values.get(name, size) != size for name, size in sizes.items() if name in _OF_MODEL):
        return {}, []
    names = [name for name in (*_HEADS, *_ACTIVATION) if name in values and name not in said]
    found = {name: values[name] for name in names}
    listed = ", ".join(f"{name} {value}" for name, value in found.items())
    return found, [f"{listed} is what {path} says"] if found else []


def _heads(
    kind: str, settings: CheckpointSettings, sizes: Mapping[str, int]
) -> tuple[int, list[str]]:
    """The number of heads, and a note where it is a guess."""
    for name in _HEADS:
        if settings.values.get(name) is not None:
            return settings.whole(name), []
    model_type = settings.values.get("model_type")
    if isinstance(model_type, str) and model_type in _MINGPT_HEADS:
        return _MINGPT_HEADS[model_type], []
    shape = (sizes["n_layer"], sizes["n_embd"])
    if shape in _SHAPE_HEADS:
        name, n_head = _SHAPE_HEADS[shape]
        return n_head, [f"n_head is not in it: {n_head} is taken, as {name} of this shape has"]
    said = ", ".join(f"{name} {size}" for name, size in sizes.items())
    missing = "n_head"
    if kind == "state-dict":
        missing = "model and model_args, as nanoGPT's file has, and no n_head"
    raise CheckpointError(
        f"{settings.where} has no {missing}: its tensors say {said}, and nothing says how many "
        "heads the attention has",
        hint='write {"n_head": N} into a JSON file, or take the model\'s config.json, and give it '
        "with --config FILE",
    )


def _activation(
    kind: str, settings: CheckpointSettings, is_conv1d: bool, tied: bool
) -> tuple[str, list[str]]:
    """The non-linearity, and a note where it is a guess."""
    meanings = {**ACTIVATIONS, "gelu_tanh": "gelu_tanh"}
    for name in _ACTIVATION:
        if settings.values.get(name) is not None:
            return settings.choice(name, "", meanings), []
    if kind == "build-nanogpt":
        # nanoGPT's GPTConfig has a field `bias` and its MLP the exact form, build-nanogpt's has not
        return "gelu" if "bias" in settings.values else "gelu_tanh", []
    if is_conv1d or not tied:  # transformers' default; minGPT, which does not tie
        return "gelu_tanh", []
    return "gelu_tanh", [
        "nothing says which form of GELU it has: the tanh form is taken; for the exact one give "
        '{"activation_function": "gelu"} with --config FILE'
    ]


def _flat(values: Mapping[str, Any], depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The settings of a model in one mapping; inner ones, which are nearer to it, count first."""
    flat: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        inner = value.state if isinstance(value, Inert) else value
        if isinstance(name, str) and isinstance(inner, int | float | str | bool):
            flat[name] = inner
        elif name in _NESTED and isinstance(inner, Mapping) and depth:
            nested |= _flat(inner, depth - 1)
    return {**flat, **nested}
