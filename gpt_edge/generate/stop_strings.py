"""StopMatcher: finds stop strings in text that comes in pieces, lets none through, and holds back
as little as it can.

Knows nothing of tokens. Each character is looked at once per stop string (Knuth, Morris and Pratt
1977), however the text is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text on up to the first stop string. What may be the beginning of one waits for the
    next piece.

    The first is the one that is complete first; of several that end together, the longest.
    `is_found` tells.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        # how much of each stop string the text so far ends with
        self._matched = [0] * len(self._stops)
        self._held = ""
        self.is_found = False

    def push(self, piece: str) -> str:
        """Return the text that is certain to come before any stop string; "" once one was found."""
        if not self._stops or self.is_found:
            return "" if self.is_found else piece
        text = self._held + piece
        for index in range(len(self._held), len(text)):
            n_matched = self._advance(text[index])
            if n_matched:
                self.is_found, self._held = True, ""
                return text[: index + 1 - n_matched]
        waiting = len(text) - max(self._matched)
        self._held = text[waiting:]
        return text[:waiting]

    def flush(self) -> str:
        """Return what was held back: the text has ended, so it is no stop string."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Length of the longest stop string that ends with `character`, 0 for none."""
        longest = 0
        for index, (stop, borders) in enumerate(self._stops):
            matched = self._matched[index]
            while matched and stop[matched] != character:
                matched = borders[matched - 1]
            if stop[matched] == character:
                matched += 1
            self._matched[index] = matched
            if matched == len(stop):
                longest = max(longest, matched)
        return longest


def _borders(stop: str) -> list[int]:
    """For each beginning of `stop`, the length of its longest proper beginning that is also its
    end.
    """
    borders = [0] * len(stop)
    length = 0
    for place in range(1, len(stop)):
        while length and stop[place] != stop[length]:
            length = borders[length - 1]
        if stop[place] == stop[length]:
            length += 1
        borders[place] = length
    return borders
