"""Writing a bundle: a BundleWriter collects the files of one in a temporary folder, and one rename
publishes it.

Killed at any moment, the target holds the old bundle or the new one, never a mixture.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import (
    FILE_NAME,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SIGNATURE_FILE,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.bundle.reader import BESIDE
from gpt_edge.errors import BundleError, GPTEdgeWarning, OutputError
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.system.disk import FolderReader, sha256_file


def is_bundle(folder: Path) -> bool:
    """True if `folder` may be replaced as a bundle: it has a manifest like ours and no file that
    the manifest omits.

    A bundle with a corrupt model and one of a newer version count, so that --force repairs them.
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
    if extra := sorted(set(names) - set(files) - BESIDE):
        raise OutputError(
            f"{folder} holds files that are not the bundle's: {', '.join(extra)[:200]}",
            hint="move them away first, or choose another folder",
        )
    return True


class BundleWriter:
    """A bundle in the making: fill `path` with files, then `finalize` it; see `new_bundle`."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path  # the temporary folder
        self.target = target
        self._finalized: Manifest | None = None
        self._is_published = False
        # by name: the file's stat, its hash
        self._records: dict[str, tuple[tuple[int, ...], FileRecord]] = {}

    def finalize(self, manifest: Manifest) -> Bundle:
        """Hash the files as they lie on the disk and write manifest.json last; may be called again
        with more figures.

        manifest: its `files` are replaced by what is found; a file that did not change is not
        hashed twice. Returns the bundle in the temporary folder, for verification. Raises
        ValueError for a manifest or a file that the format does not allow.
        """
        files = {name: self._record(name) for name in self._names()}
        finalized = dataclasses.replace(manifest, files=files)
        data = finalized.to_json()
        (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        write_file(self.path / MANIFEST_FILE, data)
        self._finalized = finalized
        return Bundle(self.path, finalized)

    @property
    def is_finalized(self) -> bool:
        """True once `finalize` has been called."""
        return self._finalized is not None

    @property
    def bundle(self) -> Bundle:
        """The published bundle, after the with-block. Raises RuntimeError if nothing was
        published.
        """
        if self._finalized is None or not self._is_published:
            raise RuntimeError(f"{self.target} was not published")
        return Bundle(self.target, self._finalized)

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
        """Raise OutputError unless the folder is as it was finalized, re-read from the disk."""
        if self._finalized is None:
            raise OutputError(f"{self.target} was never finalized")
        written = (self.path / MANIFEST_FILE).read_bytes()
        if written != self._finalized.to_json() or self._names() != sorted(self._finalized.files):
            raise OutputError(
                f"{self.path} changed after the bundle was finalized: nothing is published"
            )
        for name, record in self._finalized.files.items():
            if self._record(name) != record:
                raise OutputError(
                    f"{self.path / name} changed after the bundle was finalized: nothing is "
                    "published"
                )


class _Abandoned(Exception):
    """The block ended without a finalize: publish nothing."""


@contextmanager
def new_bundle(
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    source: Path | None = None,
    n_bytes: int = 0,
) -> Iterator[BundleWriter]:
    """Yield a BundleWriter; when the block ends well, its last finalized state is published at
    `out` by one rename.

    force: replace a bundle (nothing else) that is there. source: what is being read, which must not
    overlap `out`.
    n_bytes: expected size, checked against the free space before the work; 0 if unknown.
    A block that ends without a finalize publishes nothing. Raises OutputError; see
    files.publish_folder.
    """
    target = Path(out)
    writer: BundleWriter | None = None
    try:
        with publish_folder(
            target, force=force, is_ours=is_bundle, source=source, n_bytes=n_bytes
        ) as folder:
            writer = BundleWriter(folder, target)
            yield writer
            if not writer.is_finalized:
                raise _Abandoned
            writer.check()
    except _Abandoned:
        return
    if writer is not None:
        writer._is_published = True


def with_manifest(
    bundle: Bundle, manifest: Manifest, out: Path | None = None, *, force: bool = False
) -> Bundle:
    """A bundle of the same files under another manifest: at `out`, or, None, in its own place.

    Written as every bundle is: a reader finds the old one or the new one. force: replace a bundle
    at `out`. Raises BundleError for a file that is not as the manifest says, OutputError as
    `new_bundle`.
    """
    target = bundle.path if out is None else out
    if out is None and (bundle.path / SIGNATURE_FILE).exists():
        text = f"{bundle.path} was signed, and what replaces it is not: sign it again"
        warnings.warn(text, GPTEdgeWarning, stacklevel=2)
    source = None if out is None else bundle.path
    with new_bundle(
        target, force=force or out is None, source=source, n_bytes=bundle.n_bytes
    ) as writer:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, writer.path / name)
        made = writer.finalize(manifest)
        for name, record in made.manifest.files.items():
            if record != bundle.manifest.files[name]:
                raise BundleError(f"{bundle.path / name} changed while it was read")
    return writer.bundle
