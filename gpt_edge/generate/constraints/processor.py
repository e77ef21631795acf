"""ConstraintProcessor: the logits processor of one sequence's constraint.

It works last of all processors, so what is chosen always follows the constraint. It is a function
of the history: it reads the ids that are new since the last call, and where the history is another
(a rejected draft, another beam), it goes back to what both begin with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.errors import ConstraintError
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.vocabulary import WORD, byte_vocabulary, vocabulary_of
from gpt_edge.generate.logits import LogitsRow
from gpt_edge.tokenizer.spec import Tokenizer

Bytes = npt.NDArray[np.uint8]

_DEAD_END = "NoExtension"  # how llguidance begins to say that nothing may follow
_FEW_BYTES = 24  # of a mask that say something: then only their tokens are looked at
# what each of a mask's bytes, low bit first, adds to eight logits: 0 or -inf
_BIAS_OF = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"),
    np.float32(0),
    np.float32(-np.inf),
)  # [256, 8]


class ConstraintProcessor:
    """Removes the tokens that the text may not have next. One sequence, or the beams of one search.

    Raises ValueError for a constraint that is refused, or admits no text or only the empty one;
    TokenizerError for a tokenizer that cannot be constrained; MissingDependencyError.
    """

    def __init__(
        self,
        constraint: Constraint,
        tokenizer: Tokenizer,
        n_prompt: int,
        end_tokens: Collection[int],
        before: str = "",
    ) -> None:
        """n_prompt: how many ids of the history are the prompt's. before: text that the new tokens
        begin with, ahead of the constraint's.
        """
        self._constraint = constraint
        self._tokenizer = tokenizer
        self._n_prompt = n_prompt
        self._before = before
        self._vocabulary = vocabulary_of(tokenizer)
        self._end_tokens = sorted(end_tokens)
        self._matcher = self._vocabulary.matcher(constraint, before)
        self._ids: list[int] = []  # that the matcher has read
        self._mask: Bytes | None = None  # of what may follow them
        self._row = _Row()
        self._check_start()

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        """The row with -inf for what may not follow, which the next call overwrites. history: the
        prompt's ids and those after.
        """
        self._follow(history)
        mask = self._next_mask()
        if np.count_nonzero(mask) > _FEW_BYTES:
            row = self._row.masked(logits, mask)
        else:
            row = self._row.picked(logits, mask)
        # an end token ends the text even where the constraint has it as text
        if self._end_tokens:
            row[self._end_tokens] = logits[self._end_tokens] if self._may_end(mask) else -np.inf
        return row

    def can_continue(self, history: Sequence[int], id: int) -> bool:
        """Whether the text can go on, or end, after `id`, a token that the mask allows. False only
        where the vocabulary lacks the bytes: GPT-1's has a space only at the end of a token.
        """
        if self._vocabulary.has_every_byte or id in self._end_tokens:
            return True
        self._follow(history)
        probe = self._matcher.deep_copy()
        probe.consume_token(self._token_of(id))
        mask = np.frombuffer(probe.compute_bitmask(), np.uint8)
        return not probe.is_error() and (probe.is_accepting() or self._has_token(mask))

    def is_over(self, history: Sequence[int]) -> bool:
        """Whether the text is complete and no token may follow."""
        self._follow(history)
        if self._matcher.is_stopped():
            return True
        # the grammar could go on, but no token of the vocabulary; without an end token, nothing
        # else would end the text
        return self._matcher.is_accepting() and not self._has_token(self._next_mask())

    def is_met(self, history: Sequence[int]) -> bool:
        """Whether the text is one that the constraint admits, and not the beginning of one."""
        self._follow(history)
        if not self._matcher.is_accepting():
            return False
        if not self._vocabulary.strips:
            return True
        text = self._tokenizer.decode(history[self._n_prompt :])
        return admits(self._constraint, text.removeprefix(self._before.lstrip()))

    def _check_start(self) -> None:
        kind = self._constraint.kind
        self._mask = self._mask_of_start()
        if self._matcher.is_error():
            if not self._matcher.get_error().startswith(_DEAD_END):
                raise self._failure()  # too complex
            raise ValueError(f"the {kind} constraint admits no text of this model's tokens")
        if not self._has_token(self._mask):
            raise ValueError(f"the {kind} constraint admits no text but the empty one")

    def _follow(self, history: Sequence[int]) -> None:
        """Have the matcher read `history`."""
        ids = history[self._n_prompt :]
        n_known = len(self._ids)
        if list(ids[:n_known]) != self._ids:
            n_known = next(
                (
                    place
                    for place, (known, id) in enumerate(zip(self._ids, ids, strict=False))
                    if known != id
                ),
                min(n_known, len(ids)),
            )
            self._matcher.rollback(len(self._ids) - n_known)
            del self._ids[n_known:]
            self._mask = None
        for id in ids[n_known:]:
            if not self._matcher.consume_token(self._token_of(id)):
                raise self._failure()
            self._ids.append(id)
            self._mask = None

    def _token_of(self, id: int) -> int:
        """The vocabulary's id of the next token."""
        return id if self._ids else self._vocabulary.first_variant_of.get(id, id)

    def _next_mask(self) -> Bytes:
        """A bit for each id of the vocabulary, low bits first; the vocabulary's `end` included."""
        if self._mask is None:
            if not self._ids:
                self._mask = self._mask_of_start()
            else:
                self._mask = self._computed()
        return self._mask

    def _mask_of_start(self) -> Bytes:
        """The mask of the first token, each by what it adds at the start."""
        mask = self._computed()
        vocabulary = self._vocabulary
        if not vocabulary.first_variant_of:
            return mask[: vocabulary.n_mask_bytes]
        bits = np.unpackbits(mask, bitorder="little")
        bits[[*vocabulary.first_variant_of]] = bits[[*vocabulary.first_variant_of.values()]]
        return np.packbits(bits, bitorder="little")[: vocabulary.n_mask_bytes]

    def _computed(self) -> Bytes:
        mask: Bytes = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error() and self._ids:
            raise self._failure()
        # variants are for the first token alone
        return mask[: self._vocabulary.n_mask_bytes] if self._ids else mask

    def _may_end(self, mask: Bytes) -> bool:
        return bool(mask[self._vocabulary.end // 8] >> (self._vocabulary.end % 8) & 1)

    def _has_token(self, mask: Bytes) -> bool:
        """Whether a token may be next, and not the end alone."""
        byte, bit = divmod(self._vocabulary.end, 8)
        return bool(mask[:byte].any()) or bool(mask[byte] & ((1 << bit) - 1))

    def _failure(self) -> ConstraintError:
        message = self._matcher.get_error()
        text = self._tokenizer.decode(self._ids)[-40:]
        if message.startswith(_DEAD_END):
            return ConstraintError(
                f"the {self._constraint.kind} constraint cannot be followed after {text!r}: no "
                "token of this model's vocabulary continues it",
                hint="the constraint contradicts itself, or needs characters that the tokenizer "
                "does not have",
            )
        reason = message.strip().splitlines()[0]
        return ConstraintError(
            f"the {self._constraint.kind} constraint failed after {text!r}: {reason:.200}",
            hint="make it simpler: bound repetitions, and leave out alternatives that overlap",
        )


class _Row:
    """A row of logits under a mask. Its memory is kept: a new row of GPT-2's 50,257 would take as
    long as filling it, for the pages that the system maps and clears.
    """

    def __init__(self) -> None:
        self._row: LogitsRow = np.empty(0, np.float32)
        self._bias: LogitsRow = np.empty((0, 8), np.float32)
        self._picked: list[int] | None = None  # the ids that are not -inf; None for unknown ones

    def masked(self, logits: LogitsRow, mask: Bytes) -> LogitsRow:
        """A pass over the vocabulary: 0 or -inf is added to each logit."""
        self._fit(logits)
        self._picked = None
        if len(self._bias) != mask.size:
            self._bias = np.empty((mask.size, 8), np.float32)
        # "clip" needs no copy for a failed check: a byte is always below 256
        _BIAS_OF.take(mask, axis=0, out=self._bias, mode="clip")
        return np.add(logits, self._bias.reshape(-1)[: logits.size], out=self._row)

    def picked(self, logits: LogitsRow, mask: Bytes) -> LogitsRow:
        """Only the tokens of the mask, and those of the last call, are touched."""
        self._fit(logits)
        if self._picked is None:
            self._row.fill(-np.inf)
        else:
            self._row[self._picked] = -np.inf
        self._picked = [id for id in _ids_of(mask) if id < logits.size]
        self._row[self._picked] = logits[self._picked]
        return self._row

    def _fit(self, logits: LogitsRow) -> None:
        if (self._row.size, self._row.dtype) != (logits.size, logits.dtype):
            self._row = np.empty_like(logits)
            self._picked = None


def _ids_of(mask: Bytes) -> list[int]:
    """The ids of the bits that are set, for a mask that has few."""
    words = mask.view(np.uint64)
    places = words.nonzero()[0]
    ids = []
    for place, word in zip(places.tolist(), words[places].tolist(), strict=True):
        while word:
            lowest = word & -word
            ids.append(place * WORD + lowest.bit_length() - 1)
            word ^= lowest
    return ids


def admits(constraint: Constraint, text: str) -> bool:
    """Whether a text, as a whole, follows `constraint`."""
    matcher: Any = byte_vocabulary().matcher(constraint)
    return bool(matcher.consume_tokens(list(text.encode("utf-8")))) and bool(matcher.is_accepting())
