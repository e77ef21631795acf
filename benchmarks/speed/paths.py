"""Cached against uncached, chunked, batched: gpt-edge's int8 and int4 beside Optimum's int8, on one
checkpoint, as a table.

    python benchmarks/speed/paths.py runs/tinystories/checkpoint

Every path is held against the whole prompt at once, in the same graph: mean KL in nats, and how
many rows choose another token. Optimum's int8 rounds activations with one scale for the whole call
(onnxruntime#10322), ours row by row.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from gpt_edge.errors import TokenizerError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.verify.report import Verification

SCHEMES = {"int8": "int8", "int4": "int4", "int8-dynamic": "Optimum int8"}


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            name: export(given.checkpoint, Path(folder) / scheme, scheme)
            for scheme, name in SCHEMES.items()
        }
    print("| path | " + " | ".join(f"{name}: mean KL | flips" for name in figures) + " |")
    print("|---|" + "---|---|" * len(figures))
    paths = {
        name: report.figures[f"{scheme} paths"]
        for (scheme, name), report in zip(SCHEMES.items(), figures.values(), strict=True)
    }
    for path in paths["int8"]:
        cells = [
            f"{found[path]['mean_kl']:.1e} | {found[path]['n_flips']} of {found[path]['rows']}"
            for found in paths.values()
        ]
        print(f"| {path} | " + " | ".join(cells) + " |")
    for path, figure in paths["int8"].items():
        for flip in figure["flips"]:
            print(
                f"int8, {path}: row {flip['row']} of {flip['probe']}, gap {flip['gap']}, noise "
                f"{figure['max_difference']}"
            )


def export(checkpoint: Path, out: Path, scheme: str) -> Verification:
    """Export with the tokenizer beside the checkpoint, or without one."""
    try:
        return export_bundle(checkpoint, out, scheme=scheme)[1]
    except TokenizerError:
        return export_bundle(checkpoint, out, scheme=scheme, tokenizer="none")[1]


if __name__ == "__main__":
    main()
