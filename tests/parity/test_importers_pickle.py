"""Pickled checkpoints: good ones load, none runs code. A canary file would tell."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError, GPTEdgeError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.torch_pickle import open_torch_tensors
from gpt_edge.reference.model import GPT

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 8, "vocab_size": 11}
Weights = dict[str, Any]


class Call:
    """Pickles as a call of `function` with `arguments`: what every gadget comes down to."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class Built:
    """Pickles as an object whose state is set by BUILD."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["canary"].touch()


def weights() -> Weights:
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=2, n_embd=8, n_ctx=8, vocab_size=11)
    return OrderedDict(
        (f"transformer.{name}", p.detach().clone()) for name, p in GPT(config).named_parameters()
    )


def repack(
    data: bytes,
    change: Callable[[str, bytes], bytes] = lambda name, content: content,
    **options: Any,
) -> bytes:
    """The zip file written again, each entry passed through `change`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", **options) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return out.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def with_data_pickle(content: bytes) -> bytes:
    return repack(saved(weights()), lambda name, old: content if name.endswith("data.pkl") else old)


def tar_of(canary: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Call(os.system, f"touch {canary}"), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def torch_script() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out)
    return out.getvalue()


def exported_program() -> bytes:
    """The layout of torch.export's .pt2, whose loader falls back to a full pickle for some of its
    entries.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/models/model.json", "{}")
        archive.writestr("x/data/weights/model.pt", saved(weights()))
    return out.getvalue()


def bad_sparse() -> torch.Tensor:
    crow, columns = torch.tensor([0, 1, 2]), torch.tensor([0, 10**9])
    return torch.sparse_csr_tensor(crow, columns, torch.ones(2), (2, 2), check_invariants=False)


GADGETS: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda c: saved({**weights(), "x": Call(os.system, f"touch {c}")}),
    "builtins.eval": lambda c: saved({**weights(), "x": Call(eval, f"open({str(c)!r}, 'w')")}),
    "builtins.exec": lambda c: saved(Call(exec, f"open({str(c)!r}, 'w')")),
    "getattr chain": lambda c: saved(Call(getattr, Call(__import__, "os"), "system")),
    "BUILD": lambda c: saved({**weights(), "x": Built(c)}),
    "raw pickle": lambda c: pickle.dumps(Call(os.system, f"touch {c}")),
    "raw protocol 0": lambda c: f"cposix\nsystem\n(S'touch {c}'\ntR.".encode(),
    "INST opcode": lambda c: with_data_pickle(f"(S'touch {c}'\niposix\nsystem\n.".encode()),
    "OBJ opcode": lambda c: with_data_pickle(f"(cposix\nsystem\nS'touch {c}'\no.".encode()),
    "STACK_GLOBAL": lambda c: with_data_pickle(
        pickle.dumps(Call(os.system, f"touch {c}"), protocol=4)
    ),
    "legacy format": lambda c: saved(
        {"x": Call(os.system, f"touch {c}")}, _use_new_zipfile_serialization=False
    ),
    "legacy tar": tar_of,
    "TorchScript": lambda c: torch_script(),
    "exported program": lambda c: exported_program(),
    "nested zip": lambda c: repack(
        saved({"x": 1}),
        lambda name, old: (
            saved(Call(os.system, f"touch {c}")) if name.endswith("data.pkl") else old
        ),
    ),
    "second pickle": lambda c: _add_entry(
        saved(weights()), "archive/x/data.pkl", pickle.dumps(Call(os.system, f"touch {c}"))
    ),
    "sparse with bad indices": lambda c: saved({**weights(), "x": bad_sparse()}),
    "quantized": lambda c: saved(
        {**weights(), "x": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}
    ),
    "object array": lambda c: saved(
        {**weights(), "x": np.array([Call(os.system, f"touch {c}")], dtype=object)}
    ),
    "persistent id": lambda c: with_data_pickle(
        pickle.dumps({"x": 1}, protocol=2)[:-1] + b"Pposix.system\n."
    ),
    "whole module": lambda c: saved(torch.nn.Linear(2, 2)),
    "not a tensor": lambda c: saved({**weights(), "x": "text"}),
    "a list": lambda c: saved([1, 2, 3]),
    "compressed": lambda c: repack(saved(weights()), compression=zipfile.ZIP_DEFLATED),
    "more values than stored": lambda c: saved(
        {**weights(), "x": torch.zeros(1).expand(10**9, 10**9)}
    ),
    "empty": lambda c: b"",
    "text": lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548118077\n",
}


def _add_entry(data: bytes, name: str, content: bytes) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GADGETS)
@pytest.mark.parametrize("file", ["pytorch_model.bin", "ckpt.pt"])
def test_a_pickle_that_is_more_than_dense_tensors_is_refused_and_runs_nothing(
    name: str, file: str, tmp_path: Path
) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "model"
    folder.mkdir()
    (folder / file).write_bytes(GADGETS[name](canary))
    if file == "pytorch_model.bin":
        (folder / "config.json").write_text(json.dumps({**SHAPE, "model_type": "gpt2"}))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert not canary.exists()
    assert caught.value.message.isprintable()
    assert str(folder / file) in caught.value.message


def test_the_gadgets_of_this_test_are_live(tmp_path: Path) -> None:
    """Otherwise the absent canary would prove nothing."""
    canary = tmp_path / "canary"
    for name in ("raw pickle", "raw protocol 0"):
        pickle.loads(GADGETS[name](canary))
        assert canary.exists()
        canary.unlink()
    for name in ("os.system", "BUILD", "STACK_GLOBAL", "legacy format", "INST opcode"):
        torch.load(io.BytesIO(GADGETS[name](canary)), weights_only=False)
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("os.system", f"{os.system.__module__}.system"),
        ("builtins.eval", "__builtin__.eval"),
        ("INST opcode", "posix.system"),
        ("STACK_GLOBAL", "posix.system"),
        ("raw protocol 0", "posix.system"),
        ("sparse with bad indices", "torch._utils._rebuild_sparse_tensor"),
        ("quantized", "torch._utils._rebuild_qtensor"),
        ("object array", "numpy"),
    ],
)
def test_the_message_names_what_the_pickle_asks_for(name: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(GADGETS[name](tmp_path / "canary"))
    with pytest.raises(CheckpointError, match="is a pickle that would run code") as caught:
        open_torch_tensors(tmp_path / "x.bin")
    assert f"it imports {wanted}" in caught.value.message


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_plain_state_dict_loads_in_both_of_torchs_formats(is_zip: bool, tmp_path: Path) -> None:
    wanted = weights()
    wanted["transformer.wpe.weight"] = torch.nn.Parameter(wanted["transformer.wpe.weight"])
    # its strides are kept
    wanted["transformer.wte.weight"] = wanted["transformer.wte.weight"].t().contiguous().t()
    torch.save(wanted, tmp_path / "x.bin", _use_new_zipfile_serialization=is_zip)
    found = open_torch_tensors(tmp_path / "x.bin")
    assert list(found.infos) == list(wanted)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found.read(name), tensor.detach().numpy())


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, "model_type": "gpt2"}))
    (tmp_path / "pytorch_model.bin").write_bytes(GADGETS["text"](tmp_path))
    with pytest.raises(CheckpointError, match="is a Git LFS pointer") as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value.hint).endswith("lfs pull")


def test_a_legacy_file_that_declares_more_than_it_holds_is_refused_before_allocation(
    tmp_path: Path,
) -> None:
    data = saved({"x": torch.arange(70000.0)}, _use_new_zipfile_serialization=False)
    assert data.count(struct.pack("<i", 70000)) >= 2
    (tmp_path / "x.bin").write_bytes(
        data.replace(struct.pack("<i", 70000), struct.pack("<i", 2**31 - 1))
    )
    with pytest.raises(CheckpointError, match="declares a size of 2147483647, the file has"):
        open_torch_tensors(tmp_path / "x.bin")


@pytest.mark.parametrize("is_zip", [True, False])
def test_every_truncation_is_one_clear_error(is_zip: bool, tmp_path: Path) -> None:
    data = saved(weights(), _use_new_zipfile_serialization=is_zip)
    for n_bytes in range(0, len(data) - 1, 97):
        (tmp_path / "x.bin").write_bytes(data[:n_bytes])
        with pytest.raises(CheckpointError):
            open_torch_tensors(tmp_path / "x.bin")


@pytest.mark.parametrize("is_zip", [True, False])
def test_random_damage_is_an_error_or_a_state_dict_never_a_crash(
    is_zip: bool, tmp_path: Path
) -> None:
    data = saved(weights(), _use_new_zipfile_serialization=is_zip)
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(250):
        mutant = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            mutant[int(rng.integers(len(mutant)))] = int(rng.integers(256))
        (tmp_path / "x.bin").write_bytes(mutant)
        try:
            found = open_torch_tensors(tmp_path / "x.bin")
            for name, info in found.infos.items():
                assert found.read(name).shape == info.shape
        except GPTEdgeError:
            n_refused += 1
    assert 10 < n_refused < 250


def test_nothing_was_imported_on_a_pickles_behalf(tmp_path: Path) -> None:
    """Resolving a global imports its module, whose top level is code already."""
    module = "antigravity"  # of the standard library; importing it opens a browser
    (tmp_path / "x.bin").write_bytes(with_data_pickle(f"c{module}\nfly\n.".encode()))
    with pytest.raises(CheckpointError, match=r"antigravity\.fly"):
        open_torch_tensors(tmp_path / "x.bin")
    assert module not in sys.modules
