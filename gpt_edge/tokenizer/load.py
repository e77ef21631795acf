"""From a folder's file to a working Tokenizer. Never looks outside the folder and never at the
network.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.spec import Tokenizer, TokenizerSource, TokenizerSpec

MAX_FILE_BYTES = 16 << 20
# by kind: the module, imported only for that kind, and its class
CLASS_OF = {
    "gpt2": ("gpt2", "GPT2Tokenizer"),
    "gpt1": ("gpt1", "GPT1Tokenizer"),
    "characters": ("characters", "CharacterTokenizer"),
    "hf": ("hf_library", "LibraryTokenizer"),
    "sentencepiece": ("sentence_piece", "SentencePieceTokenizer"),
}


def load_tokenizer(folder: Path, spec: TokenizerSpec) -> Tokenizer:
    """Return the tokenizer that `spec` describes, from its file in `folder`.

    Raises TokenizerError when the file is missing, corrupt or another tokenizer's;
    MissingDependencyError for kind gpt1 without the `tokenizers` package.
    """
    path = Path(folder) / spec.file
    return build_tokenizer(TokenizerSource(spec, read_tokenizer_file(path), str(path)))


def build_tokenizer(source: TokenizerSource) -> Tokenizer:
    """Return the tokenizer of `source`; errors as `load_tokenizer`."""
    module, name = CLASS_OF[source.spec.kind]
    tokenizer_class = getattr(importlib.import_module(f"gpt_edge.tokenizer.{module}"), name)
    tokenizer: Tokenizer = tokenizer_class(source.spec, source.content, source.origin)
    return tokenizer


def read_tokenizer_file(path: Path) -> bytes:
    """Return the content of `path`. Raises TokenizerError when it cannot be read or is longer than
    16 MiB.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenizerError(
            f"cannot read the tokenizer file {path}: {error.strerror or error}"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise TokenizerError(
            f"{path} is longer than {MAX_FILE_BYTES >> 20} MiB: too long for a tokenizer file"
        )
    return content
