"""Attacks by numbers among the weights, by the config, and by files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from tests.hostile.crafted.attack import (
    entry,
    of_folder,
    stored,
)
from tests.hostile.signing import read_values, sign


def _number_at(part: str, value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        tensor = stored(model, part)
        path = folder / "model.onnx.data"
        data = bytearray(path.read_bytes())
        at = int(entry(tensor, "offset").value)
        data[at : at + 4] = np.float32(value).tobytes()
        path.write_bytes(data)
        sign(folder)

    return spoil


of_folder("a scale that is no number", "native-int8", "native-int4")(
    _number_at("c_attn.weight_scales", float("nan"))
)
of_folder("an infinite scale", "native-int8-block")(_number_at("c_fc.weight_scales", float("inf")))
of_folder("a scale of 1e30", "native-int8")(_number_at("wte.weight_scales", 1e30))
of_folder("a norm that is no number")(_number_at("ln_1.weight", float("nan")))


def _config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        values = read_values(folder)
        values["config"].update(changes)
        sign(folder, values)

    return spoil


for _title, _values in {
    "a config with a million layers": {"n_layer": 1 << 20},
    "a config with three layers": {"n_layer": 3},
    "a config with one layer": {"n_layer": 1},
    "a config with another number of heads": {"n_head": 4},
    "a config with a larger vocabulary": {"vocab_size": 300},
    "a config with a smaller vocabulary": {"vocab_size": 200},
    "a config with a longer context": {"n_ctx": 4096},
    "a config with a shorter context": {"n_ctx": 16},
    "a config with a larger width": {"n_embd": 1 << 20},
    "a config with another activation": {"activation": "relu"},
    "a config with another epsilon": {"layer_norm_epsilon": 1.0},
    "a config of a classifier": {"n_label": 3},
}.items():
    of_folder(_title, "tiny-edge", "tiny-portable")(_config(**_values))


@of_folder("a vocabulary that graph and config lie about")
def lie_about_the_vocabulary(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5000
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    values = read_values(folder)
    values["config"]["vocab_size"] = 5000
    sign(folder, values)


@of_folder("weights behind a link")
def linked(folder: Path) -> None:
    path = folder / "model.onnx.data"
    data = folder.parent / "elsewhere.data"
    data.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(data)


@of_folder("a graph behind a link")
def linked_graph(folder: Path) -> None:
    path = folder / "model.onnx"
    other = folder.parent / "elsewhere.onnx"
    other.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(other)


@of_folder("weights that are a pipe")
def pipe(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    os.mkfifo(folder / "model.onnx.data")


@of_folder("weights that are a folder")
def weights_folder(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    (folder / "model.onnx.data").mkdir()


@of_folder("weights that the manifest does not list")
def unlisted(folder: Path) -> None:
    values = read_values(folder)
    del values["files"]["model.onnx.data"]
    sign(folder, values)


@of_folder("weights cut off")
def short_weights(folder: Path) -> None:
    path = folder / "model.onnx.data"
    path.write_bytes(path.read_bytes()[:1000])
    sign(folder)


@of_folder("a graph of zeros")
def zeros(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(bytes(5000))
    sign(folder)


@of_folder("an empty graph")
def empty(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    sign(folder)
