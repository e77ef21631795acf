"""Bundle: a folder with a model, its tokenizer and a manifest, opened and checked; `writer.py`
writes one. models/README.md describes the format.

Opening one reads the folder and nothing else: no pickle, no network, no file outside it. It is read
through a handle on the folder, so a bundle that is replaced meanwhile is read as the old one or the
new one, never as a mixture.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpt_edge.bundle.manifest import FORMAT_VERSION, MANIFEST_FILE, FileRecord, Manifest
from gpt_edge.bundle.optimum_folder import ONNX_FOLDER, SCHEME_OF
from gpt_edge.bundle.reader import (
    DEFAULT_BUNDLE,
    builtin_bundles,
    open_folder,
    read_manifest,
    resolve_bundle_path,
)
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, GPTEdgeError
from gpt_edge.system.disk import sha256_file
from gpt_edge.tasks import N_NEW_TOKENS, n_text_rows

if TYPE_CHECKING:
    from gpt_edge.tasks import TaskSpec
    from gpt_edge.tokenizer.spec import Tokenizer

__all__ = [
    "DEFAULT_BUNDLE",
    "FORMAT_VERSION",
    "Bundle",
    "FileRecord",
    "Manifest",
    "builtin_bundles",
    "read_bundle",
]

Result = TypeVar("Result")
CHAT_TEMPLATE_FILE = "chat_template.jinja"
MAX_CHAT_TEMPLATE_BYTES = 1 << 16
NO_CHECKSUM = "0" * 64
MAX_READS = 3  # of a bundle that is replaced each time it is read


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its path and its manifest."""

    path: Path
    manifest: Manifest
    is_optimum_export: bool = (
        False  # Optimum's folder: the manifest is derived, there are no checksums
    )

    @classmethod
    def open(
        cls, path_or_name: str | os.PathLike[str] | None = None, *, check: bool = True
    ) -> Bundle:
        """Open a bundle folder, or a built-in bundle by its name; None is the built-in default.

        A folder of that name in the current folder comes before a built-in bundle.
        check: hash every file (about a second per GB); without it only presence, kind and size are
        checked. Warns (UserWarning) of files that the manifest does not list. Raises BundleError
        naming what is wrong.
        """
        return read_bundle(path_or_name, lambda bundle: bundle, check=check)

    @classmethod
    def unpublished(cls, folder: Path, manifest: Manifest) -> Bundle:
        """A folder that is no bundle yet as one, so that its graph can be run and measured.

        manifest: its `files` are replaced by those in the folder, with their sizes and without
        checksums; such a bundle is never written.
        """
        files: dict[str, FileRecord] = {
            path.name: {"size": path.stat().st_size, "sha256": NO_CHECKSUM}
            for path in sorted(folder.iterdir())
            if path.is_file()
        }
        return cls(folder, dataclasses.replace(manifest, files=files))

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
        """How the weights are stored: a name in `schemes.SCHEMES`."""
        return self.manifest.scheme

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model; None for a language model."""
        return self.manifest.task

    @property
    def kind(self) -> str:
        """One of manifest.KINDS."""
        return self.manifest.kind

    @property
    def model_path(self) -> Path:
        """The ONNX file. Raises BundleError for an adapter, which has none."""
        if self.manifest.base is not None:
            raise BundleError(
                f"{self.path} is an adapter: it runs on its base {self.manifest.base['name']}",
                hint="open the base, with adapter= this folder",
                cli_hint="give the base, and this folder with --adapter",
            )
        name = next(name for name in SCHEME_OF if name in self.manifest.files)
        if self.is_optimum_export and not (self.path / name).exists():
            return self.path / ONNX_FOLDER / name
        return self.path / name

    @property
    def n_bytes(self) -> int:
        """Bytes of all listed files."""
        return sum(record["size"] for record in self.manifest.files.values())

    def weights_hash(self) -> str:
        """SHA-256, 64 lowercase hex digits, over the names and hashes of the graph and its weights.
        Reads the files where the manifest has no checksums. Raises BundleError if it cannot.
        """
        path = self.model_path
        digest = hashlib.sha256()
        for name, record in sorted(self.manifest.files.items()):
            if not name.startswith(path.name):
                continue
            known = record["sha256"]
            try:
                own = sha256_file(path.parent / name) if known in ("", NO_CHECKSUM) else known
            except OSError as error:
                raise BundleError(
                    f"{path.parent / name} cannot be read: {error.strerror or error}"
                ) from error
            digest.update(f"{name} {own}\n".encode())
        return digest.hexdigest()

    def read_chat_template(self) -> str | None:
        """The Jinja template that turns a chat into a prompt, as the checkpoint brought it; None
        for a model without one. It is untrusted text. Raises BundleError if it cannot be read.
        """
        if CHAT_TEMPLATE_FILE not in self.manifest.files:
            return None
        path = self.path / CHAT_TEMPLATE_FILE
        try:
            with path.open("rb") as file:
                content = file.read(MAX_CHAT_TEMPLATE_BYTES + 1)
            text = content.decode("utf-8")
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not UTF-8: {error}") from error
        if len(content) > MAX_CHAT_TEMPLATE_BYTES:
            raise BundleError(f"{path} has more than {MAX_CHAT_TEMPLATE_BYTES} bytes")
        return text

    def load_tokenizer(self) -> Tokenizer:
        """Return the bundle's tokenizer. Raises BundleError if it has none, TokenizerError if it is
        corrupt.
        """
        # Imported here: tiktoken is loaded only when text is needed.
        from gpt_edge.tokenizer.load import load_tokenizer
        from gpt_edge.tokenizer.rows import fit_to_rows
        from gpt_edge.tokenizer.spec import TokenizerSpec

        n_rows = n_text_rows(self.config.vocab_size, self.manifest.task)
        if self.config.takes_adapters:
            n_rows = self.config.vocab_size - N_NEW_TOKENS
        if self.manifest.tokenizer is not None:
            spec = TokenizerSpec.from_dict(self.manifest.tokenizer)
            if spec.file not in self.manifest.files:
                raise BundleError(
                    f"the tokenizer's file {spec.file} is not listed in {self.path / MANIFEST_FILE}"
                )
            return fit_to_rows(load_tokenizer(self.path, spec), n_rows)
        if self.is_optimum_export and (tokenizer := self._tokenizer_beside()) is not None:
            return fit_to_rows(tokenizer, n_rows)
        raise BundleError(
            f"{self.path} has no tokenizer: it takes and gives token ids only",
            hint="gpt-edge export with --tokenizer FILE makes one that reads and writes text",
        )

    def _tokenizer_beside(self) -> Tokenizer | None:
        # Imported here: it knows every form of tokenizer, which takes longer than to load one.
        from gpt_edge.tokenizer.discover import find_tokenizer
        from gpt_edge.tokenizer.load import build_tokenizer

        source = find_tokenizer(self.path)
        return None if source is None else build_tokenizer(source)


def read_bundle(
    path_or_name: str | os.PathLike[str] | None,
    use: Callable[[Bundle], Result],
    *,
    check: bool = True,
) -> Result:
    """Return what `use` makes of a bundle, which is opened as by `Bundle.open`; its large files are
    hashed meanwhile.

    `use` may be called again, for a bundle that was replaced while it was read. The error of a
    corrupt file replaces an error of `use`, which it may have caused.
    """
    path = resolve_bundle_path(path_or_name)
    for _ in range(MAX_READS):
        with open_folder(path) as folder:
            try:
                manifest, is_optimum_export, large_files = read_manifest(folder, check)
                try:
                    result = use(Bundle(path, manifest, is_optimum_export))
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
