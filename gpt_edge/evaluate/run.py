"""A whole evaluation: score texts or LAMBADA with one model, or compare two. A killed evaluation
can be resumed.

Memory: the models, ROWS rows of logits of each, a window, and at most 100 MB of histograms for each
pair (in practice a few), whatever the size of the corpus.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.arrays import IntArray
from gpt_edge.data.documents import TextFile, TextOptions
from gpt_edge.errors import EvaluationError, GPTEdgeWarning
from gpt_edge.evaluate.compare import Comparison, Pair, comparison
from gpt_edge.evaluate.corpus import EvaluationSettings, WindowedCorpus
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
from gpt_edge.evaluate.state import EvaluationState
from gpt_edge.system.disk import sha256_file
from gpt_edge.tokenizer.spec import Tokenizer
from gpt_edge.tokenizer.special_tokens import spelled_note

# raised while a corrupt state is restored
CORRUPT = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Models:
    """The models of an evaluation. Raises EvaluationError unless all have the vocabulary of
    `model`.
    """

    model: Scorer
    base: Scorer | None = None  # what `model` is compared with
    # `model` once more, with another number of threads: the noise floor
    again: Scorer | None = None
    identity: tuple[str, ...] = ()  # hashes of model and base, by which a resumed run knows them

    def __post_init__(self) -> None:
        for other in self.all():
            expected = self.model.config.vocab_size
            actual = other.config.vocab_size
            if actual != expected:
                raise EvaluationError(
                    f"{self.model.name} has a vocabulary of {expected} tokens and {other.name} of "
                    f"{actual}: their probabilities cannot be compared",
                    hint="compare models with the same tokenizer, or look at bits per byte of each",
                )

    def all(self) -> list[Scorer]:
        """The models that were given, `model` first."""
        return [scorer for scorer in (self.model, self.base, self.again) if scorer is not None]

    @property
    def context(self) -> int:
        """The shortest of the models' contexts."""
        return min(scorer.config.n_ctx for scorer in self.all())

    def owner(self) -> dict[str, Any]:
        """What a state belongs to. The number of threads decides the last bits of a sum."""
        return {
            "models": list(self.identity),
            "with": [self.base is not None, self.again is not None],
            "threads": [scorer.threads for scorer in self.all()],
        }


@dataclass(frozen=True, slots=True)
class Step:
    """The progress of an evaluation."""

    fraction: float  # of the texts, by bytes or documents
    n_done: int  # targets or passages, those of a resumed run included
    loss: float  # of `model` so far


StepCallback = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class TextReport:
    """The figures of an evaluation; `comparison` needs a base, `noise_floor` needs `again`."""

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
    noise_threads: tuple[int, int] | None  # of the two runs that the noise floor compares


def evaluate_text(
    models: Models,
    tokenizer: Tokenizer,
    paths: Sequence[Path],
    settings: EvaluationSettings | None = None,
    *,
    state: EvaluationState | None = None,
    progress: StepCallback = lambda step: None,
) -> TextReport:
    """Score every document of the files, and compare `model` with its base and with itself.

    Warns (GPTEdgeWarning) of a special token that the text spells and that is read as plain text.
    state: saved regularly; what it holds of this evaluation is not computed again, and the figures
    are bit-identical. Raises EvaluationError for a text or a state, NumericError for a model with
    NaN, ValueError for settings.
    """
    settings = settings or EvaluationSettings()
    state = state or EvaluationState()
    window, stride = settings.fit(models.context)
    options = TextOptions(separator=settings.separator, format=settings.format)
    files = [TextFile(path, options) for path in paths]
    if not files:
        raise ValueError("no text was given")
    owner: dict[str, Any] = {}
    if state.is_saved:
        owner = {**models.owner(), "texts": [sha256_file(path) for path in paths]}
        owner |= {**dataclasses.asdict(settings), "window": window, "stride": stride}
        if not settings.special:
            del owner["special"]  # as before there was a choice
    run = _TextRun.of(models)
    if (saved := state.begin("text", owner)) is not None:
        try:
            run.restore(saved)
        except CORRUPT as error:
            raise state.corrupt("text", error) from error
    corpus = WindowedCorpus(files, tokenizer, settings.limit, settings.special)
    n_saved = run.n_windows
    for number, (ids, n_counted) in enumerate(corpus.windows(window, stride)):
        if number >= n_saved:
            run.add(models.all(), ids, n_counted)
            state.save("text", run.to_dict)
        progress(Step(corpus.fraction, run.tallies[0].nll.n, run.tallies[0].nll.mean))
    state.save("text", run.to_dict, now=True)
    if corpus.first_spelled is not None:
        warnings.warn(spelled_note("the text", corpus.first_spelled), GPTEdgeWarning, stacklevel=2)
    progress(Step(1.0, run.tallies[0].nll.n, run.tallies[0].nll.mean))
    if not run.tallies[0].nll.n or not corpus.n_words:
        raise EvaluationError(f"{files[0].path} holds too little text: it has no token to predict")
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

    def report(
        self, models: Models, corpus: WindowedCorpus, window: int, stride: int
    ) -> TextReport:
        scores = [text_score(tally, corpus.n_words, corpus.n_bytes) for tally in self.tallies]
        comparisons = {
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
            comparison=comparisons.get((1, 0)),
            noise_floor=None if again is None else comparisons[0, len(scores) - 1],
            noise_threads=None if again is None else (models.model.threads, again.threads),
        )


def evaluate_lambada(
    models: Models,
    tokenizer: Tokenizer,
    path: Path,
    settings: EvaluationSettings | None = None,
    *,
    state: EvaluationState | None = None,
    progress: StepCallback = lambda step: None,
) -> list[LambadaScore]:
    """Score `model`, and `base` if there is one, on the passages of a file; window and stride do
    not matter.

    state, progress and errors: as `evaluate_text`.
    """
    settings = settings or EvaluationSettings()
    state = state or EvaluationState()
    scorers = [scorer for scorer in (models.model, models.base) if scorer is not None]
    file = lambada_file(path, settings.format)
    owner: dict[str, Any] = {}
    if state.is_saved:
        owner = {**models.owner(), "texts": [sha256_file(path)], "limit": settings.limit}
    tallies = [LambadaTally() for _ in scorers]
    stops = stop_tokens(tokenizer)
    if (saved := state.begin("lambada", owner)) is not None:
        try:
            tallies = [
                LambadaTally.from_dict(saved["tallies"][index]) for index in range(len(scorers))
            ]
        except CORRUPT as error:
            raise state.corrupt("lambada", error) from error
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
