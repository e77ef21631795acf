"""One turn of a Conversation: while its reply is under way, ended, and read back from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_edge.generate.read_sequence import ReadSequence

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator
    from gpt_edge.generate.stream import TextStream


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user sent and a model replied.

    n_kept: how many ids of the text before stay, all of them unless the template rewrote it. ids:
    those that follow. n_dropped: how many of the text's ids a window has dropped so far.
    """

    text: str
    reply: str
    n_kept: int
    ids: tuple[int, ...]
    n_dropped: int = 0


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is under way. ids: of the whole text before the reply."""

    text: str
    ids: list[int]
    n_kept: int
    n_dropped: int
    stream: TextStream

    def turn(self, model: Generator, sequence: ReadSequence) -> Turn:
        """The turn, once its reply has ended. sequence: what was read for it."""
        done = self.stream.completion
        reply_ids = list(done.ids)
        if model.tokenizer.decode(reply_ids) != done.text:  # a stop string cut it
            reply_ids = model.tokenizer.encode_part(done.text)
        ids = (*self.ids[self.n_kept :], *reply_ids)
        n_dropped = self.n_dropped + sequence.n_dropped
        return Turn(self.text, done.text, self.n_kept, ids, n_dropped)


def turn_of(value: Any) -> Turn:
    """A turn from its JSON value. Raises ValueError, TypeError or LookupError for anything else."""
    turn = Turn(**{**value, "ids": tuple(value["ids"])})
    texts = (turn.text, turn.reply)
    numbers = (turn.n_kept, turn.n_dropped, *turn.ids)
    if not all(type(text) is str for text in texts):
        raise ValueError("a turn's texts must be texts")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a turn's numbers must be whole numbers of at least 0")
    return turn
