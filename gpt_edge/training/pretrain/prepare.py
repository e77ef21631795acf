"""A run's vocabulary and token shards, built from its text once: a resumed run finds them in its
folder.

`tokenizer.tiktoken` is the vocabulary, `tokens/` the shards, `tokens/source.json` names the text
and the settings that both were built from.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.errors import GPTEdgeWarning, TokenizerError, TrainingError
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error
from gpt_edge.tokenizer.discover import tokenizer_from
from gpt_edge.tokenizer.formats.rank_file import N_BYTES, format_ranks
from gpt_edge.tokenizer.load import build_tokenizer, read_tokenizer_file
from gpt_edge.tokenizer.spec import END_OF_TEXT, Tokenizer, TokenizerSource, TokenizerSpec
from gpt_edge.training.corpus.learn_tokenizer import train_tokenizer
from gpt_edge.training.corpus.shards import TokenShards, documents_of, is_tokenized, tokenize
from gpt_edge.training.corpus.text_files import TextFiles, find_texts
from gpt_edge.training.recipe import Recipe

TOKENIZER, TOKENS, SOURCE = "tokenizer.tiktoken", "tokens", "source.json"
# of the text that a vocabulary is learned from: the learner holds every distinct word in memory
LEARN_BYTES = 256 << 20
# shows a pass over the text, by its bytes
Reading = Callable[[str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """The text of a run as token shards, and its tokenizer."""

    tokenizer: TokenizerSource
    train: TokenShards
    valid: TokenShards
    encoder: Tokenizer

    def validation_documents(self) -> list[IntArray]:
        """The documents of the validation text, int64 `end, tokens, end`, in memory."""
        end = self.encoder.end_token
        assert end is not None
        return [document for shard in self.valid for document in documents_of(shard, end)]

    def n_bytes(self, documents: list[IntArray]) -> int:
        """The number of bytes of some documents' texts."""
        sizes = np.array(
            [len(self.encoder.token_bytes(id)) for id in range(self.encoder.vocab_size)]
        )
        sizes[self.encoder.end_token] = 0
        return int(sum(sizes[document].sum() for document in documents))


def prepare(recipe: Recipe, folder: Path, reading: Reading) -> PreparedCorpus:
    """Return the corpus of `recipe`, building in `folder` what is missing.

    Complete parts are used as they are. Incomplete ones are resumed if the texts are the same, else
    built again. Raises TrainingError for a text or vocabulary that cannot be used, OutputError when
    `folder` cannot be written.
    """
    tokens = folder / TOKENS
    if not all(is_tokenized(tokens, name) for name in ("train", "valid")):
        _forget_other_source(recipe, folder)
        train, valid = _cut_if_few(*_texts(recipe))
    else:
        train, valid = _texts(recipe)
    source = _vocabulary(recipe, folder, train, reading)
    encoder = build_tokenizer(source)
    shards = []
    for name, texts in (("train", train), ("valid", valid)):
        with reading(f"tokenizing {name}") as progress:
            shards.append(tokenize(tokens, name, texts, encoder, progress))
    return PreparedCorpus(source, shards[0], shards[1], encoder)


def is_prepared_file(name: str) -> bool:
    """Whether `prepare` writes a file of this name: a folder with nothing else holds no run yet."""
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


def _cut_if_few(train: TextFiles, valid: TextFiles) -> tuple[TextFiles, TextFiles]:
    """The texts, cut into parts where they are too few documents to hold one out, as a book is.
    Warns (GPTEdgeWarning) of it.
    """
    size = train.part_size() if train.held_out else 0
    if not size:
        return train, valid
    warnings.warn(
        f"{', '.join(map(str, train.paths[:3]))} holds fewer than {train.held_out} documents: each "
        f"is cut into parts of at most {size:,} characters, at blank lines where there are some",
        GPTEdgeWarning,
        stacklevel=2,
    )
    cut = [dataclasses.replace(texts, part_characters=size) for texts in (train, valid)]
    return cut[0], cut[1]


def _forget_other_source(recipe: Recipe, folder: Path) -> None:
    """Remove a vocabulary and shards of another text or recipe; record what the new ones are built
    from.
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
    except (OSError, ValueError, RecursionError):  # unreadable or corrupt: another source
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
        status = path.stat()
    except OSError as error:
        raise TrainingError(f"cannot read the text {path}: {error.strerror or error}") from error
    return status.st_size, status.st_mtime_ns


def _vocabulary(
    recipe: Recipe, folder: Path, texts: TextFiles, reading: Reading
) -> TokenizerSource:
    """The vocabulary of the run: learned or copied once, then read from the run folder."""
    path, size = folder / TOKENIZER, recipe.tokenizer.vocab_size
    if not path.exists():
        if recipe.tokenizer.file:
            content = _named_ranks(recipe)
        elif size == N_BYTES + 1:
            content = format_ranks([bytes([value]) for value in range(N_BYTES)])
        else:
            if next(texts.pieces(), None) is None:
                raise TrainingError(f"{', '.join(map(str, texts.paths[:3]))} holds no text")
            with reading("learning the vocabulary") as progress:
                content = train_tokenizer(_sample(texts, progress), size)
        # fails for content that does not fit
        build_tokenizer(_source(content, size, recipe.tokenizer.file or str(path)))
        atomic_write(path, content)
    return _source(read_tokenizer_file(path), size, str(path))


def _named_ranks(recipe: Recipe) -> bytes:
    """The ranks of the vocabulary that the recipe names: a file or folder beside the recipe, or a
    known name.
    """
    beside = recipe.path.resolve().parent / recipe.tokenizer.file
    source = tokenizer_from(str(beside) if beside.exists() else recipe.tokenizer.file)
    if source.spec.kind != "gpt2":
        raise TokenizerError(
            f"{source.origin} is a tokenizer of the kind {source.spec.kind}; training needs a "
            "byte-level one, the kind gpt2",
            hint="leave [tokenizer] file out to learn a vocabulary from the text",
        )
    plain = TokenizerSpec("gpt2", TOKENIZER, source.spec.vocab_size, pattern="gpt2")
    for name in ("pattern", "add_prefix_space", "prefix"):
        if (value := getattr(source.spec, name)) != getattr(plain, name):
            raise TokenizerError(
                f"{source.origin} has {name} {value!r:.60}, which training does not have",
                hint="leave [tokenizer] file out to learn a vocabulary from the text",
            )
    if source.spec.end_token not in (None, source.spec.vocab_size - 1):
        raise TokenizerError(
            f"{source.origin} has its end token at {source.spec.end_token}; training needs it at "
            f"the end, at {source.spec.vocab_size - 1}",
            hint="leave [tokenizer] file out to learn a vocabulary from the text",
        )
    return source.content


def _source(content: bytes, size: int, origin: str) -> TokenizerSource:
    n_ranks = content.count(b"\n")
    if n_ranks != size - 1:
        raise TokenizerError(
            f"{origin} holds {n_ranks} tokens, expected {size - 1}",
            hint=f"set [tokenizer] vocab_size = {n_ranks + 1}: the tokens and the end token",
        )
    spec = TokenizerSpec("gpt2", TOKENIZER, size, size - 1, ((END_OF_TEXT, size - 1),), "gpt2")
    return TokenizerSource(spec, content, origin)


def _sample(texts: TextFiles, progress: Callable[[int], None]) -> Iterator[str]:
    """The documents of `texts`; if they are more than LEARN_BYTES, the beginning of each file, in
    proportion to its size.
    """
    sizes = [_size_and_time(path)[0] for path in texts.paths]
    fraction = LEARN_BYTES / max(1, sum(sizes))
    for path, size in zip(texts.paths, sizes, strict=True):
        room = max(1 << 20, fraction * size)
        for piece in dataclasses.replace(texts, paths=(path,)).pieces(progress):
            yield piece.text
            room -= len(piece.text.encode())
            if room <= 0:
                break
