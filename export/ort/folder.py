"""`export --to ort`: a model in onnxruntime's own format for phones and minimal builds, and the
list of operators that such a build needs.

A minimal build of onnxruntime reads no .onnx file: it has no protobuf and no optimizer. The graph
is optimized here, with onnxruntime's operators alone; custom operators stay out. The folder is
published only if the file, opened again, computes what the bundle computes.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.bundle.manifest import format_manifest
from gpt_edge.bundle.writer import is_bundle
from gpt_edge.errors import ExportError, ParityError, require
from gpt_edge.export.ort.unsigned import store_unsigned
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.runtime.ort_session import ORT_ERRORS, SILENT, cause_of, start_session
from gpt_edge.schemes import FP32, INT8
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.system.disk import sha256_file
from gpt_edge.verify.language_models import Outputs
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of
from gpt_edge.verify.subject import subject_of

ORT_FILE, OPERATORS_FILE, DESCRIPTION_FILE = "model.ort", "required_operators.config", "bundle.json"
MAX_BYTES = 2**31 - 1  # of a flatbuffer
# for CPUs with a channels-last layout of convolutions, which a GPT has none of
CPU_DEPENDENT = ["NchwcTransformer"]
SECTION = "bundle against model.ort"


@dataclass(frozen=True, slots=True)
class OrtFolder:
    """A written folder. operators: how many kinds the graph needs. n_unsigned: products whose int8
    weights became uint8. figures: the file against the bundle.
    """

    path: Path
    files: dict[str, int]  # bytes by name
    operators: int
    n_unsigned: int
    figures: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def export_ort(
    source: Path,
    out: Path,
    *,
    graph: str = "edge",
    scheme: str = INT8.name,
    target: str | None = None,
    tokenizer: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> OrtFolder:
    """Write the bundle or checkpoint at `source` as a folder with an .ort file at `out`.

    A checkpoint is exported and verified first; the options are those of `export_bundle` and have
    no meaning for a bundle. force: replace a folder that was written here. Raises ExportError for a
    model of 2 GB and more, ParityError where the file computes something else, else as
    `export_bundle`; then `out` is as it was.
    """
    if source.is_dir() and is_bundle(source):
        return convert_bundle(Bundle.open(source), out, force=force, progress=progress)
    with tempfile.TemporaryDirectory(prefix="gpt-edge-ort-") as temporary:
        bundle, _ = export_bundle(
            source,
            Path(temporary) / "bundle",
            graph=graph,
            scheme=scheme,
            target=target,
            tokenizer=tokenizer,
            progress=progress,
        )
        return convert_bundle(bundle, out, force=force, progress=progress)


def convert_bundle(
    bundle: Bundle, out: Path, *, force: bool = False, progress: Progress = silent
) -> OrtFolder:
    """Write `bundle` as a folder with an .ort file; see `export_ort`."""
    if bundle.n_bytes > MAX_BYTES:
        raise ExportError(
            f"{bundle.path} has {bundle.n_bytes:,} bytes, an .ort file holds {MAX_BYTES:,}",
            hint="quantize it first, or ship the .onnx file",
        )
    with publish_folder(
        out, force=force, is_ours=is_ours, source=bundle.path, n_bytes=bundle.n_bytes
    ) as folder:
        progress("optimizing the graph")
        n_unsigned = _convert(bundle, folder / ORT_FILE)
        progress("listing operators")
        n_operators = _list_operators(folder)
        progress("running both")
        figures = _check(bundle, folder)
        _describe(bundle, folder)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        progress("publishing")
    return OrtFolder(Path(out), files, n_operators, n_unsigned, figures)


def _describe(bundle: Bundle, folder: Path) -> None:
    """Add the tokenizer's file and the description: the bundle's manifest, with the files that an
    app opens in place of the bundle's.
    """
    names = [ORT_FILE]
    if bundle.manifest.tokenizer is not None:
        name = bundle.manifest.tokenizer["file"]
        write_file(folder / name, (bundle.path / name).read_bytes())
        names.append(name)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in names
    }
    description = format_manifest({**bundle.manifest.to_dict(), "files": files})
    write_file(folder / DESCRIPTION_FILE, description)


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what this module writes."""
    names = {path.name for path in folder.iterdir()}
    return {ORT_FILE, OPERATORS_FILE, DESCRIPTION_FILE} <= names


def _convert(bundle: Bundle, out: Path) -> int:
    """Save the optimized graph. Returns how many products have uint8 weights instead of int8."""
    checked_model(bundle)
    model = ir.load(bundle.model_path)
    n_unsigned = store_unsigned(model.graph)
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry(
        "optimization.disable_specified_optimizers", ";".join(CPU_DEPENDENT)
    )
    try:
        with tempfile.TemporaryDirectory(prefix="gpt-edge-ort-") as temporary:
            path = Path(temporary) / "model.onnx"
            ir.save(model, path, external_data="model.onnx.data")
            start_session(path, options, is_guarded=False)  # the weights stay as they are
    except ORT_ERRORS as error:
        raise ExportError(f"onnxruntime cannot convert {bundle.path}: {cause_of(error)}") from error
    return n_unsigned


def _list_operators(folder: Path) -> int:
    """Write the configuration of a custom minimal build; onnxruntime's build script reads it with
    --include_ops_by_config. Returns the number of operators.
    """
    tools = require("onnxruntime.tools.ort_format_model", "export")
    logging.getLogger("ort_format_model").setLevel(logging.WARNING)
    path = folder / OPERATORS_FILE
    tools.create_config_from_models([folder / ORT_FILE], path, False)
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("#")]  # the comments name this machine
    path.write_text("# operators of model.ort: domain;opset;names\n" + "\n".join(kept) + "\n")
    return sum(len(line.split(";")[2].split(",")) for line in kept if line.count(";") == 2)


class _OrtBundle(Bundle):
    """The written folder with the bundle's manifest, so that the runtime opens it."""

    @property
    def model_path(self) -> Path:
        """The .ort file."""
        return self.path / ORT_FILE


def _check(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Open the written file and compare its outputs with the bundle's. Raises ParityError."""
    subject = subject_of(bundle.config, bundle.task, tokenizer_of(bundle))
    expected = subject.outputs(subject.open(bundle, native=False))
    if isinstance(expected, Outputs):  # no choice may differ, whatever its margin
        expected = replace(expected, margins=(math.inf,) * len(expected.greedy))
    written = _OrtBundle(folder, bundle.manifest)
    actual = subject.outputs(subject.open(written, native=False))
    report = Verification()
    # The same products in the same order: as near as a float graph has to be.
    subject.check_outputs(report, SECTION, FP32.name, expected, actual)
    if report.faults:
        raise ParityError("; ".join(report.faults), figures=report.figures)
    return report.figures
