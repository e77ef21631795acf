"""Tensors from torch's pickled files, none of which may run code.

Every file passes three gates: the pickle's opcodes are read and every global outside a short list
is refused by name; `torch.load(weights_only=True)` loads it; only dense tensors whose values are in
the file are returned. A trainer's settings, such as an object of its class GPTConfig, become
`Inert` values: what the pickle says of them, without their class.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.sources import TensorInfo, printable

MAX_PICKLE_BYTES = 1 << 26
# torch.save before 1.6: five pickles, then the data
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED_GLOBALS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.device",
    "collections.Counter",
    "__builtin__.set",
    "__builtin__.complex",
    *(f"torch.{kind}Storage" for kind in _STORAGES),
    *(str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)),
}
# settings and figures beside the weights: classes of the trainer's own, numpy's numbers, paths
_INERT_GLOBALS = re.compile(
    r"__main__\.\w+|[\w.]+\.\w*(Config|Args|Arguments|Settings|Params|CfgNode)"
    r"|argparse\.Namespace|types\.SimpleNamespace|omegaconf\.[\w.]+|typing\.Any"
    r"|\w+\.[\w.]*AttributeDict|collections\.defaultdict|__builtin__\.(bool|dict|float|int|list|long|str|tuple|unicode)"
    r"|numpy\.(_core|core)\.multiarray\.scalar|numpy\.dtype|_codecs\.encode"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
)
_GLOBAL_OPCODES = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_TEXT_OPCODES = {
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}
_SIZE_OPCODES = {"LONG1", "LONG4", "BININT", "INT", "LONG"}  # the other opcodes hold at most 65,535
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# Lightning's settings: a class of dictionaries, which only a dictionary can stand for
_DICT_GLOBALS = re.compile(r"[\w.]+\.AttributeDict")
# what protocol 2 calls Python's own types, and what torch looks for
_OLD_NAMES = {
    f"__builtin__.{old}": f"builtins.{new}"
    for old, new in (
        *((name, name) for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        ("long", "int"),
        ("unicode", "str"),
    )
}
_WHOLE_MODEL = re.compile(r"torch\.nn\.(?!parameter\.)|[\w.]+\.modeling_\w+\.")
_WHOLE_MODEL_HINT = (
    "it is a whole model, which only its own code can open: where that is, save the weights with "
    "torch.save(model.state_dict(), FILE)"
)
_HINT = "if you trust its author, convert it to safetensors on a machine that you can lose"


class Inert:
    """What a pickle makes of another class: its arguments and its state, plain values or Inert ones
    themselves. Nothing of that class is imported or called.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.__init__()  # type: ignore[misc]
        self.state = state


@dataclass(frozen=True)
class LoadedTensors:
    """A state dict as a TensorSource; its tensors are in torch's mapping of the file."""

    where: str
    tensors: Mapping[str, torch.Tensor]

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """As TensorSource.infos; a dtype that cannot be read keeps torch's name."""
        return {
            name: TensorInfo(_DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
            for name, tensor in self.tensors.items()
        }

    def read(self, name: str) -> FloatArray:
        """As TensorSource.read."""
        tensor = self.tensors[name]
        array: FloatArray = tensor.float().numpy()
        if tensor.dtype is torch.float32:
            array.flags.writeable = False  # the state dict's own memory
        return array

    def release(self, name: str) -> None:
        """Does nothing: torch keeps its mapping."""


def open_torch_tensors(path: Path) -> LoadedTensors:
    """The state dict in a pytorch_model.bin. Raises as `load_torch_file` does."""
    return as_tensors(str(path), load_torch_file(path))


def open_sharded_torch_tensors(index: Path, weight_map: Mapping[str, str]) -> LoadedTensors:
    """The state dicts of the files in a pytorch_model.bin.index.json, which must hold exactly the
    tensors that it lists.
    """
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        stored = open_torch_tensors(index.parent / shard).tensors
        listed = {name for name, file in weight_map.items() if file == shard}
        if differing := sorted(stored.keys() ^ listed):
            raise CheckpointError(
                f"{index} and {shard} disagree on whether {printable(differing[0])} is in it"
            )
        tensors |= stored
    return LoadedTensors(str(index), tensors)


def load_torch_file(path: Path) -> Any:
    """The content of a file of torch.save, with tensors mapped from the file.

    Raises CheckpointError, naming it, for anything but plain containers, numbers, strings, Inert
    values and dense tensors.
    """
    inert: set[str] = set()
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if is_zip:
                inert = _check_archive(path, file, n_bytes)
            else:
                inert = _check_legacy(path, file, n_bytes)
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in inert]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=True if is_zip else None
            )
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:  # torch's message advises to switch the check off
        raise CheckpointError(
            f"{path} is a pickle of other objects than plain tensors", hint=_HINT
        ) from error
    except Exception as error:  # a third-party parser on untrusted bytes: the file is corrupt
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is not a complete torch checkpoint: {printable(reason)}",
            hint="copy or download the file again",
        ) from error


def _stand_in(name: str) -> Any:
    """What is made in place of a class: torch fills no object but a dictionary item by item."""
    if name == "collections.defaultdict":
        return lambda *arguments: OrderedDict()
    return OrderedDict if _DICT_GLOBALS.fullmatch(name) else Inert


def as_tensors(where: str, state: object) -> LoadedTensors:
    """Check that `state` maps names to dense tensors whose values are all stored. Raises
    CheckpointError.
    """
    if not isinstance(state, dict) or not state:
        raise CheckpointError(
            f"{where} holds {type(state).__name__}, expected a state dict of tensors"
        )
    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{where}: {printable(str(name))} is {type(value).__name__}, expected a tensor",
                hint=f"if that is GPT-2's state dict, take the file: {where}"
                if isinstance(value, dict)
                else None,
            )
        if (
            value.layout != torch.strided
            or value.is_quantized
            or value.is_nested
            or value.device.type != "cpu"
        ):
            raise CheckpointError(f"{where}: {printable(name)} is not a dense tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{where}: {printable(name)} declares {value.numel()} values, fewer are stored"
            )
        tensors[name] = value.detach()
    return LoadedTensors(where, tensors)


def _check_archive(path: Path, file: BinaryIO, n_bytes: int) -> set[str]:
    """torch.save since 1.6: one folder in an uncompressed zip, data.pkl in it. Returns as
    `_check_pickle`.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith("constants.pkl") for name in names):
            raise CheckpointError(
                f"{path} is a TorchScript program, expected a state dict", hint=_HINT
            )
        if len(set(names)) != len(names):
            raise CheckpointError(f"{path} holds a file twice")
        for entry in entries:
            if (
                entry.compress_type != zipfile.ZIP_STORED
                or entry.flag_bits & 1
                or entry.file_size > n_bytes
            ):
                raise CheckpointError(
                    f"{path}: {printable(entry.filename)} is compressed, encrypted or longer than "
                    "the whole file"
                )
        if sum(entry.file_size for entry in entries) > n_bytes:
            raise CheckpointError(f"{path} declares more bytes than it has")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if (
            len(pickles) != 1
            or pickles[0].filename.count("/") != 1
            or not pickles[0].filename.endswith("/data.pkl")
        ):
            raise CheckpointError(f"{path} is a zip file but not one that torch.save wrote")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: data.pkl has {pickles[0].file_size} bytes, at most {MAX_PICKLE_BYTES} "
                "are read"
            )
        return _check_pickle(path, io.BytesIO(archive.read(pickles[0])))


def _check_legacy(path: Path, file: BinaryIO, n_bytes: int) -> set[str]:
    """torch.save before 1.6. Any whole number in it is a size or an offset, so none may exceed the
    file's length. Returns as `_check_pickle`.
    """
    inert: set[str] = set()
    is_legacy = file.read(len(_LEGACY_START)) == _LEGACY_START
    file.seek(len(_LEGACY_START) if is_legacy else 0)
    for _ in range(4 if is_legacy else 1):
        inert |= _check_pickle(path, file, max_number=n_bytes if is_legacy else None)
    if not is_legacy:
        raise CheckpointError(f"{path} is a pickle but not one that torch.save wrote", hint=_HINT)
    return inert


def _check_pickle(path: Path, file: BinaryIO, max_number: int | None = None) -> set[str]:
    """Read one pickle's opcodes without running them, and return the globals to load as Inert.
    Raises CheckpointError for a global that is not allowed.
    """
    inert: set[str] = set()
    texts = ["?", "?"]
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _TEXT_OPCODES:
            texts = [texts[1], str(argument)]
        if opcode.name in _GLOBAL_OPCODES:
            name = str(argument).replace(" ", ".", 1)
            if opcode.name == "STACK_GLOBAL":
                name = ".".join(texts)
            if opcode.name == "GLOBAL" and _INERT_GLOBALS.fullmatch(name):
                inert.add(_OLD_NAMES.get(name, name))
            elif opcode.name != "GLOBAL" or name not in _ALLOWED_GLOBALS:
                raise CheckpointError(
                    f"{path} is a pickle that would run code or is not a plain checkpoint: it "
                    f"imports {printable(name)}",
                    hint=_WHOLE_MODEL_HINT if _WHOLE_MODEL.match(name) else _HINT,
                )
        if max_number is None or opcode.name not in _SIZE_OPCODES or not isinstance(argument, int):
            continue
        if not -1 <= argument <= max_number:
            raise CheckpointError(
                f"{path} declares a size of {argument}, the file has {max_number} bytes"
            )
    return inert
