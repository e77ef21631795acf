"""Where a tokenizer comes from: a checkpoint folder, a file, or a known name.

Whatever the form, the result is a TokenizerSource: the spec, and the one file that a bundle or
checkpoint stores. Files are recognized by their content; names only say where to look and which
two files belong together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.bpe_files import parse_merges
from gpt_edge.tokenizer.formats.gpt1_file import parse_gpt1_file
from gpt_edge.tokenizer.formats.hf_json import (
    GPT1_FILE,
    RANK_FILE,
    make_spec,
    source_from_json,
    source_from_merges,
)
from gpt_edge.tokenizer.formats.json_file import parse_json, parse_vocab
from gpt_edge.tokenizer.formats.rank_file import parse_ranks
from gpt_edge.tokenizer.load import read_tokenizer_file
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec

PAIRS = (
    ("vocab.json", "merges.txt"),  # Hugging Face
    ("encoder.json", "vocab.bpe"),  # OpenAI's GPT-2
    ("encoder_bpe_40000.json", "vocab_40000.bpe"),  # OpenAI's GPT-1
)
REGISTRY_NAMES = ("gpt2",)
EXPECTED = ", ".join([RANK_FILE, GPT1_FILE, *(f"{vocab} + {merges}" for vocab, merges in PAIRS)])


def find_tokenizer(folder: Path) -> TokenizerSource | None:
    """Return the tokenizer that a checkpoint folder carries, None when it carries none.

    Our own checkpoints say so in config.json ("tokenizer": a spec or null); elsewhere the first of
    a rank file, tokenizer.json and the vocabulary pairs counts. Raises TokenizerError for a file
    that is corrupt, half a pair, or of a kind that gpt-edge does not have.
    """
    folder = Path(folder)
    config = _read_object(folder / "config.json")
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
    return None


def tokenizer_from(name_or_path: str) -> TokenizerSource:
    """Return the tokenizer of a folder, a tokenizer file, or the name `gpt2` (tiktoken's own).

    A path that exists wins over the name. Raises TokenizerError when there is none, or as
    `find_tokenizer`.
    """
    path = Path(name_or_path)
    if path.is_dir():
        if (source := find_tokenizer(path)) is None:
            raise TokenizerError(f"{path} holds no tokenizer", hint=f"expected: {EXPECTED}")
        return source
    if path.is_file():
        return _source_from_file(path)
    if name_or_path in REGISTRY_NAMES:
        from gpt_edge.tokenizer.registry import source_from_registry

        return source_from_registry()
    raise TokenizerError(
        f"there is no tokenizer {name_or_path!r}: no such folder or file, and the known name is "
        f"{REGISTRY_NAMES[0]!r}",
        hint=f"give a folder or file: {EXPECTED}",
    )


def source_from_ranks(content: bytes, where: str = RANK_FILE) -> TokenizerSource:
    """Return the tokenizer of a rank file alone: `<|endoftext|>` comes after the last id and ends a
    text.

    This is what a freshly trained vocabulary is. Raises TokenizerError for a corrupt file or one
    with gaps.
    """
    n_tokens = len(parse_ranks(content, where).tokens)
    spec = make_spec("gpt2", RANK_FILE, n_tokens + 1, {END_OF_TEXT: n_tokens}, None, where)
    return _checked(TokenizerSource(spec, content, where))


def _checked(source: TokenizerSource) -> TokenizerSource:
    """Return `source`. Raises TokenizerError now, not after an export, unless each id of its spec
    has one token.
    """
    spec, content, where = source.spec, source.content, source.origin
    if spec.kind == "gpt1":
        parse_gpt1_file(content, spec, where)
    else:
        parse_ranks(content, where).by_id(dict(spec.special_tokens), spec.vocab_size, where)
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


def _source_from_file(path: Path) -> TokenizerSource:
    """Tell by its content what `path` is: a tokenizer.json, one of a pair, or a rank file."""
    for vocab, merges in PAIRS:
        if path.name in (vocab, merges):
            return _source_from_pair(path.parent / vocab, path.parent / merges)
    content = read_tokenizer_file(path)
    if not content.lstrip().startswith(b"{"):
        return source_from_ranks(content, str(path))
    document = parse_json(content, str(path))
    if "model" not in document:
        raise TokenizerError(
            f"{path} is a JSON file without a model, so not a tokenizer.json",
            hint=f"expected: {EXPECTED}",
        )
    return _checked(source_from_json(document, _end_token(path.parent), str(path)))


def _source_from_pair(vocab_path: Path, merges_path: Path) -> TokenizerSource:
    where, folder = str(vocab_path), vocab_path.parent
    vocab = parse_vocab(parse_json(read_tokenizer_file(vocab_path), where), where)
    try:
        text = read_tokenizer_file(merges_path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{merges_path} is not UTF-8: {error}") from error
    merges = parse_merges(text, str(merges_path))
    added_path = folder / "added_tokens.json"
    added = parse_vocab(_read_object(added_path), str(added_path)) if added_path.is_file() else {}
    return _checked(source_from_merges(vocab, merges, added, _end_token(folder), where))


def _end_token(folder: Path) -> str | int | None:
    """What the files beside a Hugging Face tokenizer call its end token: a text, or an id; None
    when they do not say.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        value: Any = _read_object(folder / name).get("eos_token")
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            return text
    id = _read_object(folder / "config.json").get("eos_token_id")
    return id if type(id) is int else None


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no such file."""
    return parse_json(read_tokenizer_file(path), str(path)) if path.is_file() else {}
