"""The quality table beside other engines on the same trained weights: model x scheme x {size, ppl
ratio, KL, top-1}.

    python benchmarks/quality/quality_peers.py CHECKPOINT TEXT --calibration TEXT --name gpt2-20m \\
        --llama-cpp LLAMA_CPP --convert-python VENV/bin/python --llama-python VENV/bin/python

Every row reads the same token ids, in rows of 256 from an empty context, and is held against torch
in float32: KL and same token over all rows, perplexity of the token that comes. Rows: gpt-edge's
schemes, Optimum's int8-dynamic (the road of `--scheme int8-dynamic`), and llama.cpp, whose own
converter reads what `gpt-edge export --to transformers` writes and whose own quantizer rounds it to
Q8_0 and Q4_0.

--llama-cpp is a source tree of llama.cpp (it lies inside llama-cpp-python's source archive, at
vendor/llama.cpp); --convert-python has torch, transformers and gguf's requirements; --llama-python
has llama-cpp-python. Without them those rows are left out, and the page says so. A vocabulary other
than GPT-2's is not in the converter's list of pre-tokenizers; it is told that text is split as
GPT-2 splits it, which is so for every vocabulary that gpt-edge trains. Logits are taken for ids, so
no tokenizer of any engine has a part in the figures. KL is of float32 logits for all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from quality import HEADINGS, Subject, uniform_rows

from gpt_edge.arrays import FloatArray
from gpt_edge.export.budget.calibration import (
    CALIBRATION_TOKENS,
    Rows,
    batches,
    load_reference,
    read_rows,
)
from gpt_edge.export.budget.degradation import (
    Degradation,
    DegradationSum,
    TextReference,
    rows_that_fit,
)
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.transformers.folder import export_transformers
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.verify.report import tokenizer_of

KINDS = ("Q8_0", "Q4_0")
# of quality.UNIFORM
ROWS = ("int8", "int8-block, 64", "int4, 32, nearest", "int4, 32, GPTQ", "int4, 64, GPTQ")
# Run by the converter's own Python, in its tree: as `convert_hf_to_gguf.py FOLDER --outtype f32
# --outfile OUT`.
CONVERT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
try:
    from conversion.base import TextModel as owner
    import convert_hf_to_gguf as converter
except ImportError:  # trees before the converter was split
    import convert_hf_to_gguf as converter
    owner = getattr(converter, "TextModel", None) or converter.Model
known = owner.get_vocab_base_pre
def split(self, tokenizer):
    try:
        return known(self, tokenizer)
    except NotImplementedError:
        return "gpt-2"
owner.get_vocab_base_pre = split
sys.argv = ["convert_hf_to_gguf.py", sys.argv[2], "--outtype", "f32", "--outfile", sys.argv[3]]
converter.main()
"""
QUANTIZE = """
import ctypes, sys
import llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
params.nthread = 2
source, target = sys.argv[1].encode(), sys.argv[2].encode()
sys.exit(llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)))
"""
# ids.npy [S, T] in; logits of all tokens, float32 [S, T, V], out.
LOGITS = """
import sys
import numpy as np
from llama_cpp import Llama
ids = np.load(sys.argv[2])
model = Llama(sys.argv[1], n_ctx=ids.shape[1], n_batch=ids.shape[1], logits_all=True,
              verbose=False, n_threads=2, n_gpu_layers=0, type_k=0, type_v=0)
out = np.lib.format.open_memmap(sys.argv[3], "w+", np.float32, (*ids.shape, model.n_vocab()))
for row, logits in zip(ids, out):
    model.reset()
    model.eval(row.tolist())
    logits[:] = model.scores[: len(row)]
out.flush()
"""


class TorchReference(TextReference):
    """A text and what torch says to it."""

    def __init__(self, checkpoint: Path, rows: Rows) -> None:
        self.rows = rows
        model = load_reference(open_checkpoint(checkpoint))
        self._logits: list[FloatArray] = []
        with torch.inference_mode():
            for part in batches(rows.ids):
                found, _ = model(torch.from_numpy(rows.ids[part, :-1]))
                self._logits += list(found.numpy())

    def measure_logits(self, logits: FloatArray) -> Degradation:
        """logits [S, T - 1, V] of another engine on the same rows."""
        total = DegradationSum()
        for row, (wanted, found) in enumerate(zip(self._logits, logits, strict=True)):
            targets = torch.from_numpy(self.rows.ids[row, 1:])
            total.add(torch.from_numpy(wanted), torch.from_numpy(np.array(found)), targets)
        return total.result()


def run_python(python: Path, program: str, *arguments: object) -> None:
    """Run a program in another environment. Exits with its last lines where it fails."""
    done = subprocess.run(
        [str(python), "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise SystemExit(f"error: {python} failed with {done.returncode}: {last}")


def llama_rows(
    given: argparse.Namespace, reference: TorchReference, folder: Path
) -> Iterator[tuple[str, Path, Degradation]]:
    """Label, file and degradation of llama.cpp's float32 graph and of each of KINDS."""
    hf, ids = folder / "transformers", folder / "ids.npy"
    export_transformers(given.checkpoint, hf, tokenizer=given.tokenizer)
    np.save(ids, reference.rows.ids[:, :-1].astype(np.int32))
    whole = folder / "f32.gguf"
    run_python(given.convert_python, CONVERT, given.llama_cpp.resolve(), hf, whole)
    for kind in ("F32", *KINDS):
        gguf = whole if kind == "F32" else folder / f"{kind}.gguf"
        if kind != "F32":
            run_python(given.llama_python, QUANTIZE, whole, gguf, kind)
        found = folder / "logits.npy"
        run_python(given.llama_python, LOGITS, gguf, ids, found)
        yield f"llama.cpp {kind}", gguf, reference.measure_logits(np.load(found, mmap_mode="r"))
        found.unlink()


def cells(model: str, label: str, bits: float | None, n_bytes: int, found: Degradation) -> str:
    """One line of the table."""
    figures = (
        f"{bits:.2f}" if bits else "",
        f"{n_bytes / 1e6:.2f}",
        f"{1 + found.ppl_increase:.5f}",
        f"{found.mean_kl:.2e} ± {found.kl_error:.0e}",
        f"{found.top1:.2%}",
    )
    return f"| {' | '.join((model, label, *figures))} |"


def parse(words: list[str]) -> argparse.Namespace:
    """The command line. llama.cpp's three come together or not at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--name", help="of the model, in the table")
    parser.add_argument(
        "--tokenizer", help="file, folder or name; by default what lies beside the checkpoint"
    )
    parser.add_argument("--llama-cpp", type=Path, help="source tree of llama.cpp")
    parser.add_argument(
        "--convert-python", type=Path, help="Python with torch and transformers, for the converter"
    )
    parser.add_argument("--llama-python", type=Path, help="Python with llama-cpp-python")
    given = parser.parse_args(words)
    tools = (given.llama_cpp, given.convert_python, given.llama_python)
    if any(tools) and not all(tools):
        parser.error("--llama-cpp, --convert-python and --llama-python belong together")
    if given.llama_cpp and not (given.llama_cpp / "convert_hf_to_gguf.py").is_file():
        parser.error(f"{given.llama_cpp} has no convert_hf_to_gguf.py")
    return given


def main() -> None:
    """Print the table."""
    given = parse(sys.argv[1:])
    name = given.name or given.checkpoint.resolve().parent.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle, _ = export_bundle(
            given.checkpoint, folder / "fp32", scheme="fp32", tokenizer=given.tokenizer
        )
        words, config = tokenizer_of(bundle), bundle.config
        rows = read_rows(given.text, words, config, rows_that_fit(config, given.tokens))
        reference = TorchReference(given.checkpoint, rows)
        calibration = read_rows(given.calibration, words, config, CALIBRATION_TOKENS)
        print(
            f"{rows.n_tokens:,} tokens, against torch in float32; calibration "
            f"{calibration.n_tokens:,}\n"
        )
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        model = Subject(name, bundle, reference, calibration)
        model.row("fp32", "fp32", None, None, 32.0)
        model.row("int8-dynamic of Optimum", "int8-dynamic", None, None, 0.0)
        for label, scheme, plan, rounder, bits in uniform_rows(model, folder):
            if label in ROWS:
                model.row(label, scheme, plan, rounder, bits)
        if given.llama_cpp is None:
            print(
                "\nllama.cpp was not asked: --llama-cpp, --convert-python and --llama-python were "
                "not given."
            )
            return
        for label, gguf, found in llama_rows(given, reference, folder):
            print(cells(name, label, None, gguf.stat().st_size, found), flush=True)


if __name__ == "__main__":
    main()
