"""The C++ library of examples/cpp: compiled, and called through its C header by ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from tests.conftest import REPO

SOURCES = REPO / "examples" / "cpp"
FINISH_REASONS = {1: "stop", 2: "length", 3: "context_full", 4: "cancelled"}
STATUSES = {
    1: "invalid_argument",
    2: "bundle",
    3: "tokenizer",
    4: "context_length",
    5: "numeric",
    6: "runtime",
    7: "out_of_memory",
}
OnText = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class OpenOptions(ctypes.Structure):
    """gpt_edge_open_options."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        ("onnxruntime", ctypes.c_char_p),
        ("operators", ctypes.c_char_p),
    )


class Params(ctypes.Structure):
    """gpt_edge_params."""

    _fields_ = (
        ("max_new_tokens", ctypes.c_int64),
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("typical_p", ctypes.c_double),
        ("repetition_penalty", ctypes.c_double),
        ("presence_penalty", ctypes.c_double),
        ("frequency_penalty", ctypes.c_double),
        ("no_repeat_ngram_size", ctypes.c_int64),
        ("min_new_tokens", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("has_seed", ctypes.c_int32),
        ("ignore_end_token", ctypes.c_int32),
        ("special", ctypes.c_int32),
        ("truncate_left", ctypes.c_int32),
        ("stop", ctypes.POINTER(ctypes.c_char_p)),
        ("n_stop", ctypes.c_size_t),
        ("stop_token_ids", ctypes.POINTER(ctypes.c_int32)),
        ("n_stop_token_ids", ctypes.c_size_t),
    )


class Result(ctypes.Structure):
    """gpt_edge_result."""

    _fields_ = (
        ("text", ctypes.c_void_p),
        ("n_bytes", ctypes.c_size_t),
        ("ids", ctypes.POINTER(ctypes.c_int32)),
        ("n_ids", ctypes.c_size_t),
        ("prompt_tokens", ctypes.c_int64),
        ("dropped_tokens", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("prefill_seconds", ctypes.c_double),
        ("decode_seconds", ctypes.c_double),
        ("has_seed", ctypes.c_int32),
        ("finish_reason", ctypes.c_int32),
    )


class CppError(Exception):
    """An error that the library returned: the status by name, and its one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = STATUSES[status]


@dataclass(frozen=True)
class Done:
    """A gpt_edge_result as Python values."""

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    dropped_tokens: int
    seed: int | None
    pieces: tuple[str, ...]


def onnxruntime_library() -> Path | None:
    """The C library in onnxruntime's wheel; None where the wheel has none."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.so.*"))), None)


def missing_tool() -> str | None:
    """What the tests lack on this machine, None if nothing."""
    if shutil.which("g++") is None:
        return "g++"
    return None if onnxruntime_library() is not None else "libonnxruntime in onnxruntime's wheel"


def compile_library(folder: Path, *flags: str) -> Path:
    """The shared library in `folder`, compiled unless it is there for these sources and flags."""
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in sorted(SOURCES.rglob("*.h*")):
        digest.update(path.read_bytes())
    library = folder / f"libgpt_edge-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        temporary = library.with_suffix(".tmp")
        command = ["g++", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", *flags]
        command += [str(SOURCES / "gpt_edge.cpp"), "-o", str(temporary), "-ldl", "-pthread"]
        subprocess.run(command, check=True)
        temporary.replace(library)
    return library


class CppLibrary:
    """A loaded library; `open` gives models."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.gpt_edge_last_error.restype = ctypes.c_char_p
        self.c.gpt_edge_n_ctx.restype = ctypes.c_int64
        self.c.gpt_edge_vocab_size.restype = ctypes.c_int64

    def check(self, status: int) -> None:
        """Raise what the library returned."""
        if status:
            raise CppError(status, self.c.gpt_edge_last_error().decode())

    def open(self, folder: Path, *, threads: int = 0, operators: str | Path = "0") -> CppModel:
        """Open a bundle. operators: a library's path, or "0" for none."""
        options = OpenOptions(threads, str(onnxruntime_library()).encode(), str(operators).encode())
        model = ctypes.c_void_p()
        status = self.c.gpt_edge_open(
            str(folder).encode(), ctypes.byref(options), ctypes.byref(model)
        )
        self.check(status)
        return CppModel(self, model)


class CppModel:
    """A gpt_edge_model."""

    def __init__(self, library: CppLibrary, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def __enter__(self) -> CppModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.c.gpt_edge_close(self.handle)

    def defaults(self) -> Params:
        """The bundle's generation defaults."""
        params = Params()
        self.library.check(self.library.c.gpt_edge_get_defaults(self.handle, ctypes.byref(params)))
        return params

    def params(self, settings: dict[str, object]) -> Params:
        """Settings by the names of SamplingParams."""
        params = Params()
        self.library.c.gpt_edge_init_params(ctypes.byref(params))
        for name, value in settings.items():
            if name == "stop":
                texts = [text.encode() for text in value]  # type: ignore[attr-defined]
                params.stop, params.n_stop = (ctypes.c_char_p * len(texts))(*texts), len(texts)
            elif name == "stop_token_ids":
                ids: list[int] = list(value)  # type: ignore[call-overload]
                params.stop_token_ids = (ctypes.c_int32 * len(ids))(*ids)
                params.n_stop_token_ids = len(ids)
            else:
                setattr(params, name, value)
        params.has_seed = int("seed" in settings)
        return params

    def generate(
        self,
        prompt: str | bytes | list[int],
        on_text: Callable[[str], object] | None = None,
        **settings: object,
    ) -> Done:
        """Continue a text or ids; on_text ends the generation by returning True."""
        pieces: list[str] = []

        def show(piece: int, n_bytes: int, _: object) -> int:
            pieces.append(ctypes.string_at(piece, n_bytes).decode())
            return int(bool(on_text and on_text(pieces[-1])))

        params, result, c = self.params(settings), Result(), self.library.c
        end = (ctypes.byref(params), OnText(show), None, ctypes.byref(result))
        if isinstance(prompt, list):
            ids = (ctypes.c_int32 * len(prompt))(*prompt)
            status = c.gpt_edge_generate_ids(self.handle, ids, ctypes.c_size_t(len(prompt)), *end)
        else:
            data = prompt.encode() if isinstance(prompt, str) else prompt
            status = c.gpt_edge_generate(self.handle, data, ctypes.c_size_t(len(data)), *end)
        self.library.check(status)
        done = Done(
            text=ctypes.string_at(result.text, result.n_bytes).decode(),
            ids=tuple(result.ids[: result.n_ids]),
            finish_reason=FINISH_REASONS[result.finish_reason],
            prompt_tokens=result.prompt_tokens,
            dropped_tokens=result.dropped_tokens,
            seed=result.seed if result.has_seed else None,
            pieces=tuple(pieces),
        )
        c.gpt_edge_free_result(ctypes.byref(result))
        return done

    def encode(self, text: str | bytes, *, special: bool = False) -> list[int]:
        """Ids of a text."""
        data = text.encode() if isinstance(text, str) else text
        count = ctypes.c_size_t()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        status = self.library.c.gpt_edge_encode(
            self.handle,
            data,
            ctypes.c_size_t(len(data)),
            int(special),
            ids,
            ctypes.c_size_t(len(ids)),
            ctypes.byref(count),
        )
        self.library.check(status)
        return ids[: count.value]

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        array, count = (ctypes.c_int32 * len(ids))(*ids), ctypes.c_size_t()
        decode = self.library.c.gpt_edge_decode
        n_ids = ctypes.c_size_t(len(ids))
        self.library.check(
            decode(self.handle, array, n_ids, None, ctypes.c_size_t(0), ctypes.byref(count))
        )
        text = ctypes.create_string_buffer(count.value + 1)
        self.library.check(
            decode(
                self.handle, array, n_ids, text, ctypes.c_size_t(count.value), ctypes.byref(count)
            )
        )
        return text.raw[: count.value].decode()
