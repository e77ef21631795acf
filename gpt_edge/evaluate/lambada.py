"""LAMBADA: predict the last word of a passage, which only the whole passage gives away (Paperno et
al. 2016), as GPT-2 was tested.

A passage is prepared as GPT-2's authors did (openai/gpt-2, issue 131): straight quotation marks, a
line break before it. Its last word, with the space before it, is the target; the model reads what
comes before.
- Accuracy: the word is right if each of its tokens is the most likely one, given those before.
- Perplexity: exp(-(1/passages) sum log p(word)), p(word) being the product of its tokens'.
- Last token: accuracy and perplexity of the word's last token alone, given the ones before it. This
  is the easier task that GPT-2's figures count; for a word of one token it is the same.
- Stop-word filter: the paper found that the most likely word is often a fine continuation but not a
  last word, such as "the", and filtered such words (Radford et al. 2019, section 3.3: 52.66 to
  63.24 %). The filter was not published. Here a first token that spells a stop word is skipped,
  unless the model's next token continues the word ("a" of "apple"); a target that is a stop word
  counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.data.documents import TextFile, TextFormat, TextOptions
from gpt_edge.errors import EvaluationError
from gpt_edge.evaluate.measures import Estimate, Sums, exp, log_softmax, of_targets, share
from gpt_edge.evaluate.scorer import Scorer, finite
from gpt_edge.tokenizer.spec import Tokenizer

# The 127 English stop words of NLTK's list (Porter; Bird, Klein and Loper 2009), which
# reproductions of the paper use.
_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
hers herself it its itself they them their theirs themselves what which who whom this that these
those am is are was were be been being have has had having do does did doing a an the and but if or
because as until while of at by for with about against between into through during before after
above below to from up down in out on off over under again further then once here there when where
why how all any both each few more most other some such no nor not only own same so than too very s
t can will just don should now
"""
STOP_WORDS = frozenset(_WORDS.split())
QUOTES = str.maketrans({"“": '"', "”": '"'})


@dataclass(frozen=True, slots=True)
class Passage:
    """What the model reads, the tokens of the word that it must predict, and the word."""

    context: IntArray
    target: IntArray
    word: str


@dataclass(frozen=True, slots=True)
class LambadaScore:
    """Figures of one model, defined in the module's docstring."""

    n_passages: int
    accuracy: Estimate
    accuracy_filtered: Estimate  # with the stop-word filter
    perplexity: Estimate | None  # None where it is too large for a float
    last_token_accuracy: Estimate
    last_token_perplexity: Estimate | None


@dataclass(slots=True)
class LambadaTally:
    """Sums over the passages that one model was scored on so far."""

    word: Sums = field(default_factory=Sums)
    last_token: Sums = field(default_factory=Sums)
    n_right: int = 0
    n_right_filtered: int = 0
    n_right_last: int = 0

    def score(self) -> LambadaScore:
        """Raises ValueError for no passages."""
        n = self.word.n
        if not n:
            raise ValueError("no passages were scored")
        return LambadaScore(
            n_passages=n,
            accuracy=share(self.n_right, n),
            accuracy_filtered=share(self.n_right_filtered, n),
            perplexity=_perplexity(self.word),
            last_token_accuracy=share(self.n_right_last, n),
            last_token_perplexity=_perplexity(self.last_token),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LambadaTally:
        """The inverse of dataclasses.asdict. Raises ValueError, KeyError or TypeError for anything
        else.
        """
        return cls(
            **{**values, "word": Sums(**values["word"]), "last_token": Sums(**values["last_token"])}
        )


def _perplexity(sums: Sums) -> Estimate | None:
    value = exp(sums.mean)
    return None if value is None else Estimate(value, value * sums.estimate().error)


def passages(
    file: TextFile, tokenizer: Tokenizer, context: int, limit: int | None
) -> Iterator[Passage]:
    """Every passage. One that does not fit into `context` tokens loses its start; its last token is
    not read.

    Raises EvaluationError for a passage of one word, or whose word alone fills the context.
    """
    n_passages, text = 0, ""
    for piece in file.pieces():
        text = piece.text if piece.is_start else text + piece.text
        if piece.is_end and text.strip():
            n_passages += 1
            yield _passage(text, tokenizer, context, f"passage {n_passages} of {file.path}")
            if n_passages == limit:
                return


def _passage(text: str, tokenizer: Tokenizer, context: int, where: str) -> Passage:
    text = text.translate(QUOTES).strip()
    word = text.split()[-1]
    before = text[: -len(word)]
    if not before:
        raise EvaluationError(
            f"{where} has one word, {word[:40]!a}: expected some text and its last word"
        )
    spaced = before.endswith(" ")
    ids = tokenizer.encode("\n" + before.removesuffix(" "))
    target = tokenizer.encode_part(" " + word if spaced else word)
    if not ids or not target or len(target) >= context:
        raise EvaluationError(
            f"{where} ends in {word[:40]!a}, {len(target)} tokens: the context has {context}"
        )
    fitting = ids[-(context + 1 - len(target)) :]
    return Passage(np.array(fitting, np.int64), np.array(target, np.int64), word)


def add_passage(
    scorer: Scorer, passage: Passage, tally: LambadaTally, tokenizer: Tokenizer, stops: Set[int]
) -> None:
    """Count one passage. stops: `stop_tokens(tokenizer)`."""
    n_context = passage.context.size
    ids = np.concatenate((passage.context, passage.target[:-1]))
    logits = np.concatenate(
        [finite(rows, scorer.name).copy() for rows in scorer.rows(ids, n_context - 1)]
    )
    nll = -of_targets(log_softmax(logits), passage.target)
    is_right = logits.argmax(-1) == passage.target
    tally.word.add(nll.sum(keepdims=True))
    tally.last_token.add(nll[-1:])
    tally.n_right += bool(is_right.all())
    tally.n_right_last += bool(is_right[-1])
    tally.n_right_filtered += bool(is_right[1:].all()) and _is_best_unfiltered(
        scorer, passage, logits[0], tokenizer, stops
    )


def _is_best_unfiltered(
    scorer: Scorer, passage: Passage, first: FloatArray, tokenizer: Tokenizer, stops: Set[int]
) -> bool:
    """Whether the stop-word filter skips every token that is more likely than the target's first,
    by logits [V].
    """
    if passage.word.strip(".,;:!?\"'").lower() in STOP_WORDS:
        return False
    target = int(passage.target[0])
    rivals = [
        int(id)
        for id in np.flatnonzero(first >= first[target])
        if first[id] > first[target] or id < target
    ]
    return all(id in stops for id in rivals) and not any(
        _continues_word(scorer, passage, id, tokenizer) for id in rivals
    )


def _continues_word(scorer: Scorer, passage: Passage, id: int, tokenizer: Tokenizer) -> bool:
    """Whether the model's next token after this one belongs to the same word."""
    if tokenizer.token_bytes(id).endswith(b" "):  # GPT-1's end of a word
        return False
    ids = np.append(passage.context, id)[-scorer.config.n_ctx :]
    (logits,) = scorer.rows(ids, ids.size - 1)
    best = int(logits[0].argmax())
    text = (
        tokenizer.token_bytes(best).decode("utf-8", "replace")
        if best < tokenizer.vocab_size
        else ""
    )
    return text[:1].isalnum() or text.startswith("\ufffd")


def stop_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that spell a stop word, in any case, with or without the space."""
    return frozenset(
        id
        for id in range(tokenizer.vocab_size)
        if tokenizer.token_bytes(id).decode("utf-8", "replace").strip().lower() in STOP_WORDS
    )


def lambada_file(path: Path, format: TextFormat = "auto") -> TextFile:
    """A file of passages: JSON Lines, or plain text with a passage on each line."""
    return TextFile(path, TextOptions(separator="\n", format=format))
