"""Optimum: `int8-dynamic` through its ORTQuantizer, and the config.json that lets it load a
portable bundle.

One activation scale serves a whole call there, so a token's result depends on its neighbours
(onnxruntime#10322): the scheme is for comparison, and for runtimes without MatMulNBits.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx_ir as ir

from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError, require
from gpt_edge.export.graph.lower_portable import HEAD_ALIAS
from gpt_edge.export.weights.data_file import DATA_FILES

TARGETS = ("avx2", "avx512_vnni", "arm64")
HF_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}


def quantize_dynamic(fp32: Path, out: Path, target: str) -> None:
    """Read `model.onnx` in the folder `fp32`, write its int8-dynamic form and one data file into
    `out`.

    target: one of TARGETS, Optimum's preset for a kind of CPU. Raises ExportError for another one
    and MissingDependencyError without Optimum.
    """
    if target not in TARGETS:
        raise ExportError(f"there is no target {target!r}", hint=f"use one of {', '.join(TARGETS)}")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        runtime = require("optimum.onnxruntime", "export")
        configuration = require(
            "optimum.onnxruntime.configuration", "export"
        ).AutoQuantizationConfig
        settings = getattr(configuration, target)(is_static=False, per_channel=True)
        settings.operators_to_quantize = ["MatMul"]
        settings.nodes_to_exclude = _head(fp32 / "model.onnx")
        logging.getLogger("optimum").setLevel(logging.ERROR)
        logging.getLogger().setLevel(logging.ERROR)
        quantizer = runtime.ORTQuantizer.from_pretrained(fp32, file_name="model.onnx")
        quantizer.quantize(
            save_dir=out,
            quantization_config=settings,
            file_suffix="quantized",
            use_external_data_format=True,
        )
    model = ir.load(out / "model_quantized.onnx")
    _merge_aliases(model.graph)
    ir.save(model, out / "model.onnx", external_data=DATA_FILES["portable"])
    for path in (*out.glob("model_quantized.onnx*"), out / "ort_config.json", out / "config.json"):
        path.unlink(missing_ok=True)


def _merge_aliases(graph: ir.Graph) -> None:
    """Optimum writes an initializer of shared bytes a second time: let the head read the table."""
    for name in [name for name in graph.initializers if name.endswith(HEAD_ALIAS)]:
        alias = graph.initializers.pop(name)
        alias.replace_all_uses_with(graph.initializers[name.removesuffix(HEAD_ALIAS)])


def _head(path: Path) -> list[str]:
    """Products whose second factor is no weight: the portable head, which reads the table that is
    8 bits already.
    """
    graph = ir.load(path).graph
    products = [node for node in graph if node.op_type == "MatMul"]
    return [
        str(node.name)
        for node in products
        if node.inputs[1] and node.inputs[1].name not in graph.initializers
    ]


def optimum_config(config: GPTConfig) -> dict[str, Any] | None:
    """A config.json for ORTModelForCausalLM, or None for a model that is no GPT-2."""
    if config.norm != "pre" or set(config.attention) != {"dense"}:
        return None
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "activation_function": HF_ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "scale_attn_weights": config.scale_attention,
        "tie_word_embeddings": config.tied_embeddings,
        "use_cache": True,
    }


def write_optimum_config(config: GPTConfig, end_token: int | None, folder: Path) -> None:
    """Write config.json where the model is a GPT-2; others are for this runtime and plain
    onnxruntime alone.
    """
    values = optimum_config(config)
    if values is not None:
        values |= {"bos_token_id": end_token, "eos_token_id": end_token}
        (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")
