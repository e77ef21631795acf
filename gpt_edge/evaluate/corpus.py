"""A corpus as windows of ids: what is read, in which order, and what of it counts.

Each document is read on its own, from an empty context: `end token, tokens, end token`. What
counts: every token of it and the end token after it. With a tokenizer that has no end token the
first token is context, and neither it nor its bytes count.
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
class Settings:
    """How a text is read. Raises ValueError for a limit below 1."""

    # ids that a model reads at once; None: the context, the smaller one of two
    window: int | None = None
    stride: int | None = None  # targets that a window moves on by; None: half the window
    separator: str = END_OF_TEXT  # of documents in plain text
    format: TextFormat = "auto"
    limit: int | None = None  # documents, or passages; None: all

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def fit(self, context: int) -> tuple[int, int]:
        """Window and stride for models of that context. Raises ValueError for a window or stride
        that does not fit.
        """
        window = context if self.window is None else self.window
        if window > context:
            raise ValueError(f"window must be at most the context of {context}, got {window}")
        stride = max(1, window // 2) if self.stride is None else self.stride
        check_window(window, stride)
        return window, stride


class Corpus:
    """Windows of some texts, and how much text they came from so far."""

    def __init__(self, files: Sequence[TextFile], tokenizer: Tokenizer, limit: int | None) -> None:
        self.n_documents = self.n_words = self.n_bytes = 0
        self._files, self._tokenizer, self._limit = files, tokenizer, limit
        self._n_read = 0

    @property
    def fraction(self) -> float:
        """How far it is, 0 to 1."""
        by_bytes = (self._n_read + self._files[self._n_read].fraction) / len(self._files)
        return by_bytes if self._limit is None else max(by_bytes, self.n_documents / self._limit)

    def windows(self, window: int, stride: int) -> Iterator[Window]:
        """All of them, in order."""
        cutter = WindowCutter(window, stride)
        for number, file in enumerate(self._files):
            self._n_read = number
            for piece in file.pieces():
                yield from cutter.push(self._ids(piece))
                if piece.ends:
                    yield from cutter.finish()
                    self.n_documents += 1
                    if self.n_documents == self._limit:
                        return

    def _ids(self, piece: Piece) -> IntArray:
        ids, end = self._tokenizer.encode(piece.text), self._tokenizer.end_token
        self.n_words += len(piece.text.split())
        self.n_bytes += len(piece.text.encode())
        if end is None:
            if piece.starts and ids:
                self.n_bytes -= len(self._tokenizer.token_bytes(ids[0]))
            return np.array(ids, np.int64)
        return np.array([end] * piece.starts + ids + [end] * piece.ends, np.int64)


def check_same_tokens(first: Tokenizer, second: Tokenizer, names: tuple[str, str]) -> None:
    """Raise EvaluationError unless both tokenizers give the same meaning to each id, naming the
    first that differs.
    """
    sizes = first.vocab_size, second.vocab_size
    for id in range(max(sizes)):
        tokens = [
            words.token_bytes(id) if id < words.vocab_size else None for words in (first, second)
        ]
        if tokens[0] != tokens[1]:
            shown = [f"is {token!r:.40}" if token is not None else "is missing" for token in tokens]
            raise EvaluationError(
                f"token {id} {shown[0]} in {names[0]} and {shown[1]} in {names[1]}: they cannot be "
                "compared by token",
                hint="compare models with the same tokenizer, or look at bits per byte of each",
            )
