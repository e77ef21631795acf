"""Token shards: a text as uint16 or uint32 ids on disk, tokenized in one pass with little memory.
An interrupted pass can be resumed.

The ids of a text are one stream, `end, document, end, document, …, end`, where `end` is the end
token. Shard `k` is NAME-0000k.bin, the stream's ids from k * SHARD_TOKENS on, one more than that
many: the last id of a shard is the first of the next, so that every id but the stream's first is
predicted from the one before it in exactly one shard. Files are little-endian without a header.
NAME.json records what is done, and where in the text the next shard begins. Imports no torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_edge.arrays import IntArray
from gpt_edge.errors import TrainingError
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error
from gpt_edge.tokenizer.spec import Tokenizer
from gpt_edge.training.corpus.text_files import TextFiles

SHARD_TOKENS = 1 << 24  # 32 MiB of uint16
VERSION = 3
# Their pieces of text were cut elsewhere, so only their complete records can be used.
OLDER_VERSIONS = (1, 2)
TokenArray = NDArray[np.unsignedinteger[Any]] | IntArray  # one stream of ids, [n]


@dataclass(slots=True)
class TokenizingState:
    """How much of a text is tokenized. The next shard begins at `n_pieces` and `skip`."""

    tokens: list[int] = field(default_factory=list)  # ids in each shard, with the shared one
    n_pieces: int = 0  # complete pieces of the text before the next shard
    skip: int = 0  # ids of the piece after them that are in a shard already
    n_documents: int = 0  # that end before that piece
    n_bytes: int = 0  # of the pieces before it
    n_bad_bytes: int = 0  # bytes of the text that were not UTF-8
    is_complete: bool = False


class TokenShards(Sequence[TokenArray]):
    """A tokenized text: a sequence of its shards, each a read-only view of a file, and its size."""

    def __init__(self, folder: Path, name: str, progress: TokenizingState, dtype: str) -> None:
        self._folder = folder
        self._name = name
        self._progress = progress
        self._dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._progress.tokens)

    def __getitem__(self, index: Any) -> Any:
        """Map shard `index`. Raises TrainingError when its file is missing or has another size."""
        n_tokens = self._progress.tokens[index]
        path = self._folder / _shard_name(self._name, range(len(self))[index])
        try:
            shard = np.memmap(path, self._dtype, "r")
        except (OSError, ValueError) as error:
            raise TrainingError(f"cannot read the tokens {path}: {error}") from error
        if len(shard) != n_tokens:
            raise TrainingError(
                f"{path} holds {len(shard)} tokens, {n_tokens} were written",
                hint="remove its folder, and tokenize again",
            )
        return shard

    @property
    def n_tokens(self) -> int:
        """Targets: all ids but the first."""
        return sum(self._progress.tokens) - len(self)

    @property
    def n_documents(self) -> int:
        """Documents of the text."""
        return self._progress.n_documents

    @property
    def n_bytes(self) -> int:
        """Bytes of the documents in UTF-8."""
        return self._progress.n_bytes

    @property
    def n_bad_bytes(self) -> int:
        """Bytes of the text that were not UTF-8 and became U+FFFD."""
        return self._progress.n_bad_bytes


def tokenize(
    folder: Path,
    name: str,
    texts: TextFiles,
    tokenizer: Tokenizer,
    progress: Callable[[int], None] = lambda n_bytes: None,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenShards:
    """Return the shards of `texts` in `folder`, writing those that are missing. progress: called
    with the bytes of text read.

    A call with the same arguments resumes one that was killed at any moment; a finished one reads
    no text. Memory: the ids of a piece, below 64 MB, and one shard. Raises TrainingError as
    TextFiles.pieces does, and for texts without a document; OutputError when the folder cannot be
    written.
    """
    assert tokenizer.end_token is not None, "a tokenizer to train with has an end token"
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    done = _read_state(folder / f"{name}.json")
    if done.is_complete:
        return TokenShards(folder, name, done, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error
    writer = _Writer(folder, name, done, dtype, shard_tokens, tokenizer.end_token)
    n_before = done.n_pieces
    skip = done.skip
    for number, piece in enumerate(texts.pieces(progress)):
        if number < n_before:
            continue
        end = [tokenizer.end_token] if piece.is_end else []
        writer.add(
            np.array(tokenizer.encode_part(piece.text) + end, dtype),
            skip if number == n_before else 0,
        )
        done.n_pieces = number + 1
        done.n_documents += piece.is_end
        done.n_bytes += len(piece.text.encode())
        done.n_bad_bytes += piece.n_bad_bytes
    if not done.n_documents:
        names = ", ".join(map(str, texts.paths[:3]))
        if texts.is_validation:
            raise TrainingError(
                f"{names} holds no text to validate with: fewer than {texts.held_out} documents",
                hint="name a text under [data] valid, or the separator of the documents, or lower "
                "held_out",
            )
        raise TrainingError(
            f"{names} holds no text, expected documents separated by {texts.separator!r}"
        )
    writer.finish()
    return TokenShards(folder, name, done, dtype)


def is_tokenized(folder: Path, name: str) -> bool:
    """Whether `tokenize` has finished under this name."""
    return _read_state(folder / f"{name}.json").is_complete


class _Writer:
    """Writes the stream of ids into shards. `done` is what the files hold: a kill loses only the
    open shard.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        done: TokenizingState,
        dtype: str,
        shard_tokens: int,
        end_token: int,
    ) -> None:
        self._folder = folder
        self._name = name
        self.done = done
        self._buffer: TokenArray = np.empty(shard_tokens + 1, dtype)
        self._buffer[0] = (
            TokenShards(folder, name, done, dtype)[-1][-1] if done.tokens else end_token
        )
        self._n_held = 1

    def add(self, ids: TokenArray, skip: int) -> None:
        """Append the ids of the piece after `done.n_pieces`, without the first `skip`."""
        while skip < len(ids):
            n_new = min(len(ids) - skip, len(self._buffer) - self._n_held)
            self._buffer[self._n_held : self._n_held + n_new] = ids[skip : skip + n_new]
            self._n_held += n_new
            skip += n_new
            if self._n_held == len(self._buffer):
                self.done.skip = skip
                self._publish()
        self.done.skip = 0

    def finish(self) -> None:
        """Write the last shard, and record that all are complete."""
        self.done.is_complete = True
        self._publish()

    def _publish(self) -> None:
        if self._n_held > 1:
            ids = self._buffer[: self._n_held].view(np.uint8).data
            path = self._folder / _shard_name(self._name, len(self.done.tokens))
            atomic_write(path, ids)
            self.done.tokens.append(self._n_held)
            self._buffer[0] = self._buffer[self._n_held - 1]
            self._n_held = 1
        record = {"version": VERSION, **asdict(self.done)}
        atomic_write(self._folder / f"{self._name}.json", json.dumps(record).encode())


def _read_state(path: Path) -> TokenizingState:
    """The state in a file; that of a new text if there is no file. Raises TrainingError for a
    corrupt one.
    """
    try:
        values = json.loads(path.read_bytes())
        version, progress = values.pop("version"), TokenizingState(**values)
        if version != VERSION and not (version in OLDER_VERSIONS and progress.is_complete):
            raise ValueError("another version")
        return progress
    except FileNotFoundError:
        return TokenizingState()
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f"{path} is not the record of a tokenized text: {error}",
            hint="remove its folder, and run it again",
        ) from error


def _shard_name(name: str, number: int) -> str:
    return f"{name}-{number:05}.bin"


def documents_of(shard: TokenArray, end_token: int) -> Iterator[IntArray]:
    """The documents of a shard, each int64 `end, tokens, end`. A document that continues in another
    shard lacks that end token.
    """
    edges = document_edges(shard, end_token)
    for start, stop in itertools.pairwise(edges.tolist()):
        yield np.asarray(shard[start : stop + 1], dtype=np.int64)


def document_edges(shard: TokenArray, end_token: int) -> IntArray:
    """The positions in a shard where documents begin and end, int64: document i is the ids from
    edge i up to and including edge i + 1.
    """
    edges = np.flatnonzero(shard == end_token)
    return np.unique(np.concatenate([[0], edges, [len(shard) - 1]]))
