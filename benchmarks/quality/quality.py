"""What each way of rounding costs: size, perplexity, KL, and tokens that change, one Markdown row
for each.

    python benchmarks/quality/quality.py runs/tinystories/checkpoint ../shared/data/tinystories/valid.txt.gz \\
        --calibration ../shared/data/tinystories/train.txt.gz

Everything is onnxruntime against the fp32 graph of the same checkpoint, on the first --tokens
tokens of the text, in rows of 256. GPTQ sees the calibration text alone. Q4_0 is llama.cpp's
rounding (ggml-quants.c, quantize_row_q4_0_ref): blocks of 32, a float16 scale, the signed extreme
at -8; its head has 8 bits here, as ours has. With --outliers the model has one channel x 100 before
each product that a norm or attention feeds, compensated behind it, and two rows leave it there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from outliers import plant_outliers

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import CALIBRATION_TOKENS, Rows, load_reference, read_rows
from gpt_edge.export.budget.degradation import TextReference, rows_that_fit
from gpt_edge.export.budget.loss_budget import LossBudget
from gpt_edge.export.budget.run import quantize_to_budget
from gpt_edge.export.formats.plan import EMBEDDING, HEAD, QuantizeOptions, shapes, uniform_plan
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.rounding import WeightQuantizer
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.shared import open_folder, write_scheme
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import find_tokenizer
from gpt_edge.verify.report import tokenizer_of

HEADINGS = ("model", "rounding", "bits/weight", "MB", "ppl ratio", "mean KL", "same token")
UNIFORM = {
    "int8": QuantizeOptions("int8"),
    "int8, scale search": QuantizeOptions("int8", rounding="scale-search"),
    "int8, GPTQ": QuantizeOptions("int8", rounding="gptq"),
    "int8-block, 64": QuantizeOptions("int8-block"),
    "int8-block, 32": QuantizeOptions("int8-block", block_size=32),
    "int4, 32, nearest": QuantizeOptions("int4", rounding="nearest"),
    "int4, 32, scale search": QuantizeOptions("int4", rounding="scale-search"),
    "int4, 32, GPTQ": QuantizeOptions("int4"),
    "int4, 32, asymmetric, GPTQ": QuantizeOptions("int4", symmetric=False),
    "int4, 64, nearest": QuantizeOptions("int4", block_size=64, rounding="nearest", head=8),
    "int4, 64, GPTQ": QuantizeOptions("int4", block_size=64),
    "int4, 128, GPTQ": QuantizeOptions("int4", block_size=128),
    "int4, 32, head 4, GPTQ": QuantizeOptions("int4", head=4),
}
BUDGETS = (1e-2, 1e-3)
OUTLIER_ROWS = ("int8", "int8-block, 64", "int4, 32, GPTQ", "Q4_0 of llama.cpp, 32")


def q4_0(name: str, weight: FloatArray, form: TensorFormat) -> QuantizedWeight:
    """llama.cpp's Q4_0; 8-bit tables as everywhere."""
    if form.bits != 4:
        return Rounder.plain(weight, form)
    blocks = weight.reshape(len(weight), -1, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = extreme / np.float32(-8)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    levels = np.minimum(15, np.floor(blocks * inverse + np.float32(8.5))).astype(np.uint8)
    return QuantizedWeight(4, levels, scale[..., 0].astype(np.float16).astype(np.float32))


@dataclass(frozen=True)
class Subject:
    """One model, and the text that it is measured on."""

    name: str
    bundle: Bundle
    reference: TextReference
    calibration: Rows

    def row(
        self,
        label: str,
        scheme: str,
        plan: Plan | None,
        rounder: WeightQuantizer | None,
        bits: float,
        *,
        smoothed: bool = True,
    ) -> None:
        """Build, measure, print. smoothed: as `export` does it; llama.cpp does not."""
        print(f"{label}...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            folder, config, graph = Path(name), self.bundle.config, self.bundle.graph
            source: WeightSource = BundleSource(self.bundle)
            if smoothed and rounder is not q4_0:
                source = smooth(source, graph, scheme)
            write_scheme(
                folder, source, graph, scheme, None, lambda stage: None, plan=plan, rounder=rounder
            )
            found = self.reference.measure(open_folder(folder, config, graph, scheme))
            n_bytes = sum(file.stat().st_size for file in folder.iterdir())
        cells = (
            self.name,
            label,
            f"{bits:.2f}" if bits else "",
            f"{n_bytes / 1e6:.2f}",
            f"{1 + found.ppl_increase:.5f}",
            f"{found.mean_kl:.2e} ± {found.kl_error:.0e}",
            f"{found.top1:.2%}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)

    def bits(self, plan: Plan) -> float:
        """Mean bits of a weight of the linear layers, scales and zero points counted."""
        sizes = {
            name: shape
            for name, shape in shapes(self.bundle.config, "edge").items()
            if name not in (EMBEDDING, HEAD)
        }
        n_bytes = sum(plan[name].n_bytes(*shape) for name, shape in sizes.items())
        return 8 * n_bytes / sum(n * k for n, k in sizes.values())

    def mixed(self, max_kl: float, calibration: Path | None, text: Path) -> None:
        """The search's outcome for a budget of KL, searched on the text's beginning and measured on
        all of it.
        """
        with tempfile.TemporaryDirectory() as name:
            made = quantize_to_budget(
                self.bundle,
                Path(name) / "mixed",
                QuantizeOptions("mixed"),
                budget=LossBudget(max_kl=max_kl),
                calibration=calibration,
                eval_text=text,
            )
            assert made.plan is not None
            with tempfile.TemporaryDirectory() as folder:
                rounder = Rounder(self.bundle.config, "edge", Path(folder))
                wanted = {name: [form] for name, form in made.plan.items()}
                rounder.prepare(
                    wanted, smooth(BundleSource(self.bundle), "edge", "mixed"), self.calibration
                )
                self.row(
                    f"mixed, --max-kl {max_kl:g}", "mixed", made.plan, rounder, self.bits(made.plan)
                )


def subject(
    name: str, checkpoint: Path, folder: Path, text: Path, calibration: Path, n_tokens: int
) -> Subject:
    """Export the checkpoint and ask its fp32 graph."""
    bundle, _ = export_bundle(checkpoint, folder / "fp32", scheme="fp32")
    words, config = tokenizer_of(bundle), bundle.config
    reference = TextReference(
        Session(bundle), read_rows(text, words, config, rows_that_fit(config, n_tokens))
    )
    return Subject(
        name, bundle, reference, read_rows(calibration, words, config, CALIBRATION_TOKENS)
    )


def uniform_rows(
    model: Subject, folder: Path
) -> Iterator[tuple[str, str, Plan, WeightQuantizer, float]]:
    """Label, scheme, plan, rounder and bits of every uniform row."""
    source = smooth(BundleSource(model.bundle), "edge", "mixed")
    for label, wishes in UNIFORM.items():
        plan = uniform_plan(model.bundle.config, "edge", wishes)
        place = folder / label.replace(" ", "").replace(",", "-")
        place.mkdir()
        rounder = Rounder(model.bundle.config, "edge", place)
        rounder.prepare({name: [form] for name, form in plan.items()}, source, model.calibration)
        yield label, wishes.scheme, plan, rounder, model.bits(plan)
    plan = uniform_plan(model.bundle.config, "edge", QuantizeOptions("int4", rounding="nearest"))
    yield "Q4_0 of llama.cpp, 32", "int4", plan, q4_0, 4.5


def with_outliers(checkpoint: Path, folder: Path) -> Path:
    """The same checkpoint with a channel x 100 before each product of each layer, compensated in
    what reads it.
    """
    opened = open_checkpoint(checkpoint)
    model = load_reference(opened)
    plant_outliers(model)
    save_checkpoint(folder, opened.config, model.state_dict(), find_tokenizer(checkpoint), {})
    return folder


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--calibration", type=Path, required=True)
    arguments.add_argument("--tokens", type=int, default=32_768)
    arguments.add_argument("--name")
    arguments.add_argument("--outliers", action="store_true")
    given = arguments.parse_args()
    name = given.name or given.checkpoint.resolve().parent.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = (
            with_outliers(given.checkpoint, folder / "outliers")
            if given.outliers
            else given.checkpoint
        )
        model = subject(name, checkpoint, folder, given.text, given.calibration, given.tokens)
        print(
            f"{model.reference.rows.n_tokens:,} tokens; calibration "
            f"{model.calibration.n_tokens:,}\n"
        )
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        model.row("int8-dynamic of Optimum", "int8-dynamic", None, None, 0.0)
        for line in uniform_rows(model, folder):
            if not given.outliers or line[0] in OUTLIER_ROWS:
                model.row(*line)
        if given.outliers:
            for label in OUTLIER_ROWS[:2]:
                plan = uniform_plan(model.bundle.config, "edge", UNIFORM[label])
                left = f"{label}, outliers left where they are"
                model.row(left, UNIFORM[label].scheme, plan, None, model.bits(plan), smoothed=False)
        for budget in () if given.outliers else BUDGETS:
            model.mixed(budget, given.calibration, given.text)


if __name__ == "__main__":
    main()
