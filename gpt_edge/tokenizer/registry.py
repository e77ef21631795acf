"""The vocabulary that tiktoken knows by name, from its cache or, when that is empty, from the
network: `gpt2`.

tiktoken downloads without a time limit, so the network is tried first, with one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.hf_json import RANK_FILE, make_spec
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource

# What tiktoken's registry fetches for "gpt2", and the SHA-256 it checks. Source:
# tiktoken_ext/openai_public.py.
GPT2_FILES = {
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe": (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    ),
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json": (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    ),
}
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
HINT = (
    "give the file instead: --tokenizer FOLDER with vocab.json and merges.txt (or encoder.json and "
    "vocab.bpe), a "
    "tokenizer.json or a .tiktoken file; or set TIKTOKEN_CACHE_DIR to a filled tiktoken cache"
)


def source_from_registry() -> TokenizerSource:
    """Return tiktoken's `gpt2`: 50,257 tokens. Raises TokenizerError, soon, when that needs a
    network that is not there.
    """
    import requests
    import tiktoken

    try:
        if not is_cached():
            _try_network()
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError, requests.RequestException) as error:
        reason = str(error).strip().split("\n")[0]
        raise TokenizerError(
            f"tiktoken's cache does not hold 'gpt2', and fetching it failed: {reason:.200}",
            hint=HINT,
        ) from error
    end_token = encoding.eot_token
    content = format_ranks([encoding.decode_single_token_bytes(rank) for rank in range(end_token)])
    spec = make_spec("gpt2", RANK_FILE, end_token + 1, {END_OF_TEXT: end_token}, None, "gpt2")
    return TokenizerSource(spec, content, "tiktoken's gpt2")


def is_cached() -> bool:
    """Whether tiktoken will find both files, intact, in its cache: the rules of
    tiktoken/load.py.
    """
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":
        return False
    cache = Path(folder) if folder is not None else Path(tempfile.gettempdir()) / "data-gym-cache"
    for url, expected in GPT2_FILES.items():
        try:
            content = (cache / hashlib.sha1(url.encode()).hexdigest()).read_bytes()
        except OSError:
            return False
        if hashlib.sha256(content).hexdigest() != expected:
            return False
    return True


def _try_network() -> None:
    """Raise requests.RequestException unless the files can be reached, through a proxy too, within
    seconds.
    """
    import requests

    for url in GPT2_FILES:
        requests.head(url, timeout=(CONNECT_SECONDS, READ_SECONDS)).raise_for_status()
