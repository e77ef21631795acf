"""Finding a bundle, reading its manifest and checking its files; what `Bundle.open` is made of.
Writes nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gpt_edge.bundle.manifest import (
    FILE_NAME,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SIGNATURE_FILE,
    FileRecord,
    Manifest,
)
from gpt_edge.bundle.optimum_folder import SCHEME_OF, describe, optimum_manifest
from gpt_edge.errors import BundleError, GPTEdgeWarning
from gpt_edge.system.atomic_files import find_set_aside
from gpt_edge.system.disk import FolderReader, sha256_stream

DEFAULT_BUNDLE = "tinystories-7m-int8"
RENAMED = {"tinystories-5m-int8": DEFAULT_BUNDLE}  # what came with gpt-edge before, and its heir
BUILTIN = Path(__file__).parents[1] / "models"  # a link to ../models in a checkout
# made by file managers wherever they look
SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
LARGE = 1 << 22  # bytes: 4 ms of hashing
# what may lie in a bundle's folder and is not in its manifest
BESIDE = SYSTEM_FILES | {MANIFEST_FILE, SIGNATURE_FILE}
COPY_HINT = "copy the bundle again, or rebuild it with gpt-edge export"


def builtin_bundles() -> tuple[str, ...]:
    """Names of the bundles that came with gpt-edge, sorted."""
    return tuple(sorted(path.parent.name for path in BUILTIN.glob(f"*/{MANIFEST_FILE}")))


def resolve_bundle_path(path_or_name: str | os.PathLike[str] | None) -> Path:
    """Return the folder that a name or path means; see Bundle.open. Warns (GPTEdgeWarning) of a
    built-in name of before. Raises BundleError if it cannot mean any.
    """
    if path_or_name is None:
        if not (BUILTIN / DEFAULT_BUNDLE).is_dir():
            raise _no_builtin()
        return BUILTIN / DEFAULT_BUNDLE
    if not isinstance(path_or_name, str | os.PathLike):
        raise ValueError(f"a bundle must be a path or a name, got {type(path_or_name).__name__}")
    name = os.fspath(path_or_name)
    if not name or "\0" in name:
        raise BundleError(
            f"{name!r} is not the name of a bundle",
            hint="give a bundle folder",
            cli_hint="give a bundle folder with -m",
        )
    path = Path(name)
    plain = name.rstrip("/")  # a shell's completion may have put it there
    if os.path.lexists(path) or not FILE_NAME.fullmatch(plain):
        return path
    builtin = builtin_bundles()
    if plain in RENAMED and plain not in builtin:
        warnings.warn(renamed_note(plain), GPTEdgeWarning, stacklevel=_callers_stacklevel())
        plain = RENAMED[plain]
    return BUILTIN / plain if plain in builtin else path


def renamed_note(name: str) -> str:
    """One line that says which bundle a built-in name of before means now."""
    return f"{name} is no longer built in: {RENAMED[name]}, a better model, takes its place"


def _no_builtin() -> BundleError:
    """The error of an installation, or of a frozen program, that lacks the built-in models."""
    if getattr(sys, "frozen", False):
        return BundleError(
            "this program was packed without gpt-edge's data: "
            f"{BUILTIN / DEFAULT_BUNDLE} is missing",
            hint="PyInstaller packs it with gpt-edge's own hook, or with --collect-data gpt_edge; "
            "or give the folder of a bundle",
        )
    return BundleError(
        f"the built-in bundle {DEFAULT_BUNDLE} is missing from this installation",
        hint="install gpt-edge again, or give a bundle folder",
        cli_hint="install gpt-edge again, or give a bundle folder with -m",
    )


def open_folder(path: Path) -> FolderReader:
    """Hold the folder open. Raises BundleError saying what is at `path` instead."""
    try:
        return FolderReader(path)
    except FileNotFoundError as error:
        if (aside := find_set_aside(path)) is not None:
            raise BundleError(
                f"{path} is missing: a replacement was cut short", hint=f"mv {aside} {path}"
            ) from error
        if str(path).startswith("hf:"):  # of Path("hf://OWNER/NAME") one slash is left
            name = "hf://" + str(path)[3:].replace("\\", "/").lstrip("/")
            raise BundleError(
                f"{name} names a repository of the hub, not a bundle",
                hint=f"gpt-edge export {name} OUT, then use OUT",
            ) from error
        names = ", ".join(builtin_bundles()) or "none"
        raise BundleError(
            f"{path} is not there", hint=f"give a bundle folder; built-in bundles: {names}"
        ) from error
    except NotADirectoryError as error:
        what = "a file" if path.is_file() else "not a folder"
        hint = (
            f"give its folder: {path.parent}"
            if path.name in (MANIFEST_FILE, *SCHEME_OF)
            else "give a bundle folder"
        )
        raise BundleError(f"{path} is {what}, a bundle is a folder", hint=hint) from error
    except OSError as error:
        raise BundleError(
            f"{path} cannot be opened: {error.strerror}", hint="check its permissions"
        ) from error


def read_manifest(folder: FolderReader, check: bool) -> tuple[Manifest, bool, LargeFiles | None]:
    """Return the manifest, whether it was derived from an Optimum export, and what is still
    being checked.

    check: hash every file, the small ones before this returns. Raises BundleError.
    """
    with _errors_as_bundle_error(folder):
        if MANIFEST_FILE in folder.names():
            manifest = _read_own(folder, check)
            return manifest, False, LargeFiles(folder, manifest) if check else None
        if (derived := optimum_manifest(folder)) is not None:
            return derived, True, None
    raise describe(folder)


class LargeFiles(threading.Thread):
    """Hashes a bundle's large files while they are loaded; what is loaded must not be used before
    `finish`.
    """

    def __init__(self, folder: FolderReader, manifest: Manifest) -> None:
        super().__init__(name="gpt-edge-hash", daemon=True)
        self._folder = folder
        self._files = {
            name: record for name, record in manifest.files.items() if record["size"] >= LARGE
        }
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Hash them one after the other; an error waits for `finish`."""
        try:
            with _errors_as_bundle_error(self._folder):
                for name, record in self._files.items():
                    _check_file(self._folder, name, record, check=True)
        except Exception as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the last hash. Raises BundleError naming a file that is not as the manifest
        says.
        """
        self.join()
        if self._error is not None:
            raise self._error


@contextmanager
def _errors_as_bundle_error(folder: FolderReader) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"{folder.path} cannot be read: {error.strerror or error}", hint="check its disk"
        ) from error
    except ValueError as error:  # a link, a pipe or a folder where a file belongs
        raise BundleError(f"{error}", hint=COPY_HINT) from error


def _read_own(folder: FolderReader, check: bool) -> Manifest:
    with folder.open(MANIFEST_FILE) as stream:
        data = stream.read(MAX_MANIFEST_BYTES + 1)
    manifest = Manifest.from_json(data, str(folder.path / MANIFEST_FILE))
    for name, record in manifest.files.items():
        _check_file(folder, name, record, check and record["size"] < LARGE)
    if extra := sorted(set(folder.names()) - set(manifest.files) - BESIDE):
        names = ", ".join(map(ascii, extra))[:200]
        warnings.warn(
            f"{folder.path} holds files that its manifest does not list: {names}",
            GPTEdgeWarning,
            stacklevel=_callers_stacklevel(),
        )
    return manifest


def _callers_stacklevel() -> int:
    """The stacklevel with which a warning points at the line that called gpt-edge, however many of
    its functions lie between.

    Counted by the modules' names: Python 3.11 has no skip_file_prefixes, and the folder of
    gpt_edge.export may lie beside the package's.
    """
    frame = sys._getframe(1)
    level = 1
    while frame.f_back is not None and _is_gpt_edge(frame):
        frame = frame.f_back
        level += 1
    return level


def _is_gpt_edge(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "gpt_edge"


def _check_file(folder: FolderReader, name: str, record: FileRecord, check: bool) -> None:
    path = folder.path / name
    try:
        with folder.open(name) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size != record["size"]:
                raise BundleError(
                    f"{path} has {size} bytes, the manifest says {record['size']}", hint=COPY_HINT
                )
            stream.seek(0)
            if check and (found := sha256_stream(stream)) != record["sha256"]:
                raise BundleError(
                    f"{path} is corrupt: its SHA-256 is {found[:12]}, the manifest says "
                    f"{record['sha256'][:12]}",
                    hint=COPY_HINT,
                )
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing, the manifest lists it", hint=COPY_HINT) from error
