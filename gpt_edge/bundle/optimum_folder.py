"""Folders that gpt-edge did not write but can run: Optimum's exports of GPT-2 and GPT-Neo, and
transformers.js's, read as portable bundles.

Such a folder has `config.json`, `model.onnx` (perhaps with external data, perhaps below `onnx/`)
and tokenizer files, but no manifest and so no checksums: only what is there and the shape in the
config can be checked. Also says what another folder is, for messages. Source of the layout:
optimum-onnx 0.1, exporters/onnx; of the config: transformers, GPT2Config and GPTNeoConfig.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gpt_edge.bundle.manifest import (
    CAUSAL_LM,
    FILE_NAME,
    MAX_MANIFEST_BYTES,
    MODEL_FILE,
    SIGNATURE_FILE,
    TASK,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.bundle.transformers_config import (
    ACTIVATIONS,
    classifier_kind,
    classifier_task,
    neo_attention,
)
from gpt_edge.config import MAX_DIMENSION, GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.schemes import FP32, INT4, INT8_DYNAMIC
from gpt_edge.system.disk import FolderReader
from gpt_edge.tasks import TaskSpec

CONFIG_FILE = "config.json"
QUANTIZED_MODEL_FILE = "model_quantized.onnx"
# a merged decoder chooses by an input between a first step and the later ones
_STEMS = ("model", "decoder_model_merged")
# what Optimum's quantizer and transformers.js put behind the name, by preference
_SUFFIXES = {
    "": FP32.name,
    "_quantized": INT8_DYNAMIC.name,
    "_int8": INT8_DYNAMIC.name,
    "_uint8": INT8_DYNAMIC.name,
    "_fp16": FP32.name,
    "_q4": INT4.name,
    "_q4f16": INT4.name,
}
SCHEME_OF = {
    f"{stem}{suffix}.onnx": scheme for suffix, scheme in _SUFFIXES.items() for stem in _STEMS
}
ONNX_FOLDER = "onnx"  # where transformers.js has its graphs
# of decoders that Optimum wrote as two graphs, a first step and the later ones
SPLIT_DECODERS = ("decoder_model.onnx", "decoder_with_past_model.onnx")
CHECKPOINT_SUFFIXES = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".npy",
    ".ckpt",
    ".index",
    ".safetensors.index.json",
)
# transformers' fields and ours
_SHARED = (
    ("layer_norm_epsilon", "layer_norm_epsilon"),
    ("tie_word_embeddings", "tied_embeddings"),
    ("vocab_size", "vocab_size"),
)
_FIELDS = {
    "gpt2": (
        ("n_layer", "n_layer"),
        ("n_head", "n_head"),
        ("n_embd", "n_embd"),
        ("n_inner", "n_inner"),
        ("n_ctx", "n_ctx"),
        ("n_positions", "n_ctx"),  # counts before n_ctx
        ("scale_attn_weights", "scale_attention"),
        *_SHARED,
    ),
    "gpt_neo": (
        ("num_layers", "n_layer"),
        ("num_heads", "n_head"),
        ("hidden_size", "n_embd"),
        ("intermediate_size", "n_inner"),
        ("max_position_embeddings", "n_ctx"),
        *_SHARED,
    ),
}
PAST_HINT = "optimum-cli export onnx --task text-generation-with-past makes a folder that runs"
EXPORT_HINT = "gpt-edge export SOURCE OUT makes a bundle from a checkpoint"


def optimum_manifest(folder: FolderReader) -> Manifest | None:
    """Return a manifest for an export of a GPT-2 or GPT-Neo, or None if the folder is not an ONNX
    export at all.

    Its file records have sizes and empty checksums; the graph's may be those of files below
    ONNX_FOLDER. Raises BundleError for an export that cannot be run: another architecture, no
    single decoder graph, a config that no such model has.
    """
    names = folder.names()
    if CONFIG_FILE not in names:
        return None
    if any(name.endswith(".onnx") for name in names):
        return _manifest(folder, folder)
    if ONNX_FOLDER not in names or not (folder.path / ONNX_FOLDER).is_dir():
        return None
    with FolderReader(folder.path / ONNX_FOLDER) as inner:
        if not any(name.endswith(".onnx") for name in inner.names()):
            return None
        return _manifest(folder, inner)


def _manifest(folder: FolderReader, graph_folder: FolderReader) -> Manifest:
    names = graph_folder.names()
    graphs = [name for name in names if name.endswith(".onnx")]
    model = next((name for name in SCHEME_OF if name in graphs), None)
    if model is None:
        hint = PAST_HINT if set(SPLIT_DECODERS) & set(graphs) else EXPORT_HINT
        raise BundleError(
            f"{graph_folder.path} holds {', '.join(graphs)[:200]}, expected {MODEL_FILE} or "
            f"{QUANTIZED_MODEL_FILE}",
            hint=hint,
        )
    where = str(folder.path / CONFIG_FILE)
    with folder.open(CONFIG_FILE) as stream:
        values = load_json_object(stream.read(MAX_MANIFEST_BYTES + 1), where)
    config, task = _config_and_task(values, where)
    records = _file_records(graph_folder, model, names)
    if graph_folder is not folder:
        records |= _file_records(folder, model, folder.names())
    return Manifest(
        name=re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9._-]", "_", folder.path.absolute().name)[:80]
        or "_",
        kind=CAUSAL_LM if task is None else TASK,
        graph="portable",
        scheme=SCHEME_OF[model],
        config=config,
        task=task,
        files=records,
        provenance={"source_kind": "optimum"},
    )


def describe(folder: FolderReader) -> BundleError:
    """Return the error that says what a folder without a manifest is instead of a bundle."""
    names = folder.names()
    if not names:
        return BundleError(f"{folder.path} is an empty folder, not a bundle", hint=EXPORT_HINT)
    if "state.safetensors" in names and "checkpoint" in names:  # the folder of a training
        hint = f"gpt-edge export {folder.path / 'checkpoint'} OUT, then use OUT"
        return BundleError(f"{folder.path} is the folder of a run, not a bundle", hint=hint)
    if any(name.endswith(".onnx") for name in names):
        above = folder.path.absolute().parent
        is_inner = folder.path.absolute().name == ONNX_FOLDER and (above / CONFIG_FILE).is_file()
        return BundleError(
            f"{folder.path} holds a graph and neither manifest.json nor {CONFIG_FILE}",
            hint=f"give {above}" if is_inner else f"put the model's {CONFIG_FILE} there",
        )
    if any(name.endswith(CHECKPOINT_SUFFIXES) for name in names):
        return BundleError(
            f"{folder.path} is a checkpoint, not a bundle",
            hint=f"gpt-edge export {folder.path} OUT, then use OUT",
        )
    return BundleError(f"{folder.path} is not a bundle: it has no manifest.json", hint=EXPORT_HINT)


def _config_and_task(values: Mapping[str, Any], where: str) -> tuple[GPTConfig, TaskSpec | None]:
    """The model's shape, and of a classifier its task. Raises BundleError."""
    architecture = values.get("model_type")
    if architecture not in _FIELDS:
        known = " or ".join(map(repr, _FIELDS))
        raise BundleError(
            f"{where} says model_type {ascii(architecture)[:40]}, expected {known}",
            hint=EXPORT_HINT,
        )
    activation = values.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise BundleError(
            f"{where} says activation_function {ascii(activation)[:40]}, expected one of {known}"
        )
    given = {ours: values[theirs] for theirs, ours in _FIELDS[architecture] if theirs in values}
    try:
        if architecture == "gpt_neo":
            given |= _neo_fields(values)
        kind = classifier_kind(values)
        task = classifier_task(values, kind) if kind else None
        if task is not None:
            given |= {"n_label": task.n_label, "tied_embeddings": True}
        config = GPTConfig.from_dict({**given, "activation": ACTIVATIONS[activation]})
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error
    return config, task


def _neo_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-Neo's layers, and that its attention is not scaled. Raises ValueError."""
    n_layer = values.get("num_layers")
    if not isinstance(n_layer, int) or not 0 < n_layer <= MAX_DIMENSION:
        raise ValueError(f"num_layers is {ascii(n_layer)[:40]}, expected a whole number")
    attention = neo_attention(values, n_layer)
    window = values.get("window_size", 256) if "banded" in attention else None
    return {"attention": attention, "window": window, "scale_attention": False}


def _file_records(folder: FolderReader, model: str, names: list[str]) -> dict[str, FileRecord]:
    """The graph, its external data (`model.onnx_data`, `model.onnx.data`), and what else has a
    plain name.
    """
    records: dict[str, FileRecord] = {}
    for name in names:
        if (
            name != SIGNATURE_FILE
            and FILE_NAME.fullmatch(name)
            and (name == model or not name.startswith(tuple(SCHEME_OF)) or name.startswith(model))
        ):
            try:
                with folder.open(name) as stream:
                    records[name] = {"size": stream.seek(0, 2), "sha256": ""}
            except (OSError, ValueError):
                if name.startswith(model):
                    raise
    return records
