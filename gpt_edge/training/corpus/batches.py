"""From shards of token ids to batches: documents, packing, rows. Reads a shard in place, row by
row.

A document is `end, its tokens, end`: the end token starts it and is the last target. Rows are
packed with whole documents (best fit, decreasing: Johnson 1973), so that the model sees a story
from its beginning. There is no attention mask between the documents of a row; the end token marks
where one starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt_edge.arrays import IntArray
from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer.spec import Tokenizer
from gpt_edge.training.corpus.shards import TokenArray, document_edges
from gpt_edge.training.corpus.text_files import TextFiles

__all__ = [
    "IGNORED",
    "Batch",
    "Batches",
    "Packing",
    "encode_documents",
    "join_documents",
    "pack",
    "read_documents",
]

IGNORED = -1  # a target that is padding
MAX_TEXT_BYTES = 1 << 30  # of a text that is read into memory
# a document of more rows is cut at a random offset: every epoch would repeat the same parts else
LONG_ROWS = 8


def read_documents(path: Path, separator: str) -> list[str]:
    """Return the documents of one file, as `TextFiles` reads them, in memory.

    Raises TrainingError as it does, for a file without a document, and for more than
    MAX_TEXT_BYTES.
    """
    n_read = 0

    def count(n_bytes: int) -> None:
        nonlocal n_read
        n_read += n_bytes
        if n_read > MAX_TEXT_BYTES:
            raise TrainingError(
                f"{path} holds more than {MAX_TEXT_BYTES >> 20} MiB of text: it must fit into "
                "memory"
            )

    documents, parts = [], []
    for piece in TextFiles((path,), separator).pieces(count):
        parts.append(piece.text)
        if piece.is_end:
            documents.append("".join(parts))
            parts.clear()
    if not documents:
        raise TrainingError(f"{path} holds no text, expected documents separated by {separator!r}")
    return documents


def encode_documents(documents: Sequence[str], tokenizer: Tokenizer) -> list[IntArray]:
    """Each document as int64 ids, `end, tokens, end`; without the end tokens if the tokenizer has
    none.
    """
    end = [] if tokenizer.end_token is None else [tokenizer.end_token]
    return [
        np.array(end + tokenizer.encode_part(document) + end, dtype=np.int64)
        for document in documents
    ]


def join_documents(documents: Iterable[IntArray]) -> IntArray:
    """One shard in memory: the stream of `end, tokens, end` documents, in which neighbours share an
    end token.
    """
    parts = list(documents)
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


@dataclass(frozen=True, slots=True)
class Packing:
    """Which parts of a shard form which row. Part p begins at id starts[p] and has sizes[p]
    targets.
    """

    shard: TokenArray
    n_tokens: int  # length of a row
    starts: list[int]
    sizes: list[int]
    first_part: list[int]  # of each row; row r has parts first_part[r] up to first_part[r + 1]

    def __len__(self) -> int:
        return len(self.first_part) - 1

    def rows(self, indices: range) -> tuple[IntArray, IntArray]:
        """Inputs and targets of some rows, int64 [rows, n_tokens] each. The rest of a row is
        padding, with targets IGNORED.
        """
        inputs = np.zeros((len(indices), self.n_tokens), dtype=np.int64)
        targets = np.full((len(indices), self.n_tokens), IGNORED, dtype=np.int64)
        for i, row in enumerate(indices):
            offset = 0
            for part in range(self.first_part[row], self.first_part[row + 1]):
                start, size = self.starts[part], self.sizes[part]
                inputs[i, offset : offset + size] = self.shard[start : start + size]
                targets[i, offset : offset + size] = self.shard[start + 1 : start + size + 1]
                offset += size
        return inputs, targets

    def n_targets(self, indices: range) -> int:
        """The number of targets in some rows."""
        return sum(self.sizes[self.first_part[indices.start] : self.first_part[indices.stop]])


def pack(shard: TokenArray, end_token: int, n_tokens: int, seed: Sequence[int]) -> Packing:
    """Pack the documents of a shard into rows of `n_tokens`, in a random order given by `seed`.

    Every token but the shard's first is a target once; a document longer than a row continues in
    another one.
    """
    rng = np.random.default_rng(list(seed))
    edges = document_edges(shard, end_token)
    starts, sizes = _parts(
        edges, rng.permutation(len(edges) - 1), n_tokens, np.random.default_rng([*seed, 0, 1])
    )
    rows = _best_fit(sizes, n_tokens)
    order, first_part = [], [0]
    for j in rng.permutation(len(rows)):
        order += [rows[j][i] for i in rng.permutation(len(rows[j]))]
        first_part.append(len(order))
    return Packing(
        shard, n_tokens, [starts[i] for i in order], [sizes[i] for i in order], first_part
    )


def _parts(
    edges: IntArray, order: IntArray, n_tokens: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Cut the documents, in this order, into parts of at most `n_tokens` targets. Returns starts
    and sizes of the parts, longest first, parts of one size in that order.
    """
    starts: list[int] = []
    sizes: list[int] = []
    for start, stop in zip(edges[order].tolist(), edges[order + 1].tolist(), strict=True):
        cuts = [start, *range(start + n_tokens, stop, n_tokens), stop]
        if stop - start > LONG_ROWS * n_tokens:
            cuts = [start, *range(start + int(rng.integers(1, n_tokens + 1)), stop, n_tokens), stop]
        starts += cuts[:-1]
        sizes += [after - before for before, after in itertools.pairwise(cuts)]
    by_size = np.argsort(-np.array(sizes), kind="stable").tolist()
    return [starts[i] for i in by_size], [sizes[i] for i in by_size]


def _best_fit(sizes: Sequence[int], n_tokens: int) -> list[list[int]]:
    """Put each part, in turn, into the fullest row that has room for it, or into a new one. Returns
    the part numbers of each row.
    """
    rows: list[list[int]] = []
    rows_by_room: list[list[list[int]]] = [[] for _ in range(n_tokens + 1)]
    rooms = 0  # bit r is set when a row has room for r
    for part, size in enumerate(sizes):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
        else:
            row, room = [], n_tokens
            rows.append(row)
        row.append(part)
        rows_by_room[room - size].append(row)
        rooms |= 1 << (room - size)
    return rows


class Batch(NamedTuple):
    """One process's rows of a batch."""

    inputs: Tensor  # int64 [rows, row_tokens]
    targets: Tensor  # the same; IGNORED is padding
    n_targets: int  # of the whole batch, over all processes


class Batches:
    """Endless batches: one random packing of all documents after another, shard by shard.

    `epoch`, `shard` and `cursor` are its position. Process `rank` of `n_ranks` gets an equal part
    of each batch's rows.
    """

    def __init__(
        self,
        shards: Sequence[TokenArray],
        end_token: int,
        batch_tokens: int,
        seed: int,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        self._shards = shards
        self._end_token = end_token
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._rank = rank
        self._n_ranks = n_ranks
        self.epoch = 0
        self.shard = 0
        self.cursor = 0  # rows of this shard that were used
        self.row_tokens = 0
        self._packing: Packing | None = None

    def next(self, row_tokens: int) -> Batch:
        """The next batch_tokens // row_tokens rows. Another row length starts an epoch.

        Rows at a shard's end that do not fill a batch are skipped, other rows in each epoch. Raises
        TrainingError when no shard fills a batch.
        """
        n_rows = self._batch_tokens // row_tokens
        if row_tokens != self.row_tokens or self._packing is None:
            self.seek(self.epoch + 1, 0, row_tokens)
        # a shard may be too short: the last one of a text often is
        for _ in range(2 * len(self._shards) + 1):
            if self.cursor + n_rows <= len(self._rows()):
                break
            is_last = self.shard + 1 == len(self._shards)
            self.seek(self.epoch + is_last, 0, row_tokens, 0 if is_last else self.shard + 1)
        else:
            raise TrainingError(
                f"the training text fills {len(self._rows())} rows of {row_tokens} tokens, a batch "
                f"needs {n_rows}",
                hint="give more text, or lower [training] batch_tokens",
            )
        indices = range(self.cursor, self.cursor + n_rows)
        self.cursor += n_rows
        n_own = n_rows // self._n_ranks
        own = indices[self._rank * n_own : (self._rank + 1) * n_own]
        inputs, targets = self._rows().rows(own)
        return Batch(
            torch.from_numpy(inputs), torch.from_numpy(targets), self._rows().n_targets(indices)
        )

    def seek(self, epoch: int, cursor: int, row_tokens: int, shard: int = 0) -> None:
        """Move to a position of another instance with the same shards and seed; row_tokens 0 is
        before the first batch.

        shard: how many shards of this epoch are done.
        """
        self.epoch = epoch
        self.shard = shard
        self.cursor = cursor
        self.row_tokens = row_tokens
        self._packing = None
        if row_tokens:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))
            index = int(order[shard])
            self._packing = pack(
                self._shards[index], self._end_token, row_tokens, (self._seed, epoch, index)
            )

    def _rows(self) -> Packing:
        assert self._packing is not None
        return self._packing
