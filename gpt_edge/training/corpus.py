"""From text files to rows of token ids: documents, packing, batches. Holds the whole corpus in memory.

A document is encoded as `end, its tokens, end`: the end token starts it and is the last thing to predict. Rows are packed
with whole documents (best fit, decreasing: Johnson 1973), so that a story is seen from its beginning; an attention mask
between the documents of a row is left out, the end token tells the model where one starts.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer.spec import Tokenizer

IGNORED = -1  # a target that is padding
MAX_TEXT_BYTES = 1 << 30
IntArray = NDArray[np.int64]


def read_documents(path: Path, separator: str) -> list[str]:
    """Return the documents of a UTF-8 text file, plain or gzip, without the line breaks around them; blank ones are left out.

    Raises TrainingError when the file cannot be read, is no regular file, is damaged, longer than MAX_TEXT_BYTES, not
    UTF-8, or holds no document.
    """
    try:
        text = _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is not UTF-8: {error}", hint="convert it, for example with iconv -t UTF-8"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TrainingError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise TrainingError(f"cannot read the text {path}: {error.strerror or error}") from error
    documents = [document.strip("\r\n") for document in text.split(separator)]
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise TrainingError(f"{path} holds no text, wanted documents separated by {separator!r}")
    return documents


def _read(path: Path) -> bytes:
    """The content of a regular file, decompressed if it is gzip. Raises TrainingError, OSError, and what gzip raises."""
    if path.exists() and not path.is_file():  # a folder, or a pipe or device that may never end
        raise TrainingError(f"cannot read the text {path}: it is not a regular file")
    with path.open("rb") as file:
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
        content = (gzip.GzipFile(fileobj=file) if is_gzip else file).read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise TrainingError(f"{path} holds more than {MAX_TEXT_BYTES >> 20} MiB of text: it must fit into memory")
    return content


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> list[IntArray]:
    """Each document as int64 ids, `end, tokens, end`."""
    end = [tokenizer.end_token]
    return [np.array(end + tokenizer.encode(document) + end, dtype=np.int64) for document in documents]


def pack_rows(documents: Sequence[IntArray], n_tokens: int, seed: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return inputs and targets, int64 [rows, n_tokens] each, in a random order that `seed` decides.

    Every token but a document's first is a target once; a document longer than a row goes on in another one. Room that no
    document fits into is padding: targets IGNORED.
    """
    rng = np.random.default_rng(list(seed))
    order = rng.permutation(len(documents))
    starts = [(i, start) for i in order for start in range(0, len(documents[i]) - 1, n_tokens)]
    pieces = [documents[i][start : start + n_tokens + 1] for i, start in starts]
    pieces.sort(key=len, reverse=True)  # stable: the order within a length stays random
    rows: list[list[IntArray]] = []
    rows_by_room: list[list[list[IntArray]]] = [[] for _ in range(n_tokens + 1)]
    for piece in pieces:
        size = len(piece) - 1
        room = next((room for room in range(size, n_tokens + 1) if rows_by_room[room]), None)
        row: list[IntArray] = rows_by_room[room].pop() if room is not None else []
        if room is None:
            rows.append(row)
            room = n_tokens
        row.append(piece)
        rows_by_room[room - size].append(row)
    inputs = np.zeros((len(rows), n_tokens), dtype=np.int64)
    targets = np.full((len(rows), n_tokens), IGNORED, dtype=np.int64)
    for i, row in enumerate(rows[j] for j in rng.permutation(len(rows))):
        at = 0
        for j in rng.permutation(len(row)):
            size = len(row[j]) - 1
            inputs[i, at : at + size], targets[i, at : at + size] = row[j][:-1], row[j][1:]
            at += size
    return inputs, targets


class Batches:
    """Batches without end, one random packing of all documents after another. `epoch` and `cursor` tell where it stands."""

    def __init__(self, documents: Sequence[IntArray], batch_tokens: int, seed: int) -> None:
        self._documents, self._batch_tokens, self._seed = documents, batch_tokens, seed
        self.epoch, self.cursor, self.row_tokens = 0, 0, 0  # cursor: rows of this epoch that were given out
        self._rows: tuple[IntArray, IntArray] | None = None

    def next(self, row_tokens: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, int64 [batch_tokens // row_tokens, row_tokens]. Another row length starts an epoch."""
        n_rows = self._batch_tokens // row_tokens
        if row_tokens != self.row_tokens or self._rows is None or self.cursor + n_rows > len(self._rows[0]):
            self.seek(self.epoch + 1, 0, row_tokens)
        assert self._rows is not None
        if n_rows > len(self._rows[0]):
            raise TrainingError(
                f"the training text fills {len(self._rows[0])} rows of {row_tokens} tokens, a batch wants {n_rows}",
                hint="give more text, or lower [training] batch_tokens",
            )
        part = slice(self.cursor, self.cursor + n_rows)
        self.cursor += n_rows
        return torch.from_numpy(self._rows[0][part]), torch.from_numpy(self._rows[1][part])

    def seek(self, epoch: int, cursor: int, row_tokens: int) -> None:
        """Go to a place that another instance with the same documents and seed told; row_tokens 0 is before the first."""
        self.epoch, self.cursor, self.row_tokens = epoch, cursor, row_tokens
        self._rows = pack_rows(self._documents, row_tokens, (self._seed, epoch)) if row_tokens else None
