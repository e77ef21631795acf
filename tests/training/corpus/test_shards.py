from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.data import documents as reader
from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.tokenizer.spec import Tokenizer, TokenizerSource, TokenizerSpec
from gpt_edge.training.corpus import shards, text_files
from gpt_edge.training.corpus.shards import TokenShards, documents_of, is_tokenized, tokenize
from gpt_edge.training.corpus.text_files import TextFiles

END = "<|endoftext|>"
REPO = Path(__file__).resolve().parents[3]


def bytes_tokenizer(extra: int = 0) -> Tokenizer:
    """257 tokens: the bytes and the end token; `extra` tokens that no text holds make the
    vocabulary larger.
    """
    tokens = [bytes([value]) for value in range(256)] + [b"~%d" % i for i in range(extra)]
    size = len(tokens) + 1
    spec = TokenizerSpec("gpt2", "t.tiktoken", size, size - 1, ((END, size - 1),), "gpt2")
    return build_tokenizer(TokenizerSource(spec, format_ranks(tokens)))


TOKENIZER = bytes_tokenizer()


def stream(found: TokenShards) -> list[int]:
    """All ids: shards overlap by one."""
    parts = [shard.tolist() for shard in found]
    assert all(before[-1] == after[0] for before, after in itertools.pairwise(parts))
    return parts[0] + [id for part in parts[1:] for id in part[1:]]


def wanted(texts: list[str]) -> list[int]:
    ids = [256]
    for text in texts:
        ids += [*text.encode(), 256]
    return ids


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(
        st.text(st.sampled_from("ab é.x"), min_size=1, max_size=40).filter(str.strip),
        min_size=1,
        max_size=9,
    ),
    shard_tokens=st.integers(1, 60),
    piece=st.integers(20, 40),
)
def test_shards_are_the_stream_of_the_documents(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shard_tokens: int, piece: int
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "a.txt").write_text(END.join(texts), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PIECE_CHARACTERS", piece)
        found = tokenize(
            folder, "train", TextFiles((folder / "a.txt",)), TOKENIZER, shard_tokens=shard_tokens
        )
    assert stream(found) == wanted(texts)
    assert [len(shard) for shard in found][:-1] == [shard_tokens + 1] * (len(found) - 1)
    assert found.n_tokens == len(wanted(texts)) - 1
    assert found.n_documents == len(texts)
    assert found.n_bytes == sum(len(text.encode()) for text in texts)
    assert is_tokenized(folder, "train")


def test_a_vocabulary_that_fits_into_two_bytes_takes_two(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    for extra, n_bytes in ((0, 2), ((1 << 16) - 257, 2), ((1 << 16) - 256, 4)):
        found = tokenize(
            tmp_path / str(extra), "t", TextFiles((tmp_path / "a.txt",)), bytes_tokenizer(extra)
        )
        assert found[0].dtype.itemsize == n_bytes
        assert found[0].tolist() == [256 + extra, *b"abc", 256 + extra]


class PowerCut(Exception):
    pass


@pytest.mark.parametrize("is_after_record", [False, True])
@pytest.mark.parametrize("cut_at", range(1, 7))
def test_an_interrupted_tokenization_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int, is_after_record: bool
) -> None:
    monkeypatch.setattr(reader, "PIECE_CHARACTERS", 64)
    texts = [f"{i} once upon a time é {'there was a cat ' * (i % 12)}." for i in range(30)]
    (tmp_path / "a.txt").write_text(END.join(texts[:11]), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts[11:])
    )
    files = TextFiles((tmp_path / "a.txt", tmp_path / "b.jsonl"))
    straight = tokenize(tmp_path / "straight", "t", files, TOKENIZER, shard_tokens=500)
    write, n_written = shards.atomic_write, 0

    def cut(path: Path, data: bytes) -> None:
        nonlocal n_written
        n_written += path.suffix == (".json" if is_after_record else ".bin")
        write(path, data)
        if n_written == cut_at:
            raise PowerCut

    monkeypatch.setattr(shards, "atomic_write", cut)
    with pytest.raises(PowerCut):
        tokenize(tmp_path / "broken", "t", files, TOKENIZER, shard_tokens=500)
    monkeypatch.setattr(shards, "atomic_write", write)
    assert not is_tokenized(tmp_path / "broken", "t")
    found = tokenize(tmp_path / "broken", "t", files, TOKENIZER, shard_tokens=500)
    assert stream(found) == stream(straight) == wanted(texts)
    assert (found.n_documents, found.n_bytes) == (straight.n_documents, straight.n_bytes)
    assert (tmp_path / "broken/t.json").read_bytes() == (tmp_path / "straight/t.json").read_bytes()


def test_a_finished_text_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    files = TextFiles((tmp_path / "a.txt",))
    tokenize(tmp_path, "t", files, TOKENIZER)
    (tmp_path / "a.txt").unlink()
    assert stream(tokenize(tmp_path, "t", files, TOKENIZER)) == wanted(["abc"])


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"version": 1, "tokens": 3, "x": 1}', '{"version": 99}', "[" * 10_000],
)
def test_a_corrupt_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(TrainingError, match=r"t.json is not the record of a tokenized text"):
        is_tokenized(tmp_path, "t")


def test_a_shard_that_was_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc" * 50)
    found = tokenize(tmp_path, "t", TextFiles((tmp_path / "a.txt",)), TOKENIZER)
    (tmp_path / "t-00000.bin").write_bytes(b"\0\0" * 7)
    with pytest.raises(TrainingError, match=r"t-00000.bin holds 7 tokens, 152 were written"):
        found[0]
    (tmp_path / "t-00000.bin").unlink()
    with pytest.raises(TrainingError, match=r"cannot read the tokens .*t-00000.bin"):
        found[0]


def test_documents_of_a_shard_keep_every_target(tmp_path: Path) -> None:
    texts = [f"story {i} " * (1 + i % 4) for i in range(12)]
    (tmp_path / "a.txt").write_text(END.join(texts))
    found = tokenize(tmp_path, "t", TextFiles((tmp_path / "a.txt",)), TOKENIZER, shard_tokens=37)
    targets = [
        id
        for shard in found
        for document in documents_of(shard, 256)
        for id in document[1:].tolist()
    ]
    assert targets == wanted(texts)[1:]


MEASURED = """
import resource, sys
from collections.abc import Iterable
from pathlib import Path
from gpt_edge.tokenizer.load import load_tokenizer
from gpt_edge.tokenizer.spec import TokenizerSpec
from gpt_edge.training.corpus.shards import SHARD_TOKENS, tokenize
from gpt_edge.training.corpus.text_files import TextFiles

folder = Path(sys.argv[1])
spec = TokenizerSpec("gpt2", "vocab.tiktoken", 2048, 2047, (("<|endoftext|>", 2047),), "gpt2")
tokenizer = load_tokenizer(folder, spec)
tokenizer.encode("warm up")
used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
room = (64 << 20) + 2 * SHARD_TOKENS
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
found = tokenize(folder / "tokens", "t", TextFiles((Path(sys.argv[2]),)), tokenizer)
print(found.n_tokens, found.n_bytes, len(found))
assert "torch" not in sys.modules
"""


def tokenized(tmp_path: Path, name: str, parts: Iterable[bytes]) -> tuple[int, int]:
    """Tokens and bytes of a text, tokenized with 64 MB and a shard of memory beyond what the
    libraries take.
    """
    big = tmp_path / name
    with big.open("wb") as file:
        file.writelines(parts)
    vocabulary = REPO / "models" / DEFAULT_BUNDLE / "tokenizer.tiktoken"
    (tmp_path / "vocab.tiktoken").write_bytes(vocabulary.read_bytes())
    command = [sys.executable, "-c", MEASURED, str(tmp_path), str(big)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    n_tokens, n_bytes, n_shards = map(int, done.stdout.split())
    assert n_shards == -(-n_tokens // shards.SHARD_TOKENS)
    assert (
        sum(np.fromfile(path, "<u2").size - 1 for path in (tmp_path / "tokens").glob("*.bin"))
        == n_tokens
    )
    return n_tokens, n_bytes


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("kind", ["stories", "one line"])
def test_two_hundred_megabytes_are_tokenized_in_64_mb_and_a_shard(
    tmp_path: Path, shared_data: Path, kind: str
) -> None:
    """The address space has no room for the text, nor for all of its ids."""
    n_wanted = 200 << 20
    text = (shared_data / "tinyshakespeare" / "input.txt").read_bytes()
    part = text + END.encode() if kind == "stories" else text.replace(b"\n", b"") + b" "
    n_tokens, n_bytes = tokenized(tmp_path, "big.txt", [part] * (n_wanted // len(part) + 1))
    assert n_bytes >= n_wanted - 2 * len(part)
    assert n_tokens > shards.SHARD_TOKENS


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("kind", ["emoji", "emoji in JSON", "escapes in JSON"])
def test_characters_that_are_many_bytes_and_tokens_need_no_more_memory(
    tmp_path: Path, kind: str
) -> None:
    room = text_files.MAX_LINE_BYTES - 100
    line = {
        "emoji in JSON": "a" * room + "\N{GRINNING FACE}",
        "escapes in JSON": "\\u00e9" * (room // 6) + "\N{GRINNING FACE}",
    }.get(kind, "")
    if kind == "emoji":
        n_tokens, n_bytes = tokenized(
            tmp_path, "big.txt", ["\N{GRINNING FACE}".encode() * 6_000_000]
        )
        assert n_bytes == 24_000_000
    else:
        n_tokens, n_bytes = tokenized(
            tmp_path, "big.jsonl", [b'{"text": "%s"}\n' % line.encode()] * 3
        )
        assert n_bytes > room // 2
    assert n_tokens > 100_000
