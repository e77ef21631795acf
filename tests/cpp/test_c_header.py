"""gpt_edge.h as another language sees it: structures, callbacks, cancelling, memory."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.generate.params import SamplingParams
from tests.conftest import REPO
from tests.support.cpp_library import (
    SOURCES,
    CppLibrary,
    CppModel,
    OpenOptions,
    Params,
    Result,
)

TINY = REPO / "tests" / "golden" / "tiny-edge"
EMBEDDED = REPO / "models" / DEFAULT_BUNDLE
PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include "gpt_edge.h"
int main(void) {
    printf("%zu %zu %zu\\n", sizeof(gpt_edge_open_options), sizeof(gpt_edge_params),
           sizeof(gpt_edge_result));
    printf("%zu %zu\\n", offsetof(gpt_edge_params, stop), offsetof(gpt_edge_result, has_seed));
    return 0;
}
"""


def test_the_header_is_plain_c_and_has_the_layout_that_the_tests_use(tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    compiler = shutil.which("gcc") or "cc"
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{SOURCES}"]
    command = [compiler, *flags, str(tmp_path / "program.c"), "-o", str(tmp_path / "program")]
    subprocess.run(command, check=True)
    shown = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    sizes = [ctypes.sizeof(kind) for kind in (OpenOptions, Params, Result)]
    assert shown.stdout.split() == [
        *map(str, sizes),
        str(Params.stop.offset),
        str(Result.has_seed.offset),
    ]


def test_every_function_of_the_header_is_exported(cpp: CppLibrary) -> None:
    header = (SOURCES / "gpt_edge.h").read_text()
    names = set(re.findall(r"^GPT_EDGE_API [^;(]*?(gpt_edge_\w+)\(", header, re.MULTILINE))
    assert len(names) == 13
    for name in names:
        assert hasattr(cpp.c, name)


def test_the_defaults_are_those_of_sampling_params(cpp: CppLibrary) -> None:
    filled = Params()
    cpp.c.gpt_edge_init_params(ctypes.byref(filled))
    default = SamplingParams()
    for item in dataclasses.fields(default):
        if not hasattr(filled, item.name) or item.name in ("stop", "stop_token_ids", "seed"):
            continue
        expected = getattr(default, item.name)
        if expected is None:
            expected = 0 if item.name == "top_k" else -1
        assert getattr(filled, item.name) == expected, item.name


def test_a_callback_cancels_within_a_token(cpp: CppLibrary) -> None:
    with cpp.open(EMBEDDED) as model:
        whole = model.generate("Once upon a time", max_new_tokens=30)
        seen: list[str] = []

        def stop_at_third(piece: str) -> bool:
            seen.append(piece)
            return len(seen) == 4  # the first is before the prompt

        done = model.generate("Once upon a time", stop_at_third, max_new_tokens=30)
        assert (done.finish_reason, done.ids) == ("cancelled", whole.ids[:3])
        assert whole.text.startswith(done.text)
        long = "The dog ran home. " * 90
        done = model.generate(long, lambda piece: True, max_new_tokens=30)
        assert (done.finish_reason, done.ids, len(done.pieces)) == ("cancelled", (), 1)


def test_pieces_are_whole_characters(cpp: CppLibrary) -> None:
    """The tiny model writes bytes at random: each piece is UTF-8, which `generate` checks."""
    with cpp.open(TINY) as model:
        for seed in range(10):
            done = model.generate("é", temperature=2.0, seed=seed, max_new_tokens=40)
            assert "".join(done.pieces) == done.text


def test_an_error_stays_until_the_next_one_of_its_thread(cpp: CppLibrary, tiny: CppModel) -> None:
    cpp.c.gpt_edge_open(b"/none", None, ctypes.byref(ctypes.c_void_p()))
    assert b"/none" in cpp.c.gpt_edge_last_error()
    tiny.generate("ab", max_new_tokens=2)
    assert b"/none" in cpp.c.gpt_edge_last_error()
    other: list[bytes] = []
    thread = threading.Thread(target=lambda: other.append(cpp.c.gpt_edge_last_error()))
    thread.start()
    thread.join()
    assert other == [b""]


def test_encode_and_decode_say_how_much_room_they_need(cpp: CppLibrary, tiny: CppModel) -> None:
    ids, count = (ctypes.c_int32 * 3)(-7, -7, -7), ctypes.c_size_t()
    end = (ids, ctypes.c_size_t(2), ctypes.byref(count))
    assert cpp.c.gpt_edge_encode(tiny.handle, b"\x01\x02\x03", ctypes.c_size_t(3), 0, *end) == 0
    assert count.value == 3
    assert ids[2] == -7
    assert ids[0] != -7


@pytest.mark.skipif(
    "GPT_EDGE_CPP_FLAGS" in os.environ, reason="a sanitizer keeps what is freed for a while"
)
def test_a_model_that_opens_and_closes_again_and_again_leaves_no_memory(cpp: CppLibrary) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def use() -> None:
        with cpp.open(TINY) as model:
            for _ in range(5):
                model.generate("ab", max_new_tokens=30, top_k=9, seed=1)

    for _ in range(5):
        use()
    before = resident()
    for _ in range(15):
        use()
    assert resident() - before < 4000  # kB
