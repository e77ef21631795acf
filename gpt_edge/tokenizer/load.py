"""From a folder's file to a working Tokenizer. Never looks outside the folder and never at the
network.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.spec import Tokenizer, TokenizerSource, TokenizerSpec

MAX_FILE_BYTES = 16 << 20


def load_tokenizer(folder: Path, spec: TokenizerSpec) -> Tokenizer:
    """Return the tokenizer that `spec` describes, from its file in `folder`.

    Raises TokenizerError when the file is missing, corrupt or another tokenizer's;
    MissingDependencyError for kind gpt1 without the `tokenizers` package.
    """
    path = Path(folder) / spec.file
    return build_tokenizer(TokenizerSource(spec, read_tokenizer_file(path), str(path)))


def build_tokenizer(source: TokenizerSource) -> Tokenizer:
    """Return the tokenizer of `source`; errors as `load_tokenizer`."""
    if source.spec.kind == "gpt1":
        from gpt_edge.tokenizer.gpt1 import GPT1Tokenizer

        return GPT1Tokenizer(source.spec, source.content, source.origin)
    from gpt_edge.tokenizer.gpt2 import GPT2Tokenizer

    return GPT2Tokenizer(source.spec, source.content, source.origin)


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
