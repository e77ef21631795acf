"""A bundle or a checkpoint, opened for the commands that take either.

A checkpoint runs in torch and needs the extra `export`; torch is imported only for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_edge.errors import require

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.config import GPTConfig
    from gpt_edge.evaluate import Scorer
    from gpt_edge.reference.model import GPT
    from gpt_edge.tokenizer import Tokenizer, TokenizerSource

CHECKPOINT_FILES = (".pt", ".pth", ".ckpt")
HUB = "hf://"  # a repository of the hub, which is downloaded
MODEL_HELP = "Bundle (folder or built-in name), or a checkpoint, which runs in torch."


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model and its tokenizer, None where it has none. `name` is the one for tables."""

    path: Path
    name: str
    model: Bundle | GPT
    tokenizer: Tokenizer | None

    @property
    def config(self) -> GPTConfig:
        """The shape of the model."""
        return self.model.config

    def scorer(self, threads: int | None = None, name: str | None = None) -> Scorer:
        """Return the model, ready to run with so many threads; each call returns another one.

        threads: None takes what the machine allows. name: None takes `self.name`. Raises
        BundleError for a graph that onnxruntime refuses, ValueError for threads outside 1 to 256.
        """
        from gpt_edge.bundle.bundle import Bundle

        name = name or self.name
        if isinstance(self.model, Bundle):
            from gpt_edge.evaluate import SessionScorer
            from gpt_edge.runtime.session import Session

            return SessionScorer(Session(self.model, threads=threads), name)
        from gpt_edge.reference.scoring import TorchScorer

        return TorchScorer(self.model, name, threads=threads)


def open_model(
    path_or_name: str, tokenizer: str | None = None, other: GPTConfig | None = None
) -> OpenModel:
    """Open a bundle or a checkpoint.

    A folder with a manifest or an ONNX file is a bundle; any other folder, or a .pt file, is a
    checkpoint. tokenizer: a file, a folder or a name in place of the model's own. other: of the
    model that it is compared with, which says what a nanoGPT checkpoint leaves open. Raises
    BundleError, CheckpointError, TokenizerError (also for one with more tokens than the embedding
    has rows), MissingDependencyError for a checkpoint without torch.
    """
    from gpt_edge.bundle.reader import resolve_bundle_path
    from gpt_edge.tokenizer import tokenizer_from

    source = tokenizer_from(tokenizer) if tokenizer else None
    if path_or_name.startswith(HUB):
        return _open_checkpoint(path_or_name, source, other)
    path = resolve_bundle_path(path_or_name)
    if _is_checkpoint(path):
        return _open_checkpoint(path, source, other)
    return _open_bundle(path, source)


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        has_graph = any(path.glob("*.onnx")) or (
            any(path.glob("onnx/*.onnx")) and not any(path.glob("*.safetensors"))
        )
        return not (path / "manifest.json").exists() and not has_graph
    return path.is_file() and path.suffix in CHECKPOINT_FILES


def _open_bundle(path: Path, source: TokenizerSource | None) -> OpenModel:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.verify.report import tokenizer_of

    bundle = Bundle.open(path)
    tokenizer = _build(source, bundle.config) if source else tokenizer_of(bundle)
    return OpenModel(path, bundle.manifest.name, bundle, tokenizer)


def _open_checkpoint(
    path: str | Path, source: TokenizerSource | None, other: GPTConfig | None
) -> OpenModel:
    require("gpt_edge.reference.scoring", "export")
    from gpt_edge.reference.importers import open_checkpoint
    from gpt_edge.reference.importers.nanogpt import like
    from gpt_edge.tokenizer import find_tokenizer

    checkpoint = open_checkpoint(path)
    if other is not None:
        checkpoint = like(checkpoint, other)
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    source = source or find_tokenizer(folder)
    tokenizer = _build(source, checkpoint.config) if source else None
    name = checkpoint.provenance.get("repository", checkpoint.path.name)
    return OpenModel(checkpoint.path, f"{name} in torch", checkpoint.load_model(), tokenizer)


def _build(source: TokenizerSource, config: GPTConfig) -> Tokenizer:
    from gpt_edge.tokenizer import build_tokenizer, check_fits, fit_to_rows

    check_fits(source.spec, config.vocab_size)
    return fit_to_rows(build_tokenizer(source), config.vocab_size)
