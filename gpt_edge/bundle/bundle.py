"""Bundle: a folder with a model, its tokenizer and a manifest; opened, checked, and written.
models/README.md says how.

Opening one reads the folder and nothing else: no pickle, no network, no file outside it. It is read
through a handle on the folder, so a bundle that is replaced meanwhile is read as the old one or the
new one, never as a mixture.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpt_edge.bundle.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.bundle.optimum_folder import SCHEME_OF
from gpt_edge.bundle.reader import (
    DEFAULT_BUNDLE,
    SYSTEM_FILES,
    embedded_bundles,
    locate,
    open_folder,
    read_manifest,
)
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, GPTEdgeError, OutputError
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.system.disk import FolderReader, sha256_file

if TYPE_CHECKING:
    from gpt_edge.tasks import TaskSpec
    from gpt_edge.tokenizer.spec import Tokenizer

__all__ = [
    "DEFAULT_BUNDLE",
    "FORMAT_VERSION",
    "Bundle",
    "Draft",
    "FileRecord",
    "Manifest",
    "embedded_bundles",
    "is_bundle",
    "new_bundle",
    "read_bundle",
]

Result = TypeVar("Result")
MAX_READS = 3  # of a bundle that is replaced each time it is read


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: where it lies and what its manifest says."""

    path: Path
    manifest: Manifest
    is_foreign: bool = False  # Optimum's folder: the manifest is made up, there are no checksums

    @classmethod
    def open(
        cls, path_or_name: str | os.PathLike[str] | None = None, *, check: bool = True
    ) -> Bundle:
        """Open a bundle folder, or an embedded bundle by its name; None is the embedded default.

        A folder of that name in the current folder comes before an embedded bundle.
        check: hash every file (about a second per GB); without it only presence, kind and size are
        checked. Warns (UserWarning) of files that the manifest does not list. Raises BundleError
        naming what is wrong.
        """
        return read_bundle(path_or_name, lambda bundle: bundle, check=check)

    @property
    def config(self) -> GPTConfig:
        """Shape of the model."""
        return self.manifest.config

    @property
    def graph(self) -> str:
        """ "edge" or "portable"."""
        return self.manifest.graph

    @property
    def scheme(self) -> str:
        """How the weights are stored: one of onnx_contract.SCHEMES."""
        return self.manifest.scheme

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model; None for a language model."""
        return self.manifest.task

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / next(name for name in SCHEME_OF if name in self.manifest.files)

    @property
    def n_bytes(self) -> int:
        """Bytes of all listed files."""
        return sum(record["size"] for record in self.manifest.files.values())

    def load_tokenizer(self) -> Tokenizer:
        """Return the bundle's tokenizer. Raises BundleError if it has none, TokenizerError if it is
        damaged.
        """
        from gpt_edge.tokenizer.discover import find_tokenizer

        # tiktoken: only when text is wanted
        from gpt_edge.tokenizer.load import build_tokenizer, load_tokenizer
        from gpt_edge.tokenizer.spec import TokenizerSpec

        if self.manifest.tokenizer is not None:
            spec = TokenizerSpec.from_dict(self.manifest.tokenizer)
            if spec.file not in self.manifest.files:
                raise BundleError(
                    f"the tokenizer's file {spec.file} is not listed in {self.path / MANIFEST_FILE}"
                )
            return load_tokenizer(self.path, spec)
        if self.is_foreign and (source := find_tokenizer(self.path)) is not None:
            return build_tokenizer(source)
        raise BundleError(
            f"{self.path} has no tokenizer: it takes and gives token ids only",
            hint="export again with --tokenizer FILE to read and write text",
        )


def read_bundle(
    path_or_name: str | os.PathLike[str] | None,
    use: Callable[[Bundle], Result],
    *,
    check: bool = True,
) -> Result:
    """Return what `use` makes of a bundle, which is opened as by `Bundle.open`; its large files are
    hashed meanwhile.

    `use` may be called again, for a bundle that was replaced while it was read. An error of `use`
    gives way to that of a damaged file, which may have been its reason.
    """
    path = locate(path_or_name)
    for _ in range(MAX_READS):
        with open_folder(path) as folder:
            try:
                manifest, is_foreign, large_files = read_manifest(folder, check)
                try:
                    result = use(Bundle(path, manifest, is_foreign))
                except Exception:
                    if large_files is not None:
                        large_files.finish()
                    raise
                if large_files is not None:
                    large_files.finish()
            except GPTEdgeError:
                if folder.is_current():
                    raise
            else:
                if folder.is_current():
                    return result
    raise BundleError(
        f"{path} was replaced each time it was read",
        hint="wait for the exports to end, then try again",
    )


def is_bundle(folder: Path) -> bool:
    """True if `folder` may be replaced as a bundle: it has a manifest like ours and no file that
    the manifest omits.

    A bundle with a damaged model and one of a newer version count, so that --force repairs them.
    Raises OSError, and OutputError naming files that would be lost.
    """
    try:
        with FolderReader(folder) as reader, reader.open(MANIFEST_FILE) as stream:
            values = load_json_object(
                stream.read(MAX_MANIFEST_BYTES + 1), str(folder / MANIFEST_FILE)
            )
            names = reader.names()
    except (FileNotFoundError, ValueError, BundleError):
        return False
    files = values.get("files")
    if "format_version" not in values or not isinstance(files, dict):
        return False
    if extra := sorted(set(names) - set(files) - {MANIFEST_FILE} - SYSTEM_FILES):
        raise OutputError(
            f"{folder} holds files that are not the bundle's: {', '.join(extra)[:200]}",
            hint="move them away first, or choose another folder",
        )
    return True


class Draft:
    """A bundle in the making: fill `path` with files, then `seal` it; see `new_bundle`."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path  # the temporary folder
        self.target = target
        self._sealed: Manifest | None = None
        self._is_published = False
        # by name: the file's stat, its hash
        self._records: dict[str, tuple[tuple[int, ...], FileRecord]] = {}

    def seal(self, manifest: Manifest) -> Bundle:
        """Hash the files as they lie on the disk and write manifest.json last; may be called again
        with more figures.

        manifest: its `files` are replaced by what is found; a file that did not change is not
        hashed twice. Returns the bundle in the temporary folder, for verification. Raises
        ValueError for a manifest or a file that the format does not allow.
        """
        files = {name: self._record(name) for name in self._names()}
        sealed = dataclasses.replace(manifest, files=files)
        data = sealed.to_json()
        (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        write_file(self.path / MANIFEST_FILE, data)
        self._sealed = sealed
        return Bundle(self.path, sealed)

    @property
    def is_sealed(self) -> bool:
        """True once `seal` has been called."""
        return self._sealed is not None

    @property
    def bundle(self) -> Bundle:
        """The published bundle, after the with-block. Raises RuntimeError if nothing was
        published.
        """
        if self._sealed is None or not self._is_published:
            raise RuntimeError(f"{self.target} was not published")
        return Bundle(self.target, self._sealed)

    def _names(self) -> list[str]:
        names = []
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            if entry.name == MANIFEST_FILE:
                continue
            if not FILE_NAME.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                raise ValueError(
                    f"a bundle holds only files with plain names, found {entry.name!r}"
                )
            names.append(entry.name)
        return names

    def _record(self, name: str) -> FileRecord:
        found = self._signature(name)
        known = self._records.get(name)
        if known is None or known[0] != found:
            known = (found, {"size": found[0], "sha256": sha256_file(self.path / name)})
            self._records[name] = known
        return known[1]

    def _signature(self, name: str) -> tuple[int, ...]:
        status = os.stat(self.path / name)
        return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def check(self) -> None:
        """Raise OutputError unless the folder is as it was sealed, re-read from the disk."""
        if self._sealed is None:
            raise OutputError(f"{self.target} was never sealed")
        written = (self.path / MANIFEST_FILE).read_bytes()
        if written != self._sealed.to_json() or self._names() != sorted(self._sealed.files):
            raise OutputError(
                f"{self.path} changed after the bundle was sealed: nothing is published"
            )
        for name, record in self._sealed.files.items():
            if self._record(name) != record:
                raise OutputError(
                    f"{self.path / name} changed after the bundle was sealed: nothing is published"
                )


class _Abandoned(Exception):
    """The block ended without a seal: publish nothing."""


@contextmanager
def new_bundle(
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    source: Path | None = None,
    n_bytes: int = 0,
) -> Iterator[Draft]:
    """Yield a Draft; when the block ends well, its last sealed state is published at `out` by one
    rename.

    force: replace a bundle (nothing else) that is there. source: what is being read, which must not
    overlap `out`.
    n_bytes: expected size, checked against the free space before the work; 0 if unknown.
    A block that ends without a seal publishes nothing. Raises OutputError; see
    files.publish_folder.
    """
    target = Path(out)
    draft: Draft | None = None
    try:
        with publish_folder(
            target, force=force, is_ours=is_bundle, source=source, n_bytes=n_bytes
        ) as folder:
            draft = Draft(folder, target)
            yield draft
            if not draft.is_sealed:
                raise _Abandoned
            draft.check()
    except _Abandoned:
        return
    if draft is not None:
        draft._is_published = True
