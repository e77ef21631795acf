from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.data import documents as reader
from gpt_edge.data.documents import Piece
from gpt_edge.errors import TrainingError
from gpt_edge.training.corpus.text_files import TextFiles, cut_into_parts, find_texts

END = "<|endoftext|>"


def documents(texts: TextFiles) -> list[str]:
    found, parts = [], []
    for piece in texts.pieces():
        parts.append(piece.text)
        if piece.is_end:
            found.append("".join(parts))
            parts.clear()
    assert not parts
    return found


@settings(deadline=None, max_examples=100)
@given(
    parts=st.lists(st.text(st.sampled_from("ab é\n\r.<|"), max_size=60), max_size=12),
    piece=st.integers(len(END), 40),  # a piece is never shorter than the separator
    chunk=st.integers(1, 50),
)
def test_streaming_gives_the_documents_of_splitting_the_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], piece: int, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(END.join(parts).encode())
    wanted = [part.strip("\r\n") for part in END.join(parts).split(END) if part.strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PIECE_CHARACTERS", 1 << 18)
        patch.setattr(reader, "CHUNK_BYTES", chunk)
        assert documents(TextFiles((path,), END)) == wanted
        patch.setattr(reader, "PIECE_CHARACTERS", piece)
        found = documents(TextFiles((path,), END))
    # A forced cut through a run of white space may keep line breaks at an end, or drop blank
    # beginnings.
    assert [text.split() for text in found if text.strip()] == [text.split() for text in wanted]


def test_a_long_document_comes_in_pieces_that_begin_with_white_space(tmp_path: Path) -> None:
    text = "once upon a time\n" * 60_000
    (tmp_path / "a.txt").write_text(text)
    pieces = list(TextFiles((tmp_path / "a.txt",)).pieces())
    assert len(pieces) > 2
    assert [piece.is_end for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == text.rstrip("\n")
    assert all(piece.text[0] in " \n" for piece in pieces[1:])


def test_a_line_of_a_hundred_megabytes_keeps_the_pieces_small(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.gz", "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    sizes = [len(piece.text) for piece in TextFiles((tmp_path / "a.gz",)).pieces()]
    assert sum(sizes) == 100 << 20
    assert max(sizes) <= 2 * reader.PIECE_CHARACTERS


def test_json_lines_plain_and_gzip(tmp_path: Path) -> None:
    lines = (
        "\n".join(json.dumps({"body": text, "id": 3}) for text in ("One.\nTwo", "", "  é \ud800"))
        + "\n\n"
    )
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert documents(TextFiles((tmp_path / name,), field="body")) == ["One.\nTwo", "  é \ufffd"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"text": "a', "line 2 is not JSON"),
        (b'{"body": "a"}', "line 2 has no text under 'text'"),
        (b'{"text": 3}', "line 2 has no text under 'text'"),
        (b'["text"]', "line 2 has no text under 'text'"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b'{"text": "\xff"}', "line 2 is not UTF-8"),
        (b'{"text": "' + b"a" * (4 << 20) + b'"}', "line 2 is longer than 4 MiB"),
    ],
)
def test_a_faulty_line_is_reported_with_its_number(
    tmp_path: Path, line: bytes, wanted: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(TrainingError, match=wanted) as caught:
        documents(TextFiles((tmp_path / "a.jsonl",)))
    assert len(caught.value.message) < 500


def test_bytes_that_are_not_utf8_can_be_replaced_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"a\xffb\xc3" + END.encode() + "é\ufffd".encode() + b"\xe2\x82"
    )
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "\xfe\xff"}\n')
    texts = TextFiles((tmp_path / "a.txt", tmp_path / "b.jsonl"), encoding_errors="replace")
    assert documents(texts) == ["a\ufffdb\ufffd", "é\ufffd\ufffd\ufffd", "\ufffd\ufffd"]
    assert sum(piece.n_bad_bytes for piece in texts.pieces()) == 6


@pytest.mark.parametrize("content", [b"\0\0a\0", b"a", "\ufeffa".encode(), b"a\r\nb"])
def test_odd_texts_are_read_as_they_are(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert documents(TextFiles((tmp_path / "a.txt",))) == [content.decode("utf-8-sig")]


def test_held_out_documents_are_every_nth_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(END.join(map(str, range(13))))
    (tmp_path / "b.txt").write_text(END.join(map(str, range(13, 20))))
    texts = TextFiles((tmp_path / "a.txt", tmp_path / "b.txt"), held_out=5)
    valid = TextFiles(texts.paths, held_out=5, is_validation=True)
    assert documents(valid) == ["4", "9", "14", "19"]
    assert sorted(documents(texts) + documents(valid), key=int) == list(map(str, range(20)))


def test_globs_are_sorted_and_name_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "d[1].txt"):
        (tmp_path / name).write_text("x")
    names = [
        path.relative_to(tmp_path).as_posix()
        for path in find_texts(tmp_path, ["d[1].txt", "**/*.txt", "a.txt"])
    ]
    assert names == ["d[1].txt", "a.txt", "b.txt", "deep/er/c.txt"]
    with pytest.raises(TrainingError, match=r"no file matches .*\*\.md"):
        find_texts(tmp_path, ["*.md"])
    # reading it says what is wrong
    assert find_texts(tmp_path, ["gone.txt"]) == (tmp_path / "gone.txt",)


def test_a_file_that_shrinks_while_it_is_read_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words here\n" * 400_000)
    pieces = TextFiles((path,)).pieces()
    first = next(pieces)
    path.write_text("")
    rest = list(pieces)
    assert not first.is_end
    assert rest[-1].is_end


@given(
    text=st.text(st.sampled_from("ab \n"), max_size=200),
    size=st.integers(4, 40),
)
def test_parts_lose_nothing_but_line_breaks_and_keep_to_their_size(text: str, size: int) -> None:
    parts = list(cut_into_parts(iter([Piece(text, True, True, 3)]), size))
    assert "".join("".join(part.text for part in parts).split()) == "".join(text.split())
    assert all(part.is_start and part.is_end and 0 < len(part.text) <= size for part in parts)
    assert sum(part.n_bad_bytes for part in parts) == (3 if parts else 0)


def test_texts_of_enough_documents_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("<|endoftext|>".join(f"story {n}" for n in range(5)))
    assert TextFiles((path,), held_out=5).part_size() == 0
    assert TextFiles((path,), held_out=6).part_size() == 256
    path.write_text("word " * 100_000)
    assert TextFiles((path,), held_out=20).part_size() == 2_500
    path.write_text("\n \n")
    assert TextFiles((path,), held_out=20).part_size() == 0
