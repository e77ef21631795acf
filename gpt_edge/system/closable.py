"""Closable: what a with-block closes."""

from __future__ import annotations

from typing import Self


class Closable:
    """Base of what holds a loaded model. `close` may be called several times."""

    def close(self) -> None:
        """Let go of the model; using it afterwards is a ValueError."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
