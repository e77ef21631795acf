"""Special tokens in a text: which of them it spells, and where they cut it.

A text stays text unless its caller asks for special tokens: whoever passes on what a stranger typed
would else let that stranger write control tokens. Tokens that a vocabulary's maker added as words
("always") are found in any text. Knows no vocabulary and no file.

Source of the rules of one token: `AddedToken` of Hugging Face's tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

ALWAYS, NEVER = "always", "never"
LEFT, RIGHT, WORD = "lstrip", "rstrip", "single_word"
# always: found in every text; never: the maker's tokenizer does not find it; lstrip, rstrip: takes
# the white space before or after it; single_word: only where no letter, digit or _ is beside it
RULES = (ALWAYS, NEVER, LEFT, RIGHT, WORD)

TokenRules = tuple[tuple[str, tuple[str, ...]], ...]


def check_rules(rules: object, special_tokens: Mapping[str, int]) -> TokenRules:
    """Return rules in the order of the tokens' ids. Raises ValueError for a token that is not
    special and for an unknown rule.
    """
    checked: dict[str, tuple[str, ...]] = {}
    for text, words in rules if isinstance(rules, tuple) else ():
        if text not in special_tokens:
            raise ValueError(f"token_rules names {text!r:.80}, which is not a special token")
        is_list = isinstance(words, list | tuple) and all(word in RULES for word in words)
        if not is_list or not words or len(set(words)) < len(words) or {ALWAYS, NEVER} <= {*words}:
            raise ValueError(
                f"the rules of {text!r:.80} must be some of {', '.join(RULES)}, each once, got "
                f"{words!r:.80}"
            )
        checked[text] = tuple(word for word in RULES if word in words)
    return tuple(sorted(checked.items(), key=lambda item: special_tokens[item[0]]))


def spelled_note(what: str, token: str) -> str:
    """One line about a text, `what`, that spells a special token and was read as plain text."""
    return (
        f"{what} spells the special token {token!r:.60}, which is read as plain text; --special "
        "makes it special"
    )


class SpecialTokenFinder:
    """Cuts texts at special tokens: the leftmost match, and of those the longest token."""

    def __init__(self, special_tokens: Mapping[str, int], rules: TokenRules) -> None:
        self._ids = dict(special_tokens)
        self._rules = dict(rules)
        always = [text for text in self._ids if ALWAYS in self._of(text)]
        self._always = self._pattern(always)
        self._on_request = self._pattern(
            [text for text in self._ids if not {ALWAYS, NEVER} & {*self._of(text)}]
        )
        self._all = self._pattern([text for text in self._ids if NEVER not in self._of(text)])

    def split(self, text: str, special: bool) -> Iterator[str | int]:
        """Yield the parts of `text` in order: ids of tokens, and the texts between, none empty.

        special: whether every special token counts, or only those that always do.
        """
        pattern = self._all if special else self._always
        start = 0
        for match in pattern.finditer(text) if pattern is not None else ():
            if match.start() > start:
                yield text[start : match.start()]
            yield self._ids[self._token(match[0])]
            start = match.end()
        if start < len(text):
            yield text[start:]

    def first_spelled(self, text: str) -> str | None:
        """The first special token in `text` that counts on request alone, or None."""
        match = self._on_request.search(text) if self._on_request is not None else None
        return None if match is None else self._token(match[0])

    def _of(self, text: str) -> tuple[str, ...]:
        return self._rules.get(text, ())

    def _token(self, found: str) -> str:
        """The token of a match, which may hold the white space around it."""
        spellings = (found, found.lstrip(), found.rstrip(), found.strip())
        return next(text for text in spellings if text in self._ids)

    def _pattern(self, texts: Sequence[str]) -> re.Pattern[str] | None:
        if not texts:
            return None
        longest_first = sorted(texts, key=len, reverse=True)
        return re.compile("|".join(map(self._expression, longest_first)))

    def _expression(self, text: str) -> str:
        rules = self._of(text)
        expression = re.escape(text)
        if WORD in rules:
            expression = rf"(?<!\w){expression}(?!\w)"
        if LEFT in rules:
            expression = rf"\s*{expression}"
        return rf"{expression}\s*" if RIGHT in rules else expression
