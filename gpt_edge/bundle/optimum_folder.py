"""Folders that gpt-edge did not write but can run: Optimum's GPT-2 exports, read as portable
bundles.

Such a folder has `config.json`, `model.onnx` (perhaps with external data) and tokenizer files, but
no manifest and so no checksums: only what is there and the shape in the config can be checked. Also
says what another folder is, for messages. Source of the layout: optimum-onnx 0.1, exporters/onnx;
of the config: transformers, GPT2Config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gpt_edge.bundle.manifest import (
    FILE_NAME,
    MAX_MANIFEST_BYTES,
    MODEL_FILE,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.schemes import FP32, INT8_DYNAMIC
from gpt_edge.system.disk import FolderReader

CONFIG_FILE = "config.json"
QUANTIZED_MODEL_FILE = "model_quantized.onnx"
SCHEME_OF = {MODEL_FILE: FP32.name, QUANTIZED_MODEL_FILE: INT8_DYNAMIC.name}  # by preference
ACTIVATION_OF = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
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
EXPORT_HINT = "gpt-edge export SOURCE OUT makes a bundle from a checkpoint"


def optimum_manifest(folder: FolderReader) -> Manifest | None:
    """Return a manifest for an Optimum export of a GPT-2, or None if the folder is not an ONNX
    export at all.

    Its file records have sizes and empty checksums. Raises BundleError for an export that cannot be
    run: another architecture, no single decoder graph, a config that no GPT-2 has.
    """
    names = folder.names()
    graphs = [name for name in names if name.endswith(".onnx")]
    if CONFIG_FILE not in names or not graphs:
        return None
    model = next((name for name in SCHEME_OF if name in graphs), None)
    if model is None:
        expected = " or ".join(SCHEME_OF)
        raise BundleError(
            f"{folder.path} holds {', '.join(graphs)[:200]}, expected {expected}", hint=EXPORT_HINT
        )
    where = str(folder.path / CONFIG_FILE)
    with folder.open(CONFIG_FILE) as stream:
        values = load_json_object(stream.read(MAX_MANIFEST_BYTES + 1), where)
    return Manifest(
        name=re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9._-]", "_", folder.path.absolute().name)[:80]
        or "_",
        graph="portable",
        scheme=SCHEME_OF[model],
        config=_gpt2_config(values, where),
        files=_file_records(folder, model, names),
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
    if any(name.endswith(CHECKPOINT_SUFFIXES) for name in names):
        return BundleError(
            f"{folder.path} is a checkpoint, not a bundle",
            hint=f"gpt-edge export {folder.path} OUT, then use OUT",
        )
    return BundleError(f"{folder.path} is not a bundle: it has no manifest.json", hint=EXPORT_HINT)


def _gpt2_config(values: Mapping[str, Any], where: str) -> GPTConfig:
    if (architecture := values.get("model_type")) != "gpt2":
        raise BundleError(
            f"{where} says model_type {ascii(architecture)[:40]}, expected 'gpt2'", hint=EXPORT_HINT
        )
    activation = values.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATION_OF:
        known = ", ".join(ACTIVATION_OF)
        raise BundleError(
            f"{where} says activation_function {ascii(activation)[:40]}, expected one of {known}"
        )
    given = {
        name: values[name]
        for name in ("n_layer", "n_head", "n_embd", "vocab_size", "n_inner")
        if name in values
    }
    optional = {
        "layer_norm_epsilon": "layer_norm_epsilon",
        "scale_attn_weights": "scale_attention",
        "tie_word_embeddings": "tied_embeddings",
    }
    given |= {ours: values[theirs] for theirs, ours in optional.items() if theirs in values}
    if (n_ctx := values.get("n_positions", values.get("n_ctx"))) is not None:
        given["n_ctx"] = n_ctx
    try:
        return GPTConfig.from_dict({**given, "activation": ACTIVATION_OF[activation]})
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error


def _file_records(folder: FolderReader, model: str, names: list[str]) -> dict[str, FileRecord]:
    """The graph, its external data (`model.onnx_data`, `model.onnx.data`), and what else has a
    plain name.
    """
    records: dict[str, FileRecord] = {}
    for name in names:
        if FILE_NAME.fullmatch(name) and (
            name == model or not name.startswith(tuple(SCHEME_OF)) or name.startswith(model)
        ):
            try:
                with folder.open(name) as stream:
                    records[name] = {"size": stream.seek(0, 2), "sha256": ""}
            except (OSError, ValueError):
                if name.startswith(model):
                    raise
    return records
