"""`export --to transformers`: a checkpoint as a folder that transformers loads, and whatever else
reads such folders.

Nothing is published unless our importer reads every tensor back bit by bit, and transformers,
loading the folder, says what the reference says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError, ExportError, ParityError, require
from gpt_edge.export.pipeline.shared import tokenizer_for
from gpt_edge.export.transformers.layout import (
    HFTensor,
    has_attention_bias,
    hf_config,
    hf_tensors,
    model_type,
)
from gpt_edge.export.verify.reference import run_reference
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.settings import read_json_object
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer
from gpt_edge.tokenizer.formats.hf_files import FILE_NAMES, hf_files
from gpt_edge.verify import parity
from gpt_edge.verify.language_models import N_PROMPT, LanguageModelSubject, Outputs
from gpt_edge.verify.parity import Agreement, Probe
from gpt_edge.verify.report import Progress, silent
from gpt_edge.version import __version__

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# in config.json, so that --force replaces nothing but what was written here
WRITTEN_BY = "written_by"
# max |difference| of logits, as a share of their spread within a row and at least as if that were 1
TOLERANCE = 1e-4
GPT2_VOCAB_SIZE = 50257
UNKNOWN_TO_LLAMA = (
    "llama.cpp's convert_hf_to_gguf.py knows a BPE pre-tokenizer by a hash of tokens, and this "
    "vocabulary is not in its "
    'list: let its get_vocab_base_pre return "gpt-2", which is how this vocabulary splits text'
)


@dataclass(frozen=True, slots=True)
class TransformersFolder:
    """What was written. figures: logits and greedy tokens of transformers against the reference.
    notes: for the user.
    """

    path: Path
    model_type: str
    files: dict[str, int]  # bytes by name
    figures: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def export_transformers(
    source: Path,
    out: Path,
    *,
    tokenizer: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> TransformersFolder:
    """Write the checkpoint at `source` as a transformers folder at `out`, float32.

    tokenizer: a file, a folder, a name, or "none"; None looks into `source`. force: replace a
    folder that was written here. Raises CheckpointError, TokenizerError, ExportError (transformers
    has no such architecture, or a task's head), ParityError, OutputError or MissingDependencyError;
    then `out` is as it was.
    """
    checkpoint = open_checkpoint(source)
    if checkpoint.task is not None:
        raise ExportError(
            f"{source} is fine-tuned for {checkpoint.task.kind}: transformers has no such head on "
            "the extract token",
            hint="export the checkpoint that it was fine-tuned from",
        )
    config = checkpoint.config
    kind = model_type(config, has_attention_bias(checkpoint))
    words = tokenizer_for(checkpoint, tokenizer)
    require("transformers", "export")
    tensors = hf_tensors(config, kind)
    n_bytes = 4 * config.n_parameters
    with publish_folder(
        out, force=force, is_ours=is_ours, source=Path(source), n_bytes=n_bytes
    ) as folder:
        described = {
            **hf_config(config, kind, words.spec.end_token if words else None),
            WRITTEN_BY: f"gpt-edge {__version__}",
        }
        write_file(folder / CONFIG_FILE, (json.dumps(described, indent=1) + "\n").encode())
        if words is not None:
            progress("writing the tokenizer")
            for name, content in hf_files(words, config.n_ctx).items():
                write_file(folder / name, content)
        progress("writing the weights")
        _write_weights(folder / WEIGHTS_FILE, tensors, checkpoint, progress)
        progress("reading the folder again")
        _check_read_back(folder, checkpoint)
        progress("asking the reference")
        figures = _check_transformers(folder, checkpoint, words, progress)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        progress("publishing")
    return TransformersFolder(Path(out), kind, files, figures, notes_for(config, kind, words))


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what this module writes, and nothing else."""
    if not {path.name for path in folder.iterdir()} <= {CONFIG_FILE, WEIGHTS_FILE, *FILE_NAMES}:
        return False
    try:
        return str(read_json_object(folder / CONFIG_FILE).get(WRITTEN_BY)).startswith("gpt-edge ")
    except CheckpointError:
        return False


def notes_for(config: GPTConfig, kind: str, words: TokenizerSource | None) -> tuple[str, ...]:
    """What other readers of the folder will stumble over."""
    if words is None:
        return ("there is no tokenizer in the folder: converters that want one refuse it",)
    if kind != "gpt2":
        return ("llama.cpp and CTranslate2 convert GPT-2 folders, not this architecture",)
    notes = []
    settings = {
        "the exact GELU or ReLU": config.activation != "gelu_tanh",
        "an MLP of another width than 4 x n_embd": config.inner_size != 4 * config.n_embd,
    }
    if ignored := [name for name, is_set in settings.items() if is_set]:
        notes.append(
            f"llama.cpp's converter does not read this from a GPT-2 folder: {', '.join(ignored)}"
        )
    if words.spec.vocab_size != GPT2_VOCAB_SIZE:
        notes.append(UNKNOWN_TO_LLAMA)
    return tuple(notes)


def _write_weights(
    path: Path, tensors: Sequence[HFTensor], checkpoint: Checkpoint, progress: Progress
) -> None:
    """A safetensors file, one tensor in memory at a time. Source: the format's README: length, JSON
    header, data.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers wants it
    end = 0
    for tensor in tensors:
        begin, end = end, end + 4 * int(np.prod(tensor.shape))
        header[tensor.name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("xb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            progress(tensor.origin)
            array = np.ascontiguousarray(tensor.take(checkpoint.tensor(tensor.origin)), "<f4")
            assert array.shape == tensor.shape
            file.write(array.data.cast("B"))
            checkpoint.release(tensor.origin)


def _check_read_back(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise ParityError unless our importer finds the same model in the folder, bit by bit."""
    again = open_checkpoint(folder)
    ours, theirs = checkpoint.config, again.config
    layers = range(ours.n_layer)
    same_layers = [ours.layer_window(i) for i in layers] == [theirs.layer_window(i) for i in layers]
    if not same_layers or _plain(ours) != _plain(theirs):
        raise ParityError(f"the folder reads back as a {theirs}, it was made of a {ours}")
    for name in checkpoint.names():
        if not np.array_equal(
            checkpoint.tensor(name).view(np.uint32), again.tensor(name).view(np.uint32)
        ):
            raise ParityError(f"{name} does not come back from the folder as it was")
        checkpoint.release(name)


def _plain(config: GPTConfig) -> dict[str, Any]:
    """What must be equal, however it is written: the pattern of the layers is compared by
    itself.
    """
    values = {**config.to_dict(), "n_inner": config.inner_size}
    return {name: value for name, value in values.items() if name not in ("attention", "window")}


def _check_transformers(
    folder: Path, checkpoint: Checkpoint, words: TokenizerSource | None, progress: Progress
) -> dict[str, Any]:
    """Raise ParityError unless transformers, with this folder, has the reference's logits and
    greedy tokens.
    """
    probes = parity.probes(checkpoint.config, build_tokenizer(words) if words else None)
    wanted: Outputs = run_reference(checkpoint, LanguageModelSubject(probes))
    progress("asking transformers")
    logits, greedy = _ask_transformers(folder, probes, wanted.greedy)
    agreement = parity.compare(probes, wanted.logits, logits)
    limit = TOLERANCE * max(1.0, agreement.spread)
    n_equal = next(
        (i for i, pair in enumerate(zip(wanted.greedy, greedy, strict=True)) if pair[0] != pair[1]),
        None,
    )
    # both are right, and go on differently
    is_tie = n_equal is not None and wanted.margins[n_equal] <= 2 * limit
    figures = {
        "logits": {**agreement.to_dict(), "limits": {"max_difference": limit}},
        "greedy": {
            "equal_tokens": len(greedy) if n_equal is None else n_equal,
            "tokens": len(greedy),
        },
    }
    fault = _fault(agreement, limit, n_equal is not None and not is_tie)
    figures["logits"]["ok"], figures["greedy"]["ok"] = not fault, n_equal is None or is_tie
    if fault:
        raise ParityError(
            fault, hint="nothing was published", figures={"torch against transformers": figures}
        )
    return {"torch against transformers": figures}


def _fault(agreement: Agreement, limit: float, has_other_tokens: bool) -> str:
    if not agreement.max_difference <= limit:
        return f"transformers' logits differ by {agreement.max_difference:.3g}, at most {limit:.3g} is allowed"
    return "transformers continues the first probe with other tokens" if has_other_tokens else ""


def _ask_transformers(
    folder: Path, probes: list[Probe], wanted: Sequence[int]
) -> tuple[list[FloatArray], list[int]]:
    """Logits [rows, V] of each probe, and the greedy continuation of the first, by the folder's
    model alone.

    wanted: the reference's continuation; one call over prompt and continuation tells what
    transformers would have taken at every step, had it come this far.
    """
    transformers = require("transformers", "export")
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        logits = [_rows(model, probe) for probe in probes]
        prompt = probes[0].ids[:N_PROMPT]
        whole = torch.tensor([[*prompt.tolist(), *wanted]])
        greedy = model(whole).logits[0, prompt.size - 1 : -1].argmax(-1).tolist() if wanted else []
    return logits, greedy


def _rows(model: Any, probe: Probe) -> FloatArray:
    rows: FloatArray = (
        model(torch.from_numpy(probe.ids)[None]).logits[0, probe.first_row :].float().numpy()
    )
    return rows
