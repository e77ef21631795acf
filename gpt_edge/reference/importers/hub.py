"""`hf://OWNER/NAME[@REVISION]`: a repository of the Hugging Face hub as a folder in its cache.

Only such a name reaches the network, and nothing does where HF_HUB_OFFLINE is set: then the cache
answers alone. The files are those that importers and tokenizers read. Needs the extra `hub`; the
hub's address, token and cache are huggingface_hub's own settings.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.errors import CheckpointError, require
from gpt_edge.reference.importers.sources import printable

SCHEME = "hf://"
# Path("hf://a/b") is "hf:/a/b"
_NAME = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_SMALL = ("*.json", "*.txt", "*.bpe", "*.tiktoken", "*.model", "*.pkl")
_SAFETENSORS = ("model.safetensors", "model-*.safetensors", "adapter_model.safetensors")
_PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "adapter_model.bin", "*.pt", "*.ckpt")
_INDEX = "model.safetensors.index.json"
_HINT = "give it as hf://OWNER/NAME or hf://OWNER/NAME@REVISION"


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A downloaded repository. revision: the commit, 40 hexadecimal digits."""

    path: Path
    repository: str
    revision: str


def is_hub_name(source: str | os.PathLike[str]) -> bool:
    """Whether `source` names a repository of the hub."""
    return _plain(source).startswith("hf:/")


def _plain(source: str | os.PathLike[str]) -> str:
    """The name, of which Windows' Path turns the slashes."""
    return os.fspath(source).replace("\\", "/")


def fetch(source: str | os.PathLike[str]) -> HubFolder:
    """Download a repository's checkpoint, or find it in the cache.

    Raises CheckpointError for a name that is none, a repository or revision that is not there or
    not ours to read, and a network that fails; MissingDependencyError without the extra.
    """
    found = _NAME.fullmatch(_plain(source))
    if found is None:
        raise CheckpointError(f"{_plain(source)!a:.120} is no name of the hub", hint=_HINT)
    repository, revision = found[1], found[2]
    hub = require("huggingface_hub", "hub")
    errors = require("huggingface_hub.errors", "hub")
    is_offline = require("huggingface_hub.constants", "hub").HF_HUB_OFFLINE
    try:
        path = Path(_download(hub, repository, revision, is_offline))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"hf://{repository} is not in the hub's cache, and the hub cannot be reached",
            hint="unset HF_HUB_OFFLINE, or check the network and HF_ENDPOINT",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"hf://{repository} has no revision {revision!r}") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"hf://{repository} is gated: the hub wants to know who asks",
            hint="accept its terms on the hub, and set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no repository {repository}, or it is private",
            hint=f"{_HINT}; for a private one set HF_TOKEN",
        ) from error
    except (errors.HFValidationError, ValueError) as error:
        raise CheckpointError(f"hf://{repository}: {_first_line(error)}", hint=_HINT) from error
    except Exception as error:  # requests' or httpx' own, by the version of the hub's package
        raise _failure(repository, error) from error
    return HubFolder(path, repository, path.name)


def _download(hub: Any, repository: str, revision: str | None, is_offline: bool) -> str:
    """The path of the repository's snapshot; offline, of what the cache has of it."""
    if is_offline:
        path: str = hub.snapshot_download(repository, revision=revision, local_files_only=True)
        return path
    info = hub.HfApi().model_info(repository, revision=revision)
    names = [sibling.rfilename for sibling in info.siblings or []]
    has_safetensors = any(name in ("model.safetensors", _INDEX) for name in names)
    patterns = [*_SMALL, *_SAFETENSORS, *([] if has_safetensors else _PICKLES)]
    snapshot: str = hub.snapshot_download(
        repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
    )
    return snapshot


def _failure(repository: str, error: Exception) -> CheckpointError:
    """What a request died of: the network, where nothing answered, or the answer's status."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return CheckpointError(
            f"hf://{repository}: the hub cannot be reached ({type(error).__name__})",
            hint="check the network and HF_ENDPOINT; HF_HUB_OFFLINE=1 takes what the cache has",
        )
    refused = status in (401, 403)
    return CheckpointError(
        f"hf://{repository}: the hub answers {status}: {_first_line(error)}",
        hint="set HF_TOKEN to a token that may read it" if refused else "try again later",
    )


def _first_line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])
