"""Corpora of any size and kind, read in pieces: the documents are those of training, the ids those
of the whole.
"""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.data import documents as text_module
from gpt_edge.data.documents import PIECE_CHARACTERS, Piece, TextFile, TextOptions, cut, split
from gpt_edge.errors import EvaluationError
from tests.support.tiny_model import bundle_path, open_generator

SEPARATOR = "<|end|>"


def documents(pieces: Iterator[Piece]) -> list[str]:
    """Joined again; a piece that starts must follow one that ends."""
    found: list[str] = []
    open_document = False
    for piece in pieces:
        assert piece.is_start != open_document
        found = [*found, piece.text] if piece.is_start else [*found[:-1], found[-1] + piece.text]
        open_document = not piece.is_end
    assert not open_document
    return found


def in_the_obvious_way(text: str, separator: str) -> list[str]:
    parts = (part.strip("\r\n") for part in text.split(separator))
    return [part for part in parts if part.strip()]


@given(
    words=st.lists(
        st.sampled_from([SEPARATOR, "a", "word", " ", "\n", "\r\n", "<|", "end|>", "ü"]),
        max_size=60,
    ),
    size=st.integers(1, 9),
)
def test_documents_are_those_of_a_split_whatever_the_chunks(words: list[str], size: int) -> None:
    text = "".join(words)
    chunks = (text[at : at + size] for at in range(0, len(text), size))
    assert documents(split(chunks, SEPARATOR)) == in_the_obvious_way(text, SEPARATOR)


@given(
    words=st.lists(
        st.sampled_from(["a", "Word", "don't", " ", "  ", "\n", "\t", ".", "12", "é", "漢", "'s"]),
        max_size=80,
    ),
    piece=st.integers(1, 20),
)
def test_the_ids_of_pieces_cut_between_words_are_those_of_the_whole(
    words: list[str], piece: int
) -> None:
    text, tokenizer = "".join(words), open_generator().tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "PIECE_CHARACTERS", piece)
        pieces = [part.text for part in cut(text)]
    assert "".join(pieces) == text
    neighbours = [
        (before[-1], after[0], after[1:2]) for before, after in itertools.pairwise(pieces)
    ]
    is_safe = [
        cut[1] == " " and not any(character.isspace() for character in cut[::2])
        for cut in neighbours
    ]
    if all(is_safe):  # the others were cut inside a word
        assert [id for part in pieces for id in tokenizer.encode(part)] == tokenizer.encode(text)


def test_long_documents_are_cut_between_words_and_have_the_ids_of_the_whole() -> None:
    text = "A line of some words, and 3,000 others.\n\n  Indented  here. " * 4000
    pieces = [piece.text for piece in split(iter([text[:100_000], text[100_000:]]), SEPARATOR)]
    assert len(pieces) > 2
    assert max(map(len, pieces)) <= PIECE_CHARACTERS
    tokenizer = open_generator().tokenizer
    assert [id for piece in pieces for id in tokenizer.encode(piece)] == tokenizer.encode(
        text.strip("\r\n")
    )


def test_a_run_without_a_space_is_cut_where_it_is() -> None:
    pieces = list(cut("x" * (PIECE_CHARACTERS + 5)))
    assert [len(piece.text) for piece in pieces] == [PIECE_CHARACTERS, 5]


def test_a_list_of_words_without_a_space_is_cut_at_line_breaks() -> None:
    text = "word\n" * (PIECE_CHARACTERS // 2)
    pieces = [piece.text for piece in cut(text)]
    assert "".join(pieces) == text
    assert len(pieces) > 2
    assert all(piece.startswith("\nword") for piece in pieces[1:])
    tokenizer = open_generator().tokenizer
    assert [id for piece in pieces for id in tokenizer.encode(piece)] == tokenizer.encode(text)


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    for name, content in (("a.txt", "a b"), ("a.jsonl", '{"text": "a b"}')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert documents(TextFile(tmp_path / name).pieces()) == ["a b"]


def test_texts_of_json_lines_keep_their_line_breaks_unless_they_are_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\na\\n"}')
    assert documents(TextFile(path).pieces()) == ["\na\n"]
    assert documents(TextFile(path, TextOptions(cleans_json=True)).pieces()) == ["a"]


@pytest.mark.parametrize("is_gzip", [False, True])
def test_text_and_json_lines_plain_or_gzip_hold_the_same_documents(
    is_gzip: bool, tmp_path: Path
) -> None:
    wanted = ["One story.\nTwo lines.", "Another é one."]
    contents = {
        "a.txt": f"{wanted[0]}\n<|endoftext|>\n\n{wanted[1]}\n<|endoftext|>\n",
        "a.jsonl": "\n".join(
            ["", *(json.dumps({"text": text, "id": 1}) for text in wanted), '{"text": " "}']
        ),
    }
    for name, content in contents.items():
        path = tmp_path / (name + ".gz" * is_gzip)
        data = content.encode()
        path.write_bytes(gzip.compress(data, mtime=0) if is_gzip else data)
        file = TextFile(path)
        assert documents(file.pieces()) == wanted
        assert file.is_json == (name == "a.jsonl")


def test_the_format_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    path.write_text('{"text": "a b"}\n')
    assert documents(TextFile(path, TextOptions(format="jsonl")).pieces()) == ["a b"]
    assert documents(TextFile(path).pieces()) == ['{"text": "a b"}']


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\nb\xe9d", "is not UTF-8: byte 6 is 0xe9"),
        ("a.txt", b"cut \xe2\x82", "is not UTF-8: byte 4 is 0xe2"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n<|endoftext|>\r\n", "holds no text"),
        ("a.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], "corrupt gzip"),
        (
            "a.jsonl",
            b'{"text": "a"}\n\n{"words": "b", "id": 2}\n',
            r"a.jsonl, line 3 has no text under 'text': the object has 'words', 'id'",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": 3}',
            "line 2 has no text under 'text': expected a string, got int",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n["text"]',
            "line 2 has no text under 'text': expected an object, got list",
        ),
        ("a.jsonl", b"plain text", "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "\xe9"}', "line 1 is not UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1 holds half a surrogate"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b'{"text": " "}', "holds no text"),
    ],
)
def test_a_fault_is_reported_with_file_and_position(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=message) as caught:
        list(TextFile(path).pieces())
    assert name in caught.value.message


def test_a_wrong_byte_far_into_the_file_is_reported_by_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode() * 1_500_000 + b"\xff")
    with pytest.raises(EvaluationError, match="byte 3000000 is 0xff"):
        list(TextFile(path).pieces())


def test_a_path_that_is_not_a_file_is_refused_before_reading(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such file"):
        TextFile(tmp_path / "missing.txt")
    with pytest.raises(EvaluationError, match="not a regular file"):
        TextFile(tmp_path)
    with pytest.raises(ValueError, match="separator"):
        TextOptions(separator="")


MEASURE = """
import sys
from pathlib import Path
from gpt_edge.bench.process import peak_bytes
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.evaluate.corpus import WindowedCorpus
from gpt_edge.data.documents import TextFile
tokenizer = Bundle.open(sys.argv[2]).load_tokenizer()
corpus = WindowedCorpus([TextFile(Path(sys.argv[1]))], tokenizer, None)
n_targets = sum(len(ids) - 1 - n_counted for ids, n_counted in corpus.windows(512, 256))
print(peak_bytes() or 0, n_targets, corpus.n_bytes)
"""


def test_the_memory_does_not_grow_with_the_corpus_even_if_it_is_one_document(
    tmp_path: Path,
) -> None:
    peaks = []
    for n_megabytes in (2, 14):
        path = tmp_path / f"{n_megabytes}.txt"
        line = "Once upon a time there was a little dog who liked to run. "
        path.write_text(line * (n_megabytes * 1_000_000 // len(line)))
        command = [sys.executable, "-c", MEASURE, str(path), str(bundle_path())]
        peak, n_targets, n_bytes = map(
            int, subprocess.run(command, capture_output=True, check=True).stdout.split()
        )
        assert n_bytes == path.stat().st_size
        assert n_targets > n_bytes / 5
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 8_000_000  # 12 MB more of text, 3.7 million ids more
