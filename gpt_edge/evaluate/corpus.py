"""A corpus as windows of ids: what is read, in which order, and which targets count.

Each document is read on its own, from an empty context: `end token, tokens, end token`. Each of its
tokens counts, and the end token after it. With a tokenizer that puts tokens of its own before every
text, these begin the document. With one that has neither, the first token is context, and neither
it nor its bytes count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.data.documents import Piece, TextFile, TextFormat
from gpt_edge.errors import EvaluationError
from gpt_edge.evaluate.windows import Window, WindowCutter, check_window
from gpt_edge.tokenizer.spec import END_OF_TEXT, Tokenizer


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How a text is read. Raises ValueError for a limit below 1."""

    # ids that a model reads at once; None: the context, of two models the shorter one
    window: int | None = None
    stride: int | None = None  # targets that a window moves by; None: half the window
    separator: str = END_OF_TEXT  # of documents in plain text
    format: TextFormat = "auto"
    limit: int | None = None  # documents, or passages; None: all
    special: bool = False  # special tokens in a text become their ids, else they are plain text

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def fit(self, context: int) -> tuple[int, int]:
        """Window and stride for models of that context. Raises ValueError where they do not fit."""
        window = context if self.window is None else self.window
        if window > context:
            raise ValueError(f"window must be at most the context of {context}, got {window}")
        stride = max(1, window // 2) if self.stride is None else self.stride
        check_window(window, stride)
        return window, stride


class WindowedCorpus:
    """The windows of some files, and how much text was cut into windows so far."""

    def __init__(
        self,
        files: Sequence[TextFile],
        tokenizer: Tokenizer,
        limit: int | None,
        special: bool = False,
    ) -> None:
        """special: whether special tokens in a text become their ids."""
        self.first_spelled: str | None = None  # a special token that was read as plain text
        self._special = special
        self.n_documents = self.n_words = self.n_bytes = 0
        self._files = files
        self._tokenizer = tokenizer
        self._limit = limit
        self._n_read = 0  # files that are read to the end

    @property
    def fraction(self) -> float:
        """How much of the corpus was read, from 0 to 1."""
        by_bytes = (self._n_read + self._files[self._n_read].fraction) / len(self._files)
        if self._limit is None:
            return by_bytes
        return max(by_bytes, self.n_documents / self._limit)

    def windows(self, window: int, stride: int) -> Iterator[Window]:
        """Yield all windows, in order."""
        cutter = WindowCutter(window, stride)
        for number, file in enumerate(self._files):
            self._n_read = number
            for piece in file.pieces():
                yield from cutter.push(self._ids(piece))
                if piece.is_end:
                    yield from cutter.finish()
                    self.n_documents += 1
                    if self.n_documents == self._limit:
                        return

    def _ids(self, piece: Piece) -> IntArray:
        tokenizer, special = self._tokenizer, self._special
        encode = tokenizer.encode if piece.is_start else tokenizer.encode_part
        ids = encode(piece.text, special=special)
        self.n_words += len(piece.text.split())
        self.n_bytes += len(piece.text.encode())
        if not special and self.first_spelled is None:
            self.first_spelled = tokenizer.first_spelled(piece.text)
        end = [] if tokenizer.end_token is None else [tokenizer.end_token]
        if piece.is_start and not tokenizer.prefix:
            if not end and ids:
                self.n_bytes -= len(tokenizer.token_bytes(ids[0]))
            ids = end + ids
        return np.array(ids + end * piece.is_end, np.int64)


def check_same_tokens(first: Tokenizer, second: Tokenizer, names: tuple[str, str]) -> None:
    """Raise EvaluationError, naming the first id that differs, unless both tokenizers have the same
    tokens.
    """
    sizes = first.vocab_size, second.vocab_size
    for id in range(max(sizes)):
        tokens = [
            tokenizer.token_bytes(id) if id < tokenizer.vocab_size else None
            for tokenizer in (first, second)
        ]
        if tokens[0] != tokens[1]:
            shown = [f"is {token!r:.40}" if token is not None else "is missing" for token in tokens]
            raise EvaluationError(
                f"token {id} {shown[0]} in {names[0]} and {shown[1]} in {names[1]}: they cannot be "
                "compared by token",
                hint="compare models with the same tokenizer, or look at bits per byte of each",
            )
