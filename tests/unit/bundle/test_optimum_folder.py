"""Optimum's folders as portable bundles: which are taken, what they become, and why others
are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.writer import is_bundle
from gpt_edge.errors import BundleError, OutputError
from gpt_edge.system.atomic_files import publish_folder

# What transformers 4.57 writes for a small GPT2Config, without the fields that say nothing about
# the graph.
CONFIG: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": 32,
    "n_head": 2,
    "n_inner": None,
    "n_layer": 2,
    "n_positions": 64,
    "resid_pdrop": 0.1,
    "scale_attn_weights": True,
    "vocab_size": 257,
}


NEO: dict[str, Any] = {
    "model_type": "gpt_neo",
    "num_layers": 4,
    "num_heads": 2,
    "hidden_size": 32,
    "max_position_embeddings": 64,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 9,
}


def optimum_folder(folder: Path, files: tuple[str, ...] = ("model.onnx",), **config: Any) -> Path:
    """Make a folder as Optimum lays it out; a config value of ... takes the field away."""
    folder.mkdir(exist_ok=True)
    values = {name: value for name, value in {**CONFIG, **config}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
    for name in files:
        (folder / name).write_bytes(b"onnx")
    return folder


def test_an_optimum_folder_opens_with_the_shape_of_its_config(tmp_path: Path) -> None:
    bundle = Bundle.open(
        optimum_folder(tmp_path / "My model!", ("model.onnx", "model.onnx_data", "merges.txt"))
    )
    assert (bundle.graph, bundle.scheme, bundle.is_optimum_export) == ("portable", "fp32", True)
    assert bundle.manifest.name == "My_model_"
    assert bundle.model_path.name == "model.onnx"
    config = bundle.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_ctx, config.vocab_size) == (
        2,
        2,
        32,
        64,
        257,
    )
    assert config.activation == "gelu_tanh"
    assert bundle.manifest.files["model.onnx_data"] == {"size": 4, "sha256": ""}
    assert sorted(bundle.manifest.files) == [
        "config.json",
        "merges.txt",
        "model.onnx",
        "model.onnx_data",
    ]


def test_the_float_graph_comes_before_the_quantized_one(tmp_path: Path) -> None:
    both = Bundle.open(optimum_folder(tmp_path / "both", ("model.onnx", "model_quantized.onnx")))
    assert (both.model_path.name, both.scheme) == ("model.onnx", "fp32")
    assert "model_quantized.onnx" not in both.manifest.files
    one = Bundle.open(optimum_folder(tmp_path / "one", ("model_quantized.onnx",)))
    assert (one.model_path.name, one.scheme) == ("model_quantized.onnx", "int8-dynamic")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama', expected 'gpt2'"),
        ({"model_type": ...}, "model_type None"),
        ({"n_layer": 0}, "n_layer must be"),
        ({"n_layer": ...}, "missing config fields: n_layer"),
        ({"n_positions": ...}, "missing config fields: n_ctx"),
        ({"n_head": 3}, "multiple of n_head"),
        ({"activation_function": "swish"}, "activation_function 'swish'"),
        ({"activation_function": ["gelu"]}, "activation_function"),
        ({**NEO, "num_layers": 3}, "must say global or local for 3 layers"),
        ({**NEO, "num_layers": None}, "num_layers is None"),
        (
            {"architectures": ["GPT2ForSequenceClassification"], "id2label": {"5": "x"}},
            "id2label must name",
        ),
        ({"layer_norm_epsilon": "x"}, "layer_norm_epsilon"),
    ],
)
def test_a_config_that_no_gpt2_has_is_named(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(optimum_folder(tmp_path / "f", **config))
    assert str(tmp_path / "f" / "config.json") in caught.value.message


def test_an_old_config_that_says_n_ctx_is_understood(tmp_path: Path) -> None:
    assert Bundle.open(optimum_folder(tmp_path / "f", n_positions=..., n_ctx=48)).config.n_ctx == 48


def test_a_folder_with_other_graphs_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError,
        match=r"holds model_bnb4\.onnx, expected model\.onnx or model_quantized\.onnx",
    ):
        Bundle.open(optimum_folder(tmp_path / "f", ("model_bnb4.onnx",)))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("model_int8.onnx", "int8-dynamic"),
        ("model_uint8.onnx", "int8-dynamic"),
        ("model_fp16.onnx", "fp32"),
        ("model_q4.onnx", "int4"),
        ("decoder_model_merged_q4f16.onnx", "int4"),
    ],
)
def test_transformers_js_names_of_graphs_are_known(name: str, scheme: str, tmp_path: Path) -> None:
    folder = optimum_folder(tmp_path / "f", ())
    (folder / "onnx").mkdir()
    (folder / "onnx" / name).write_bytes(b"onnx")
    bundle = Bundle.open(folder)
    assert (bundle.model_path, bundle.scheme) == (folder / "onnx" / name, scheme)
    with pytest.raises(BundleError, match="holds a graph and neither") as caught:
        Bundle.open(folder / "onnx")
    assert caught.value.hint == f"give {folder}"


def test_a_split_decoder_says_which_export_runs(tmp_path: Path) -> None:
    files = ("decoder_model.onnx", "decoder_with_past_model.onnx")
    with pytest.raises(BundleError, match=r"holds decoder_model\.onnx") as caught:
        Bundle.open(optimum_folder(tmp_path / "f", files))
    assert "text-generation-with-past" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("file", "scheme"),
    [
        ("decoder_model_merged.onnx", "fp32"),
        ("decoder_model_merged_quantized.onnx", "int8-dynamic"),
        ("model_quantized.onnx", "int8-dynamic"),
    ],
)
def test_a_graph_below_onnx_is_found(file: str, scheme: str, tmp_path: Path) -> None:
    folder = optimum_folder(tmp_path / "f", ("vocab.json",))
    (folder / "onnx").mkdir()
    for name in (file, f"{file}_data"):
        (folder / "onnx" / name).write_bytes(b"onnx")
    bundle = Bundle.open(folder)
    assert (bundle.scheme, bundle.model_path) == (scheme, folder / "onnx" / file)
    assert {file, f"{file}_data", "config.json", "vocab.json"} == set(bundle.manifest.files)


def test_a_gpt_neo_folder_has_its_layers(tmp_path: Path) -> None:
    config = Bundle.open(optimum_folder(tmp_path / "f", **NEO)).config
    assert (config.n_layer, config.n_ctx, config.window) == (4, 64, 9)
    assert (config.attention, config.scale_attention) == (("dense", "banded"), False)


def test_a_classifiers_folder_has_its_task(tmp_path: Path) -> None:
    config = {"architectures": ["GPT2ForSequenceClassification"], "pad_token_id": 7}
    labels = {"0": "no", "1": "yes"}
    bundle = Bundle.open(optimum_folder(tmp_path / "f", **config, id2label=labels))
    assert bundle.task is not None
    assert (bundle.task.labels, bundle.task.problem) == (("no", "yes"), "single-label")
    assert (bundle.task.pad, bundle.config.n_label) == (7, 2)


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (optimum_folder(tmp_path / "f") / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"config\.json is not valid JSON"):
        Bundle.open(tmp_path / "f")


def test_a_linked_graph_is_refused_and_a_linked_bystander_is_left_out(tmp_path: Path) -> None:
    folder = optimum_folder(tmp_path / "f")
    (folder / "extra.txt").symlink_to(folder / "config.json")
    assert "extra.txt" not in Bundle.open(folder).manifest.files
    (folder / "model.onnx").rename(tmp_path / "m")
    (folder / "model.onnx").symlink_to(tmp_path / "m")
    with pytest.raises(BundleError, match=r"model\.onnx is not a regular file"):
        Bundle.open(folder)


def test_its_tokenizer_is_found_among_its_files(tmp_path: Path) -> None:
    folder = optimum_folder(tmp_path / "f")
    with pytest.raises(BundleError, match="has no tokenizer"):
        Bundle.open(folder).load_tokenizer()
    from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte

    letters = list(unicode_to_byte())
    (folder / "vocab.json").write_text(
        json.dumps({**{c: i for i, c in enumerate(letters)}, "<|endoftext|>": 256})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = Bundle.open(folder).load_tokenizer()
    assert tokenizer.vocab_size == 257
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"


def test_force_never_replaces_it(tmp_path: Path) -> None:
    folder = optimum_folder(tmp_path / "f")
    with (
        pytest.raises(OutputError, match="did not write"),
        publish_folder(folder, force=True, is_ours=is_bundle),
    ):
        pytest.fail("the work must not begin")
    assert (folder / "model.onnx").exists()
