"""A tiny bundle for fault tests: no graph that runs, only bytes whose place and hash matter."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import CHAT_TEMPLATE_FILE, Bundle, Manifest
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.config import GPTConfig
from gpt_edge.system.atomic_files import write_file
from tests.support.tiny_model import bundle_path

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=64, vocab_size=300)


def manifest(label: str = "one") -> Manifest:
    """A manifest without files; `label` tells bundles apart."""
    return Manifest(
        name="tiny",
        graph="edge",
        scheme="int8",
        config=CONFIG,
        provenance={"tool": "gpt-edge 0.1.0", "label": label},
        parity={"logits_max_difference": 1.5e-4, "greedy_agreement": 1.0},
    )


def payload(label: str, size: int = 3000) -> bytes:
    """`size` bytes that depend on `label`."""
    return (hashlib.sha256(label.encode()).digest() * (size // 32 + 1))[:size]


def write_tiny_bundle(
    out: Path, label: str = "one", *, force: bool = False, size: int = 3000
) -> Bundle:
    """Publish a bundle of two files at `out`."""
    with new_bundle(out, force=force) as writer:
        write_file(writer.path / "model.onnx", payload(label, size))
        write_file(writer.path / "tokenizer.tiktoken", payload(label + " tokenizer", size // 4))
        writer.finalize(manifest(label))
    return writer.bundle


def write_with_defaults(out: Path, defaults: GenerationDefaults) -> Bundle:
    """The tiny golden model, which runs, with generation defaults in its manifest."""
    return _write_golden(out, {}, generation_defaults=defaults)


def write_with_template(out: Path, template: str) -> Bundle:
    """The tiny golden model with a chat template."""
    return _write_golden(out, {CHAT_TEMPLATE_FILE: template.encode()})


def _write_golden(out: Path, files: dict[str, bytes], **changes: Any) -> Bundle:
    golden = Bundle.open(bundle_path())
    with new_bundle(out) as writer:
        for name in golden.manifest.files:
            shutil.copyfile(golden.path / name, writer.path / name)
        for name, content in files.items():
            (writer.path / name).write_bytes(content)
        writer.finalize(dataclasses.replace(golden.manifest, **changes))
    return writer.bundle


def label_of(out: Path) -> str:
    """Open `out`, hashing every file, and return the label of the bundle; its files must be that
    bundle's own.
    """
    bundle = Bundle.open(out)
    label = str(bundle.manifest.provenance["label"])
    size = bundle.manifest.files["model.onnx"]["size"]
    assert bundle.model_path.read_bytes() == payload(label, size)
    return label
