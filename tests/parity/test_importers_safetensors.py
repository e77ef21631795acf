"""Our safetensors validator: never accepts what the Rust library refuses, and says what is
wrong.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save, save_file

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.safetensors_file import (
    open_safetensors,
    open_sharded_safetensors,
    parse_header,
)

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.arange(5, dtype=torch.float16),
    "c": torch.arange(4, dtype=torch.bfloat16).reshape(2, 2),
    "d": torch.arange(3, dtype=torch.int64),
    "empty": torch.zeros(0, 4),
}


def packed(header: Any, n_data: int = 24) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * n_data


def entry(shape: Any = (2, 3), offsets: Any = (0, 24), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def two(first: dict[str, Any], second: dict[str, Any], n_data: int = 24) -> bytes:
    return packed({"a": first, "b": second}, n_data)


ONE = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
BAD: dict[str, bytes] = {
    "empty file": b"",
    "seven bytes": b"\x10\0\0\0\0\0\0",
    "header longer than the file": (1000).to_bytes(8, "little") + ONE + b"}",
    "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + ONE + b"}",
    "header beyond the limit": (100_000_001).to_bytes(8, "little") + b"{}",
    "empty header": packed(b""),
    "header is a list": packed(b"[]"),
    "header is cut": packed(ONE),
    "header is not UTF-8": packed(b'{"\xff":1}'),
    "header starts with a space": packed(b" " + ONE + b"}"),
    "text after the header": packed(ONE + b"}x"),
    "NaN in the header": packed(b'{"a":NaN}'),
    "deep nesting": packed(b'{"a":' + b"[" * 100_000),
    "lone surrogate": packed(ONE.replace(b'"a"', b'"\\ud800"') + b"}"),
    "duplicate tensor": packed(ONE + b"," + ONE[1:] + b"}"),
    "duplicate field": packed(ONE[:-1] + b',"dtype":"F32"}}'),
    "tensor is a number": packed({"a": 1}),
    "missing dtype": packed({"a": {"shape": [2, 3], "data_offsets": [0, 24]}}),
    "unknown field": packed({"a": {**entry(), "x": 1}}),
    "unknown dtype": packed({"a": entry(dtype="F33")}),
    "dtype is a number": packed({"a": entry(dtype=4)}),
    "shape is a number": packed({"a": entry(shape=6)}),
    "negative size": packed({"a": entry(shape=[-2, -3])}),
    "minus zero": packed(ONE.replace(b"[0,24]", b"[-0,24]") + b"}"),
    "size as float": packed({"a": entry(shape=[2.0, 3])}),
    "size as true": packed({"a": entry(shape=[6, True])}),
    "size as text": packed({"a": entry(shape=["2", 3])}),
    "size overflows 64 bits": packed({"a": entry(shape=[2**64, 3])}),
    "product overflows 64 bits": packed({"a": entry(shape=[2**33, 2**33], offsets=[0, 24])}),
    "one offset": packed({"a": entry(offsets=[0])}),
    "three offsets": packed({"a": entry(offsets=[0, 12, 24])}),
    "offsets swapped": packed({"a": entry(offsets=[24, 0])}),
    "shape larger than its bytes": packed({"a": entry(shape=[2, 4])}),
    "shape smaller than its bytes": packed({"a": entry(shape=[2, 2])}),
    "data beyond the file": packed({"a": entry()}, n_data=23),
    "data left over": packed({"a": entry()}, n_data=25),
    "hole at the start": packed({"a": entry(offsets=[4, 28])}, n_data=28),
    "hole between": two(entry([3], (0, 12)), entry([2], (16, 24))),
    "overlap": two(entry([4], (0, 16)), entry([4], (8, 24))),
    "same bytes twice": two(entry(), entry()),
    "metadata is a list": packed({"a": entry(), "__metadata__": []}),
    "metadata holds a number": packed({"a": entry(), "__metadata__": {"x": 1}}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_file_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD[name])
    with pytest.raises(CheckpointError, match="is not a complete safetensors file") as caught:
        open_safetensors(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_what_the_library_writes_is_read_bit_for_bit(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    source = open_safetensors(tmp_path / "x.safetensors")
    assert {name: (info.dtype, info.shape) for name, info in source.infos.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F16", (5,)),
        "c": ("BF16", (2, 2)),
        "d": ("I64", (3,)),
        "empty": ("F32", (0, 4)),
    }
    for name in ("a", "b", "c", "empty"):
        np.testing.assert_array_equal(source.read(name), TENSORS[name].float().numpy())


def test_special_values_of_half_precision_survive(tmp_path: Path) -> None:
    values = torch.tensor([0.0, -0.0, 1e-7, 65504.0, float("inf"), float("nan"), -2.5])
    stored = {"h": values.half(), "b": values.bfloat16()}
    save_file(stored, tmp_path / "x.safetensors")
    source = open_safetensors(tmp_path / "x.safetensors")
    for name, tensor in stored.items():
        np.testing.assert_array_equal(source.read(name), tensor.float().numpy())
        assert np.signbit(source.read(name)[1])


def test_data_that_is_not_aligned_is_copied_into_place(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(
        packed(ONE + b"} ")[:-24] + np.arange(6, dtype="<f4").tobytes()
    )
    array = open_safetensors(tmp_path / "x.safetensors").read("a")
    assert array.flags.aligned
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_truncation_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    data, path = save(TENSORS), tmp_path / "x.safetensors"
    for n_bytes in range(len(data)):
        path.write_bytes(data[:n_bytes])
        with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
            open_safetensors(path)


def accepts_ours(data: bytes) -> bool:
    n_header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or n_header > len(data) - 8:
        return False
    try:
        parse_header(data[8 : 8 + n_header], len(data) - 8 - n_header)
    except ValueError:
        return False
    return True


def accepts_library(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


def test_of_the_malformed_files_the_library_accepts_only_these_three() -> None:
    accepted = {name for name, data in BAD.items() if accepts_library(data)}
    assert accepted == {"unknown field", "duplicate tensor", "header starts with a space"}


def test_no_mutant_is_accepted_that_the_library_refuses() -> None:
    rng = np.random.default_rng(0)
    seeds = [*BAD.values(), *[save(TENSORS), packed(ONE + b"}")] * len(BAD)]
    alphabet = [*b'0123456789{}[]",:-.eFIU ', 0, 255]
    n_accepted = n_agreed = 0
    for _ in range(6000):
        mutant = bytearray(seeds[int(rng.integers(len(seeds)))][:4096])
        for _ in range(int(rng.integers(1, 4))):
            if not mutant:
                break
            position = int(rng.integers(min(len(mutant), 200)))
            match int(rng.integers(3)):
                case 0:
                    mutant[position] = int(rng.choice(alphabet))
                case 1:
                    del mutant[position]
                case _:
                    mutant.insert(position, int(rng.choice(alphabet)))
        # keep the length field right, so that more gets past it
        if rng.random() < 0.5 and len(mutant) > 8:
            end = mutant.rfind(b"}") + 1
            mutant[:8] = max(end - 8, 0).to_bytes(8, "little")
        ours, theirs = accepts_ours(bytes(mutant)), accepts_library(bytes(mutant))
        assert theirs or not ours, bytes(mutant)
        n_accepted += ours
        n_agreed += ours == theirs
    assert n_accepted > 100
    assert n_agreed / 6000 >= 0.999


def test_a_header_of_very_many_tensors_ends_soon(tmp_path: Path) -> None:
    header = {f"t{i}": entry([1], (4 * i, 4 * i + 4)) for i in range(20_001)}
    (tmp_path / "x.safetensors").write_bytes(packed(header, 4 * len(header)))
    start = time.process_time()
    with pytest.raises(CheckpointError, match="it has 20001 tensors, at most 20000 are read"):
        open_safetensors(tmp_path / "x.safetensors")
    assert time.process_time() - start < 2  # 0.1 s on an idle core


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
        ({"a": 3}, "expected the name of a file beside it"),
        ({"a": "../x.safetensors"}, "expected the name of a file beside it"),
        ({"a": "/etc/passwd"}, "expected the name of a file beside it"),
        ({"a": "..\\x.safetensors"}, "expected the name of a file beside it"),
        ({"a": ""}, "expected the name of a file beside it"),
        ({"a": "y.safetensors"}, "cannot be read"),
        (
            {"a": "x.safetensors", "z": "x.safetensors"},
            "says z is in x.safetensors, which does not hold it",
        ),
        ({"a": "x.safetensors"}, "does not list b"),
        (dict.fromkeys(TENSORS, "x.safetensors") | {"x": "w.safetensors"}, "holds a again"),
    ],
)
def test_a_shard_index_that_does_not_fit_is_refused(
    weight_map: Any, message: str, tmp_path: Path
) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    save_file({"a": TENSORS["a"], "x": TENSORS["a"].clone()}, tmp_path / "w.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        open_sharded_safetensors(index)


def test_a_truncated_download_of_a_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "gpt2",
                "n_layer": 1,
                "n_head": 1,
                "n_embd": 4,
                "n_positions": 4,
                "vocab_size": 4,
            }
        )
    )
    (tmp_path / "model.safetensors").write_bytes(save(TENSORS)[:-10])
    with pytest.raises(
        CheckpointError,
        match=r"model\.safetensors is not a complete safetensors file.*the file has",
    ) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint == "copy or download the file again"
