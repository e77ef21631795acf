"""A run's vocabulary and token shards, made from its text once: later starts of the same run find
them in its folder.

`tokenizer.tiktoken` is the vocabulary, `tokens/` the shards, `tokens/source.json` what both were
made from.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.data.text_files import TextFiles, find_texts
from gpt_edge.errors import TokenizerError, TrainingError
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error
from gpt_edge.tokenizer.discover import tokenizer_from
from gpt_edge.tokenizer.formats.rank_file import N_BYTES, format_ranks
from gpt_edge.tokenizer.load import build_tokenizer, read_tokenizer_file
from gpt_edge.tokenizer.spec import END_OF_TEXT, Tokenizer, TokenizerSource, TokenizerSpec
from gpt_edge.training.corpus.learn_tokenizer import train_tokenizer
from gpt_edge.training.corpus.shards import TokenShards, documents_of, is_tokenized, tokenize
from gpt_edge.training.recipe import Recipe

TOKENIZER, TOKENS, SOURCE = "tokenizer.tiktoken", "tokens", "source.json"
# text that a vocabulary is learned from: the learner holds every different word in memory
LEARN_BYTES = 256 << 20
# shows a pass over the text, by its bytes
Reading = Callable[[str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a run learns from."""

    tokenizer: TokenizerSource
    train: TokenShards
    valid: TokenShards
    encoder: Tokenizer

    def validation_documents(self) -> list[IntArray]:
        """The validation text's documents, int64 `end, tokens, end`, in memory."""
        end = self.encoder.end_token
        assert end is not None
        return [document for shard in self.valid for document in documents_of(shard, end)]

    def n_bytes(self, documents: list[IntArray]) -> int:
        """The bytes that some documents were."""
        sizes = np.array(
            [len(self.encoder.token_bytes(id)) for id in range(self.encoder.vocab_size)]
        )
        sizes[self.encoder.end_token] = 0
        return int(sum(sizes[document].sum() for document in documents))


def prepare(recipe: Recipe, folder: Path, reading: Reading) -> Corpus:
    """Return the corpus of `recipe`, making in `folder` what is missing of it.

    What is finished is used as it is; what is not, is gone on with while the texts are the same,
    and else made anew. Raises TrainingError for a text or vocabulary that cannot be used,
    OutputError when `folder` cannot be written.
    """
    tokens = folder / TOKENS
    if not all(is_tokenized(tokens, name) for name in ("train", "valid")):
        _forget_other_source(recipe, folder)
    train, valid = _texts(recipe)
    source = _vocabulary(recipe, folder, train, reading)
    encoder = build_tokenizer(source)
    shards = []
    for name, texts in (("train", train), ("valid", valid)):
        with reading(f"tokenising {name}") as progress:
            shards.append(tokenize(tokens, name, texts, encoder, progress))
    return Corpus(source, shards[0], shards[1], encoder)


def is_prepared_file(name: str) -> bool:
    """Whether `prepare` makes something of this name, so that a folder with it alone holds no run
    yet.
    """
    return name in (TOKENIZER, TOKENS) or name.startswith(f".{TOKENIZER}.")


def _texts(recipe: Recipe) -> tuple[TextFiles, TextFiles]:
    data, base = recipe.data, recipe.path.resolve().parent
    held_out = 0 if data.valid else data.held_out
    train = TextFiles(
        find_texts(base, data.train), data.separator, data.field, data.encoding_errors, held_out
    )
    if data.valid:
        return train, dataclasses.replace(train, paths=find_texts(base, data.valid))
    return train, dataclasses.replace(train, is_validation=True)


def _forget_other_source(recipe: Recipe, folder: Path) -> None:
    """Remove vocabulary and shards of another text or recipe; write down what the coming ones are
    made from.
    """
    tokens, files = folder / TOKENS, {path for texts in _texts(recipe) for path in texts.paths}
    described: dict[str, Any] = {
        "files": sorted([str(path), *_size_and_time(path)] for path in files),
        "data": recipe.fingerprint()["data"],
        "tokenizer": recipe.fingerprint()["tokenizer"],
    }
    try:
        if (tokens / SOURCE).exists() and json.loads((tokens / SOURCE).read_bytes()) == described:
            return
    except (OSError, ValueError):  # unreadable or damaged: another source
        pass
    try:
        shutil.rmtree(tokens, ignore_errors=True)
        (folder / TOKENIZER).unlink(missing_ok=True)
        tokens.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error
    atomic_write(tokens / SOURCE, json.dumps(described).encode())


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise TrainingError(f"cannot read the text {path}: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns


def _vocabulary(
    recipe: Recipe, folder: Path, texts: TextFiles, reading: Reading
) -> TokenizerSource:
    """The vocabulary of the run: learned or copied once, then read from the run folder."""
    path, size = folder / TOKENIZER, recipe.tokenizer.vocab_size
    if not path.exists():
        if recipe.tokenizer.file:
            content = _given(recipe)
        elif size == N_BYTES + 1:
            content = format_ranks([bytes([value]) for value in range(N_BYTES)])
        else:
            if next(texts.pieces(), None) is None:
                raise TrainingError(f"{', '.join(map(str, texts.paths[:3]))} holds no text")
            with reading("learning the vocabulary") as progress:
                content = train_tokenizer(_sample(texts, progress), size)
        # refuses what does not fit
        build_tokenizer(_source(content, size, recipe.tokenizer.file or str(path)))
        atomic_write(path, content)
    return _source(read_tokenizer_file(path), size, str(path))


def _given(recipe: Recipe) -> bytes:
    """The ranks of the vocabulary that the recipe names: a file or folder beside the recipe, or a
    known name.
    """
    beside = recipe.path.resolve().parent / recipe.tokenizer.file
    source = tokenizer_from(str(beside) if beside.exists() else recipe.tokenizer.file)
    if source.spec.kind != "gpt2":
        raise TokenizerError(
            f"{source.origin} is a tokenizer of the kind {source.spec.kind}; training wants bytes, "
            "the kind gpt2",
            hint="leave [tokenizer] file out to learn a vocabulary from the text",
        )
    if source.spec.end_token not in (None, source.spec.vocab_size - 1):
        raise TokenizerError(
            f"{source.origin} has its end token at {source.spec.end_token}; training wants it at "
            "the end, at "
            f"{source.spec.vocab_size - 1}",
            hint="leave [tokenizer] file out to learn a vocabulary from the text",
        )
    return source.content


def _source(content: bytes, size: int, origin: str) -> TokenizerSource:
    n_ranks = content.count(b"\n")
    if n_ranks != size - 1:
        raise TokenizerError(
            f"{origin} holds {n_ranks} tokens, {size - 1} were wanted",
            hint=f"set [tokenizer] vocab_size = {n_ranks + 1}: the end token comes on top",
        )
    spec = TokenizerSpec("gpt2", TOKENIZER, size, size - 1, ((END_OF_TEXT, size - 1),), "gpt2")
    return TokenizerSource(spec, content, origin)


def _sample(texts: TextFiles, progress: Callable[[int], None]) -> Iterator[str]:
    """The documents of `texts`; of more than LEARN_BYTES, the beginning of each file in proportion
    to its size.
    """
    sizes = [_size_and_time(path)[0] for path in texts.paths]
    share = LEARN_BYTES / max(1, sum(sizes))
    for path, size in zip(texts.paths, sizes, strict=True):
        room = max(1 << 20, share * size)
        for piece in dataclasses.replace(texts, paths=(path,)).pieces(progress):
            yield piece.text
            room -= len(piece.text.encode())
            if room <= 0:
                break
