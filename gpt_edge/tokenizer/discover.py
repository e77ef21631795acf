"""Where a tokenizer comes from: a checkpoint folder, a file, or a known name.

Whatever the form, the result is a TokenizerSource: the spec, and the one file that a bundle or
checkpoint stores. Files are recognized by their content; names only say where to look and which
two files belong together.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_edge.errors import GPTEdgeWarning, MissingDependencyError, TokenizerError
from gpt_edge.tokenizer.formats.bpe_files import parse_merges
from gpt_edge.tokenizer.formats.character_file import is_pickle, source_from_meta
from gpt_edge.tokenizer.formats.gpt1_file import parse_gpt1_file
from gpt_edge.tokenizer.formats.hf_classes import (
    check_word_piece,
    settings_of_pair,
    with_normalizer_of_bert,
)
from gpt_edge.tokenizer.formats.hf_json import (
    GPT1_FILE,
    RANK_FILE,
    UnsupportedTokenizer,
    make_spec,
    source_from_json,
    source_from_merges,
)
from gpt_edge.tokenizer.formats.hf_settings import (
    FolderSettings,
    read_folder_settings,
    read_object,
)
from gpt_edge.tokenizer.formats.json_file import parse_json, parse_vocab
from gpt_edge.tokenizer.formats.known_ranks import (
    check_pattern_of_ranks,
    known_rank_file,
    source_of_known,
)
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.formats.sentence_piece_file import FILES as SENTENCE_PIECE_FILES
from gpt_edge.tokenizer.formats.sentence_piece_file import (
    is_sentence_piece,
    source_from_sentence_piece,
)
from gpt_edge.tokenizer.formats.word_piece import FILE as VOCAB_TXT
from gpt_edge.tokenizer.formats.word_piece import word_piece_document
from gpt_edge.tokenizer.load import build_tokenizer, read_tokenizer_file
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec

PAIRS = (
    ("vocab.json", "merges.txt"),  # Hugging Face
    ("encoder.json", "vocab.bpe"),  # OpenAI's GPT-2
    ("encoder_bpe_40000.json", "vocab_40000.bpe"),  # OpenAI's GPT-1
)
META_FILE = "meta.pkl"  # nanoGPT's list of characters
REGISTRY_NAMES = ("gpt2",)
EXPECTED = ", ".join(
    [
        RANK_FILE,
        GPT1_FILE,
        *(f"{vocab} + {merges}" for vocab, merges in PAIRS),
        VOCAB_TXT,
        SENTENCE_PIECE_FILES[0],
        META_FILE,
    ]
)


def find_tokenizer(folder: Path) -> TokenizerSource | None:
    """Return the tokenizer that a checkpoint folder carries, None when it carries none.

    Our own checkpoints say so in config.json ("tokenizer": a spec or null); elsewhere the first of
    a rank file, tokenizer.json and the vocabulary pairs counts. Raises TokenizerError for a file
    that is corrupt, half a pair, or of a kind that gpt-edge does not have.
    """
    folder = Path(folder)
    config = read_object(folder / "config.json")
    if "tokenizer" in config:
        return _own_source(folder, config["tokenizer"])
    for name in (RANK_FILE, GPT1_FILE):
        if (folder / name).is_file():
            return _source_from_file(folder / name)
    for vocab, merges in PAIRS:
        present = [name for name in (vocab, merges) if (folder / name).is_file()]
        if len(present) == 2:
            return _source_from_pair(folder / vocab, folder / merges)
        if present:
            missing = merges if present == [vocab] else vocab
            raise TokenizerError(
                f"{folder} holds {present[0]} but not {missing}; the two are one tokenizer"
            )
    for name in (VOCAB_TXT, *SENTENCE_PIECE_FILES, META_FILE):
        if (folder / name).is_file():
            return _source_from_file(folder / name)
    return None


def tokenizer_from(name_or_path: str, pattern: str | None = None) -> TokenizerSource:
    """Return the tokenizer of a folder, a tokenizer file, or the name `gpt2` (tiktoken's own).

    A path that exists wins over the name. pattern: how the vocabulary of a rank file splits text,
    where that is not known: a name of `patterns.PATTERNS` or a regular expression. Raises
    TokenizerError when there is none, or as `find_tokenizer`.
    """
    path = Path(name_or_path)
    if pattern is not None and not path.is_file():
        raise TokenizerError(
            f"a split pattern belongs to a rank file, {name_or_path!r} is none",
            hint="give the file: --tokenizer FILE --pattern NAME",
        )
    if path.is_dir():
        if (source := find_tokenizer(path)) is None:
            raise TokenizerError(f"{path} holds no tokenizer", hint=f"expected: {EXPECTED}")
        return source
    if path.is_file():
        return _source_from_file(path, pattern)
    if name_or_path in REGISTRY_NAMES:
        from gpt_edge.tokenizer.registry import source_from_registry

        return source_from_registry()
    raise TokenizerError(
        f"there is no tokenizer {name_or_path!r}: no such folder or file, and the known name is "
        f"{REGISTRY_NAMES[0]!r}",
        hint=f"give a folder or file: {EXPECTED}",
    )


def source_from_ranks(
    content: bytes, where: str = RANK_FILE, pattern: str | None = None
) -> TokenizerSource:
    """Return the tokenizer of a rank file alone.

    One of tiktoken's own is known by its hash, with its split pattern and special tokens. Else
    `<|endoftext|>` comes after the last id and ends a text, and the pattern is GPT-2's: this is
    what a freshly trained vocabulary is. pattern: the name or the expression of another one. Raises
    TokenizerError for a corrupt file, one with gaps, and one whose tokens its pattern cannot make.
    """
    if (known := known_rank_file(content)) is not None:
        return _checked(source_of_known(known, content, where, pattern))
    n_tokens = len(parse_ranks(content, where).tokens)
    spec = make_spec("gpt2", RANK_FILE, n_tokens + 1, {END_OF_TEXT: n_tokens}, None, where)
    try:
        spec = dataclasses.replace(spec, pattern=pattern or "gpt2")
    except ValueError as error:
        raise TokenizerError(f"{where}: {error}") from error
    source = _checked(TokenizerSource(spec, content, where))
    check_pattern_of_ranks(source)
    return source


def _checked(source: TokenizerSource) -> TokenizerSource:
    """Return `source`. Raises TokenizerError now, not after an export, unless each id of its spec
    has one token.
    """
    spec, content, where = source.spec, source.content, source.origin
    if spec.kind == "gpt2":
        parse_ranks(content, where).by_id(dict(spec.special_tokens), spec.vocab_size, where)
    elif spec.kind == "gpt1":
        parse_gpt1_file(content, spec, where)
    else:
        build_tokenizer(source)
    return source


def _own_source(folder: Path, value: object) -> TokenizerSource | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TokenizerError(
            f'{folder / "config.json"}: "tokenizer" must be an object or null, got '
            f"{type(value).__name__}"
        )
    spec = TokenizerSpec.from_dict(value)
    return _checked(
        TokenizerSource(spec, read_tokenizer_file(folder / spec.file), str(folder / spec.file))
    )


def _source_from_file(path: Path, pattern: str | None = None) -> TokenizerSource:
    """Tell by its content what `path` is: a tokenizer.json, one of a pair, or a rank file."""
    for vocab, merges in PAIRS:
        if path.name in (vocab, merges):
            return _source_from_pair(path.parent / vocab, path.parent / merges)
    if path.name == VOCAB_TXT:
        return _source_from_vocab_txt(path)
    if is_sentence_piece(path):
        return _source_from_sentence_piece(path)
    content = read_tokenizer_file(path)
    if is_pickle(content):
        return _checked(source_from_meta(content, str(path)))
    if not content.lstrip().startswith(b"{"):
        return source_from_ranks(content, str(path), pattern)
    document = parse_json(content, str(path))
    if "model" not in document:
        raise TokenizerError(
            f"{path} is a JSON file without a model, so not a tokenizer.json",
            hint=f"expected: {EXPECTED}",
        )
    settings = read_folder_settings(path.parent)
    document = with_normalizer_of_bert(document, settings)
    source = _checked(_source_from_document(document, settings, str(path)))
    _warn_of_doubt(source, document, settings, path)
    return source


def _warn_of_doubt(
    source: TokenizerSource, document: Mapping[str, Any], settings: FolderSettings, path: Path
) -> None:
    """Say what was decided where a tokenizer.json and what is beside it disagree."""
    if settings.add_bos_token and not source.spec.prefix:
        warnings.warn(
            f"{settings.where} sets add_bos_token, but the post_processor of {path.name} adds no "
            "token: as in transformers, it counts",
            GPTEdgeWarning,
            stacklevel=3,
        )
    splitter = document.get("pre_tokenizer")
    adds_space = isinstance(splitter, dict) and splitter.get("add_prefix_space") is True
    is_model = "model_type" in read_object(path.parent / "config.json")
    if adds_space and settings.add_prefix_space is None and is_model:
        warnings.warn(
            f"{path.name} puts a space before every text, which is done; AutoTokenizer of "
            'transformers 4 does so only where tokenizer_config.json holds {"add_prefix_space": '
            "true}, and with false there it is not done here either",
            GPTEdgeWarning,
            stacklevel=3,
        )


def _source_from_document(
    document: Mapping[str, Any], settings: FolderSettings, where: str
) -> TokenizerSource:
    """A tokenizer.json of a kind that gpt-edge has, or else one for the `tokenizers` library."""
    try:
        return source_from_json(document, settings, where)
    except UnsupportedTokenizer as error:
        from gpt_edge.tokenizer.formats.hf_any import source_from_any_json

        try:
            return source_from_any_json(document, settings, where)
        except MissingDependencyError as missing:
            raise TokenizerError(
                f"{error.message}; the package 'tokenizers' runs such a file", hint=missing.hint
            ) from error
        except TokenizerError as refusal:
            reason = refusal.message.removeprefix(f"{where} ").removeprefix(f"{where}: ")
            raise TokenizerError(
                f"{error.message}, and it {reason}", hint=refusal.hint or error.hint
            ) from error


def _source_from_vocab_txt(path: Path) -> TokenizerSource:
    settings = read_folder_settings(path.parent)
    check_word_piece(settings)
    document = word_piece_document(read_tokenizer_file(path), settings.values, str(path))
    return _checked(_source_from_document(document, settings, str(path)))


def _source_from_sentence_piece(path: Path) -> TokenizerSource:
    settings = read_folder_settings(path.parent)
    content = read_tokenizer_file(path)
    try:
        return _checked(source_from_sentence_piece(content, settings, str(path)))
    except MissingDependencyError as error:
        raise TokenizerError(
            f"{path} is a SentencePiece vocabulary; the package 'sentencepiece' runs it",
            hint=error.hint,
        ) from error


def _source_from_pair(vocab_path: Path, merges_path: Path) -> TokenizerSource:
    where = str(vocab_path)
    vocab = parse_vocab(parse_json(read_tokenizer_file(vocab_path), where), where)
    try:
        text = read_tokenizer_file(merges_path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{merges_path} is not UTF-8: {error}") from error
    merges = parse_merges(text, str(merges_path))
    settings = read_folder_settings(vocab_path.parent)
    settings.refuse_unsupported()
    settings, before = settings_of_pair(settings)
    if settings.add_bos_token and not before:
        before = (settings.roles.get("bos_token", END_OF_TEXT),)
    return _checked(
        source_from_merges(
            vocab,
            merges,
            settings.added,
            settings,
            where,
            before=before,
            add_prefix_space=bool(settings.add_prefix_space),
            is_explicit=settings.is_explicit,
        )
    )
