"""OpenAI's two releases: GPT-1's flat vector in ten .npy files, GPT-2's TensorFlow checkpoint (a
golden one).
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gpt_edge.config import PRESETS, GPTConfig
from gpt_edge.errors import CheckpointError, GPTEdgeError, NumericError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.crc32c import crc32c, masked_crc32c
from gpt_edge.reference.importers.tensorbundle import open_tensor_bundle

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tf_gpt2_tiny"
LINEARS = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def write_gpt1(
    folder: Path, values: dict[str, np.ndarray], n_layer: int, n_shards: int = 10
) -> None:
    """What OpenAI published: the variables in the order they were made, joined, then cut in equal
    shards.
    """
    order = ["positions_embed.weight", "tokens_embed.weight"]
    for layer in range(n_layer):
        for module in ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"):
            order += [f"h.{layer}.{module}.weight", f"h.{layer}.{module}.bias"]
    # Conv1D is [in, out]
    shaped = [values[name][None] if name.endswith(LINEARS) else values[name] for name in order]
    vector = np.concatenate([value.reshape(-1) for value in shaped]).astype(np.float32)
    for number, shard in enumerate(np.array_split(vector, n_shards)):
        np.save(folder / f"params_{number}.npy", shard)
    (folder / "params_shapes.json").write_text(json.dumps([list(value.shape) for value in shaped]))


def gpt1(**sizes: int) -> OpenAIGPTLMHeadModel:
    torch.manual_seed(0)
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(n_head=12, initializer_range=0.2, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def gpt1_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "gpt1"
    folder.mkdir()
    model = gpt1(n_layer=2, n_embd=24, n_positions=20, vocab_size=37)
    write_gpt1(
        folder, {name: p.detach().numpy() for name, p in model.transformer.named_parameters()}, 2
    )
    return folder


@torch.no_grad()
def test_gpt1_shards_say_what_transformers_says(gpt1_folder: Path) -> None:
    checkpoint = open_checkpoint(gpt1_folder)
    assert checkpoint.kind == "openai-gpt1"
    assert checkpoint.config == GPTConfig(
        n_layer=2, n_head=12, n_embd=24, n_ctx=20, vocab_size=37, norm="post"
    )
    theirs, ours = (
        gpt1(n_layer=2, n_embd=24, n_positions=20, vocab_size=37),
        checkpoint.load_model(),
    )
    ids = torch.randint(37, (2, 20), generator=torch.Generator().manual_seed(1))
    wanted = theirs(ids).logits
    assert wanted.std() > 0.3
    assert (ours(ids)[0] - wanted).abs().max().item() <= 1e-4
    assert torch.equal(ours(ids)[0].argmax(-1), wanted.argmax(-1))


def test_the_published_shapes_are_the_gpt1_preset(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "gpt1-vocab" / "params_shapes.json", tmp_path)
    n_values = PRESETS["gpt1"].n_parameters
    for number, size in enumerate(
        len(part) for part in np.array_split(np.empty(n_values, dtype=np.bool_), 10)
    ):
        # sparse: 466 MB that take no room on the disk
        with (tmp_path / f"params_{number}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (size,)}
            )
            file.truncate(file.tell() + 4 * size)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == PRESETS["gpt1"]
    assert checkpoint.tensor("h.11.mlp.c_proj.weight").shape == (768, 3072)


class Touch:
    """A pickle that leaves a mark."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def replace_shard(folder: Path, array: Any, number: int = 3) -> None:
    np.save(folder / f"params_{number}.npy", array)


def forge_header(folder: Path, shape: tuple[int, ...]) -> None:
    with (folder / "params_3.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )


def cut(path: Path, n_bytes: int = 7) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


GPT1_FAULTS = {
    "object array": (
        lambda f: replace_shard(f, np.array([Touch(f / "canary")], dtype=object)),
        "holds object",
    ),
    "float64": (lambda f: replace_shard(f, np.zeros(3)), "holds float64"),
    "two dimensions": (
        lambda f: replace_shard(f, np.zeros((3, 3), np.float32)),
        "expected one row of float32",
    ),
    "empty": (lambda f: replace_shard(f, np.zeros(0, np.float32)), "declares 0 values"),
    "32 GiB": (lambda f: forge_header(f, (1 << 33,)), "declares 8589934592 values, 0 are stored"),
    "cut": (lambda f: cut(f / "params_3.npy"), "declares"),
    "not npy": (
        lambda f: (f / "params_3.npy").write_bytes(b"hello world"),
        "is not a complete .npy file",
    ),
    "no bytes": (lambda f: (f / "params_3.npy").write_bytes(b""), "is not a complete .npy file"),
    "header cut in a bracket": (
        lambda f: (f / "params_3.npy").write_bytes(
            b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': (3,   "
        ),
        "is not a complete .npy file",
    ),
    "npz": (
        lambda f: (f / "params_3.npy").write_bytes(b"PK\x03\x04" + b"\0" * 60),
        "is not a complete .npy file",
    ),
    "one is missing": (lambda f: (f / "params_9.npy").unlink(), "9 params_*.npy hold"),
    "all are missing": (
        lambda f: [(f / f"params_{i}.npy").unlink() for i in range(10)],
        "0 params_*.npy hold 0 values",
    ),
    "shapes are text": (
        lambda f: (f / "params_shapes.json").write_text('"x"'),
        "must be a list of shapes",
    ),
    "shapes are nested": (
        lambda f: (f / "params_shapes.json").write_text("[" * 9999),
        "is not valid JSON",
    ),
    "a shape is negative": (
        lambda f: (f / "params_shapes.json").write_text("[[-1, 2]]"),
        "must be a list of shapes",
    ),
    "few shapes": (
        lambda f: (f / "params_shapes.json").write_text("[[1, 2], [3, 4]]"),
        "lists 2 shapes",
    ),
    "huge shapes": (
        lambda f: (f / "params_shapes.json").write_text(
            json.dumps([[9, 12], [9, 12]] + [[1 << 60]] * 12)
        ),
        "needs",
    ),
}


@pytest.mark.parametrize("name", GPT1_FAULTS)
def test_a_corrupt_gpt1_release_is_one_clear_line(name: str, gpt1_folder: Path) -> None:
    damage, message = GPT1_FAULTS[name]
    damage(gpt1_folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(gpt1_folder)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert not (gpt1_folder / "canary").exists()


def test_gpt1_variables_in_another_order_are_misshaped_tensors(gpt1_folder: Path) -> None:
    shapes = json.loads((gpt1_folder / "params_shapes.json").read_text())
    shapes[2], shapes[4] = shapes[4], shapes[2]
    (gpt1_folder / "params_shapes.json").write_text(json.dumps(shapes))
    with pytest.raises(
        CheckpointError,
        match=r"h\.0\.attn\.c_attn\.weight has shape \[1, 24, 24\], expected \[1, 24, 72\]",
    ):
        open_checkpoint(gpt1_folder)


def test_a_gpt1_weight_that_is_not_finite_is_named(gpt1_folder: Path) -> None:
    shard = np.load(gpt1_folder / "params_0.npy")
    shard[24 * 20 + 24 + 5] = np.nan  # after 20 positions and one token
    replace_shard(gpt1_folder, shard, 0)
    with pytest.raises(NumericError, match=r"wte\.weight\[1, 5\] is nan"):
        open_checkpoint(gpt1_folder).load_model()


def test_tensorflow_checkpoint_equals_what_tensorflow_was_given() -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())["tensors"]
    source = open_tensor_bundle(GOLDEN / "model.ckpt")
    assert source.infos.keys() == expected.keys()
    for name, stored in expected.items():
        wanted = np.frombuffer(base64.b64decode(stored["data"]), dtype="<f4").reshape(
            stored["shape"]
        )
        np.testing.assert_array_equal(source.read(name), wanted)


def test_tensorflow_variables_go_where_openais_code_uses_them() -> None:
    source, checkpoint = open_tensor_bundle(GOLDEN / "model.ckpt"), open_checkpoint(GOLDEN)
    assert checkpoint.kind == "openai-gpt2-tf"
    assert checkpoint.config == GPTConfig(n_layer=2, n_head=3, n_embd=12, n_ctx=16, vocab_size=31)
    pairs = {
        "wte.weight": "wte",
        "h.1.ln_2.weight": "h1/ln_2/g",
        "h.1.ln_2.bias": "h1/ln_2/b",
        "ln_f.bias": "ln_f/b",
    }
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(checkpoint.tensor(ours), source.read(f"model/{theirs}"))
    for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        stored = source.read(f"model/h0/{module.replace('.', '/')}/w")
        np.testing.assert_array_equal(checkpoint.tensor(f"h.0.{module}.weight"), stored[0].T)
    logits, _ = checkpoint.load_model()(torch.arange(16)[None])
    assert torch.isfinite(logits).all()


@pytest.fixture
def tf_folder(tmp_path: Path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "tf")


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_anywhere_in_the_tensorflow_files_is_noticed(tf_folder: Path) -> None:
    """But for the padding of the footer and the unused metaindex, which say nothing about the
    tensors.
    """
    wanted = {
        name: open_checkpoint(GOLDEN).tensor(name).tobytes()
        for name in open_checkpoint(GOLDEN).names()
    }
    index, data = tf_folder / "model.ckpt.index", tf_folder / "model.ckpt.data-00000-of-00001"
    n_noticed = n_harmless = 0
    positions = [(index, position) for position in range(0, index.stat().st_size, 3)]
    positions += [(data, position) for position in range(0, data.stat().st_size, 499)]
    for path, position in positions:
        flip(path, position)
        try:
            found = open_checkpoint(tf_folder)
            assert {name: found.tensor(name).tobytes() for name in found.names()} == wanted
            n_harmless += 1
        except GPTEdgeError:
            n_noticed += 1
        flip(path, position)
    assert n_harmless <= 20
    assert n_noticed > 300


def test_every_truncation_of_the_tensorflow_files_is_one_clear_error(tf_folder: Path) -> None:
    for path in (tf_folder / "model.ckpt.index", tf_folder / "model.ckpt.data-00000-of-00001"):
        data = path.read_bytes()
        for n_bytes in range(0, len(data), 211):
            path.write_bytes(data[:n_bytes])
            with pytest.raises(CheckpointError) as caught:
                open_checkpoint(tf_folder)
            assert str(tf_folder) in caught.value.message
        path.write_bytes(data)


TF_FAULTS = {
    "no data file": (
        lambda f: (f / "model.ckpt.data-00000-of-00001").unlink(),
        "data-00000-of-00001 cannot be read",
    ),
    "no index": (lambda f: (f / "model.ckpt.index").unlink(), "has 0 *.index files"),
    "other layers": (lambda f: set_hparams(f, n_layer=3), "model/h2/ln_1/g is missing"),
    "fewer layers": (lambda f: set_hparams(f, n_layer=1), "model/h1/attn/c_attn/b is unknown"),
    "other context": (
        lambda f: set_hparams(f, n_ctx=17),
        "model/wpe has shape [16, 12], expected [17, 12]",
    ),
    "no vocabulary": (lambda f: set_hparams(f, n_vocab=None), "has no n_vocab"),
    "hparams are a list": (
        lambda f: (f / "hparams.json").write_text("[]"),
        "must hold a JSON object, got list",
    ),
}


def set_hparams(folder: Path, **values: Any) -> None:
    path = folder / "hparams.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", TF_FAULTS)
def test_a_corrupt_tensorflow_release_is_one_clear_line(name: str, tf_folder: Path) -> None:
    damage, message = TF_FAULTS[name]
    damage(tf_folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tf_folder)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_the_prefix_comes_from_the_checkpoint_file_and_stays_in_the_folder(tf_folder: Path) -> None:
    for suffix in ("index", "data-00000-of-00001"):
        shutil.copy(tf_folder / f"model.ckpt.{suffix}", tf_folder / f"other.ckpt.{suffix}")
    for line in ("model.ckpt", "/somewhere/else/other.ckpt", "C:\\\\models\\\\other.ckpt"):
        (tf_folder / "checkpoint").write_text(f'model_checkpoint_path: "{line}"\n')
        assert open_checkpoint(tf_folder).source.where.startswith(str(tf_folder))
    (tf_folder / "checkpoint").unlink()
    with pytest.raises(CheckpointError, match=r"has 2 \*\.index files"):
        open_checkpoint(tf_folder)


@pytest.mark.parametrize("n_bytes", [0, 1, 9, 1023, 65_535, 65_536, 65_537, 200_001, 1 << 20])
def test_crc32c_equals_the_bitwise_definition(n_bytes: int) -> None:
    data = np.random.default_rng(n_bytes).bytes(min(n_bytes, 200_001)) + b"\0" * max(
        0, n_bytes - 200_001
    )
    crc = 0xFFFFFFFF
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    assert crc32c(data) == crc ^ 0xFFFFFFFF


def test_crc32c_has_the_published_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"\0" * 32) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert struct.pack("<I", masked_crc32c(b"foo")) == struct.pack(
        "<I", (0xCFC4AE1D >> 15 | 0xCFC4AE1D << 17 & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF
    )
