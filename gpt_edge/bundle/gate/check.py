"""`checked_model`: what onnxruntime gets of a bundle, after every byte of its graph was looked at.

The folder is held open and its files are opened once, without following links. A graph of gpt-edge
comes back as the bytes that were checked. Data beside it is opened again by onnxruntime, by its
name; offsets and lengths were checked against the file as it was, and onnxruntime checks them once
more. So whoever may write to the folder while a bundle is loaded can change its weights, but not
make onnxruntime read outside the folder's files.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.foreign import check_foreign
from gpt_edge.bundle.gate.graph import check_graph
from gpt_edge.bundle.gate.limits import (
    AROUND_LAYERS,
    GRAPH_BYTES,
    MAX_GRAPH_BYTES,
    PER_LAYER,
    GateError,
    shown,
)
from gpt_edge.bundle.gate.proto import read_graph
from gpt_edge.bundle.gate.records import Tensor
from gpt_edge.bundle.gate.tensors import check_floats, check_scales, check_tensors, is_small_float
from gpt_edge.errors import BundleError
from gpt_edge.system.disk import FolderReader

HINT = "do not run it; rebuild it from its checkpoint with gpt-edge export"


def checked_model(bundle: Bundle) -> Path | bytes:
    """Check a bundle's graph and where its weights lie; returns the bytes of the graph, or of a
    folder that another tool exported the graph's path.

    Reads no weights except scales, biases and norms. Raises BundleError for what no export holds,
    for a file that is no regular file beside the graph, and for one that cannot be read.
    """
    path = bundle.model_path
    if path.suffix == ".ort":  # what `export --to ort` wrote a moment ago, of a checked graph
        return path
    try:
        with FolderReader(path.parent) as folder:
            if bundle.is_optimum_export:
                with _mapped(folder, path.name) as data:
                    check_foreign(memoryview(data), bundle, _sizes(folder, path.name))
                return path
            return _own(bundle, folder, path.name)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        name = shown(error.object)
        raise BundleError(
            f"gpt-edge cannot load {path}: the name {name} is no printable text", hint=HINT
        ) from error
    except (ValueError, OverflowError) as error:  # GateError, and what is no protobuf message
        raise BundleError(f"gpt-edge cannot load {path}: {error}", hint=HINT) from error


def _own(bundle: Bundle, folder: FolderReader, name: str) -> bytes:
    with folder.open(name) as stream:
        size = stream.seek(0, 2)
        listed = bundle.manifest.files[name]["size"]
        most = min(GRAPH_BYTES * (2 + bundle.config.n_layer), MAX_GRAPH_BYTES)
        if size != listed or size > most:
            raise GateError(f"it has {size} bytes, expected {listed}, and {most} at most")
        stream.seek(0)
        data = stream.read(size)
    config, task = bundle.config, bundle.task
    graph = read_graph(data, AROUND_LAYERS + PER_LAYER * min(config.n_layer, size))
    sizes = _sizes(folder, name, {tensor.location for tensor in graph.initializers})
    check_tensors(graph.initializers, sizes, bundle.manifest.files)
    kind = None if task is None else task.kind
    scales = check_graph(graph, config, bundle.graph, kind)
    _check_numbers(folder, graph.initializers, scales)
    return data


def _sizes(folder: FolderReader, model: str, names: set[str] | None = None) -> dict[str, int]:
    """The sizes of regular files of the folder, by name: of those, or of all that may hold the
    weights of `model`.
    """
    found = {}
    for name in folder.names():
        if name == model or not (name in names if names is not None else name.startswith(model)):
            continue
        with folder.open(name) as stream:
            found[name] = stream.seek(0, 2)
    return found


def _check_numbers(folder: FolderReader, tensors: Sequence[Tensor], scales: set[str]) -> None:
    """Scales are finite, and so are norms and biases."""
    with ExitStack() as stack:
        files: dict[str, BufferedReader] = {}
        for tensor in tensors:
            is_scale = tensor.name in scales
            if not is_scale and not is_small_float(tensor):
                continue
            check = check_scales if is_scale else check_floats
            if tensor.data is not None:
                check(tensor.name, bytes(tensor.data))
                continue
            if tensor.location not in files:
                files[tensor.location] = stack.enter_context(folder.open(tensor.location))
            file = files[tensor.location].raw  # a buffer would only copy what is read
            file.seek(tensor.offset, os.SEEK_SET)
            data = file.read(tensor.length)
            if len(data) != tensor.length:
                raise GateError(f"{tensor.location} was cut while it was read")
            check(tensor.name, data)


@contextmanager
def _mapped(folder: FolderReader, name: str) -> Iterator[mmap.mmap]:
    """A file's content, in memory only where it is looked at."""
    with folder.open(name) as stream:
        if stream.seek(0, 2) == 0:
            raise GateError("it is empty")
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield content
        finally:
            with suppress(BufferError):  # an error's traceback still shows a part of it
                content.close()
