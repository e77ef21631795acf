"""A whole evaluation: texts or LAMBADA through one model, or two against each other, with progress
that survives a kill.

Memory: the models, ROWS rows of logits of each, a window, and at most 100 MB of histograms for each
pair (in practice a few), whatever the size of the corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.arrays import IntArray
from gpt_edge.data.documents import TextFile
from gpt_edge.errors import EvaluationError
from gpt_edge.evaluate.compare import Comparison, Pair, comparison
from gpt_edge.evaluate.corpus import Corpus, Settings
from gpt_edge.evaluate.documents import score_window
from gpt_edge.evaluate.lambada import (
    LambadaScore,
    LambadaTally,
    add_passage,
    lambada_file,
    passages,
    stop_tokens,
)
from gpt_edge.evaluate.measures import Sums, Tally, TextScore, text_score
from gpt_edge.evaluate.scorer import Scorer
from gpt_edge.evaluate.state import State
from gpt_edge.system.disk import sha256_file
from gpt_edge.tokenizer.spec import Tokenizer

DAMAGES = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
)  # what a state that was tampered with gives


@dataclass(frozen=True, slots=True)
class Models:
    """What is evaluated. Raises EvaluationError unless all have the vocabulary of `model`."""

    model: Scorer
    base: Scorer | None = None  # what `model` is held against
    # `model` once more, with another number of threads: the noise floor
    again: Scorer | None = None
    identity: tuple[str, ...] = ()  # hashes of model and base, by which a resumed run knows them

    def __post_init__(self) -> None:
        for other in self.all():
            if (found := other.config.vocab_size) != (wanted := self.model.config.vocab_size):
                raise EvaluationError(
                    f"{self.model.name} has a vocabulary of {wanted} tokens and {other.name} of "
                    f"{found}: "
                    "their probabilities are of different things",
                    hint="compare models with the same tokenizer, or look at bits per byte of each",
                )

    def all(self) -> list[Scorer]:
        """Those that are there, `model` first."""
        return [scorer for scorer in (self.model, self.base, self.again) if scorer is not None]

    @property
    def context(self) -> int:
        """Of the shortest."""
        return min(scorer.config.n_ctx for scorer in self.all())

    def owner(self) -> dict[str, Any]:
        """What a state is tied to. The number of threads decides the last bits of a sum."""
        return {
            "models": list(self.identity),
            "with": [self.base is not None, self.again is not None],
            "threads": [scorer.threads for scorer in self.all()],
        }


@dataclass(frozen=True, slots=True)
class Step:
    """How far an evaluation is."""

    fraction: float  # of the texts, by bytes or documents
    n_done: int  # targets or passages, those of a resumed run included
    loss: float  # of `model` so far


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class TextReport:
    """What came out; `comparison` and `noise_floor` only with a base and with `again`."""

    window: int
    stride: int
    n_documents: int
    n_tokens: int  # targets that counted
    n_words: int
    n_bytes: int
    model: TextScore
    base: TextScore | None
    comparison: Comparison | None
    noise_floor: Comparison | None
    noise_threads: tuple[int, int] | None  # of the two runs that the noise floor lies between


def evaluate_text(
    models: Models,
    tokenizer: Tokenizer,
    paths: Sequence[Path],
    settings: Settings | None = None,
    *,
    state: State | None = None,
    progress: Progress = lambda step: None,
) -> TextReport:
    """Score every document of the files, and hold `model` against its base and itself.

    state: kept as it goes; what it holds of this very evaluation is not computed again, and the
    figures are the same to the last bit. Raises EvaluationError for a text or a state, NumericError
    for a model with NaN, ValueError for settings.
    """
    settings, state = settings or Settings(), state or State()
    window, stride = settings.fit(models.context)
    files = [TextFile(path, settings.separator, settings.format) for path in paths]
    if not files:
        raise ValueError("no text was given")
    owner: dict[str, Any] = {}
    if state.is_kept:
        owner = {**models.owner(), "texts": [sha256_file(path) for path in paths]}
        owner |= {**dataclasses.asdict(settings), "window": window, "stride": stride}
    run = _TextRun.of(models)
    if (saved := state.begin("text", owner)) is not None:
        try:
            run.restore(saved)
        except DAMAGES as error:
            raise state.damaged("text", error) from error
    corpus, n_saved = Corpus(files, tokenizer, settings.limit), run.n_windows
    for number, (ids, n_counted) in enumerate(corpus.windows(window, stride)):
        if number >= n_saved:
            run.add(models.all(), ids, n_counted)
            state.save("text", run.to_dict)
        progress(Step(corpus.fraction, run.tallies[0].nll.n, run.tallies[0].nll.mean))
    state.save("text", run.to_dict, now=True)
    progress(Step(1.0, run.tallies[0].nll.n, run.tallies[0].nll.mean))
    if not run.tallies[0].nll.n or not corpus.n_words:
        raise EvaluationError(f"{files[0].path} holds too little text: no token follows another")
    return run.report(models, corpus, window, stride)


@dataclass(slots=True)
class _TextRun:
    """The sums of an evaluation in progress, in the order of Models.all()."""

    tallies: list[Tally]
    pairs: dict[tuple[int, int], Pair]  # by (base, model)
    n_windows: int = 0

    @classmethod
    def of(cls, models: Models) -> _TextRun:
        pairs = {(1, 0): Pair()} if models.base is not None else {}
        if models.again is not None:
            pairs[0, len(models.all()) - 1] = Pair()
        return cls([Tally() for _ in models.all()], pairs)

    def add(self, scorers: Sequence[Scorer], ids: IntArray, n_counted: int) -> None:
        """Count one window."""
        score_window(scorers, ids, n_counted, self.tallies, self.pairs)
        self.n_windows += 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "n_windows": self.n_windows,
            "tallies": [dataclasses.asdict(tally) for tally in self.tallies],
            "pairs": [pair.to_dict() for pair in self.pairs.values()],
        }

    def restore(self, values: dict[str, Any]) -> None:
        tallies = [
            Tally(Sums(**tally["nll"]), int(tally["n_correct"])) for tally in values["tallies"]
        ]
        pairs = [Pair.from_dict(pair) for pair in values["pairs"]]
        self.pairs = dict(zip(self.pairs, pairs, strict=True))
        self.tallies = [tally for tally, _ in zip(tallies, self.tallies, strict=True)]
        self.n_windows = int(values["n_windows"])

    def report(self, models: Models, corpus: Corpus, window: int, stride: int) -> TextReport:
        scores = [text_score(tally, corpus.n_words, corpus.n_bytes) for tally in self.tallies]
        found = {
            key: comparison(pair, *(self.tallies[i] for i in key))
            for key, pair in self.pairs.items()
        }
        again = models.again
        return TextReport(
            window=window,
            stride=stride,
            n_documents=corpus.n_documents,
            n_tokens=self.tallies[0].nll.n,
            n_words=corpus.n_words,
            n_bytes=corpus.n_bytes,
            model=scores[0],
            base=scores[1] if models.base is not None else None,
            comparison=found.get((1, 0)),
            noise_floor=None if again is None else found[0, len(scores) - 1],
            noise_threads=None if again is None else (models.model.threads, again.threads),
        )


def evaluate_lambada(
    models: Models,
    tokenizer: Tokenizer,
    path: Path,
    settings: Settings | None = None,
    *,
    state: State | None = None,
    progress: Progress = lambda step: None,
) -> list[LambadaScore]:
    """Score `model`, and `base` if there is one, on the passages of a file; window and stride do
    not matter.

    state, progress and errors: as `evaluate_text`.
    """
    settings, state = settings or Settings(), state or State()
    scorers = [scorer for scorer in (models.model, models.base) if scorer is not None]
    file = lambada_file(path, settings.format)
    owner = (
        {**models.owner(), "texts": [sha256_file(path)], "limit": settings.limit}
        if state.is_kept
        else {}
    )
    tallies, stops = [LambadaTally() for _ in scorers], stop_tokens(tokenizer)
    if (saved := state.begin("lambada", owner)) is not None:
        try:
            tallies = [
                LambadaTally.from_dict(saved["tallies"][index]) for index in range(len(scorers))
            ]
        except DAMAGES as error:
            raise state.damaged("lambada", error) from error
    n_saved = tallies[0].word.n
    for number, passage in enumerate(passages(file, tokenizer, models.context, settings.limit)):
        if number >= n_saved:
            for scorer, tally in zip(scorers, tallies, strict=True):
                add_passage(scorer, passage, tally, tokenizer, stops)
            state.save(
                "lambada", lambda: {"tallies": [dataclasses.asdict(tally) for tally in tallies]}
            )
        fraction = max(file.fraction, (number + 1) / settings.limit if settings.limit else 0.0)
        progress(Step(fraction, tallies[0].word.n, tallies[0].word.mean))
    state.save(
        "lambada", lambda: {"tallies": [dataclasses.asdict(tally) for tally in tallies]}, now=True
    )
    progress(Step(1.0, tallies[0].word.n, tallies[0].word.mean))
    return [tally.score() for tally in tallies]
