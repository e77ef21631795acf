"""`export --to transformers`: write a checkpoint as a folder that transformers and its ecosystem
load.

The folder is published only if our importer reads back every tensor bit-identically and
transformers computes the reference's outputs from it.
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
from gpt_edge.bundle.bundle import CHAT_TEMPLATE_FILE
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
from gpt_edge.export.weights.chat_template import read_chat_template
from gpt_edge.export.weights.generation_config import (
    GENERATION_CONFIG_FILE,
    generation_config,
    read_generation_defaults,
)
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.nanogpt import with_activation
from gpt_edge.reference.importers.settings import read_json_object
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer, fit_to_rows
from gpt_edge.tokenizer.formats.hf_files import FILE_NAMES, hf_files
from gpt_edge.verify import parity
from gpt_edge.verify.language_models import N_PROMPT, LanguageModelSubject, Outputs
from gpt_edge.verify.parity import Agreement, Probe
from gpt_edge.verify.report import Progress, silent
from gpt_edge.version import __version__

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# in config.json: --force replaces only folders with this key
WRITTEN_BY = "written_by"
# max |difference| of logits, as a fraction of their spread within a row, or of 1 if that is less
TOLERANCE = 1e-4
GPT2_VOCAB_SIZE = 50257
SAMPLE = "It's 3 o'clock: “étude”,  naïve 中文!\n"  # whose ids are compared
UNKNOWN_TO_LLAMA = (
    "llama.cpp's convert_hf_to_gguf.py identifies a BPE pre-tokenizer by a hash of tokens, and "
    "this vocabulary is not in its list: gpt-edge export --to gguf writes the file itself, without "
    "a change of its get_vocab_base_pre"
)


@dataclass(frozen=True, slots=True)
class TransformersFolder:
    """A written folder. figures: logits and greedy tokens of transformers against the reference.
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
    activation: str | None = None,
    config: Path | None = None,
    adapter: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> TransformersFolder:
    """Write the checkpoint at `source` as a transformers folder at `out`, float32.

    tokenizer: a file, a folder, a name, or "none"; None takes that of `source`. activation: as for
    `export_bundle`. config, adapter: as for `open_checkpoint`. force: replace a folder that was
    written here. Raises CheckpointError, TokenizerError, ExportError (transformers has no such
    architecture, or a task's head), ParityError, OutputError or MissingDependencyError; then `out`
    is as it was.
    """
    checkpoint = with_activation(
        open_checkpoint(source, config=config, adapter=adapter), activation
    )
    if checkpoint.task is not None:
        raise ExportError(
            f"{source} is fine-tuned for {checkpoint.task.kind}: transformers has no such head on "
            "the extract token",
            hint="export the checkpoint that it was fine-tuned from",
        )
    shape = checkpoint.config
    architecture = model_type(shape, has_attention_bias(checkpoint))
    source_tokenizer = tokenizer_for(checkpoint, tokenizer)
    require("transformers", "export")
    tensors = hf_tensors(shape, architecture)
    end_token = source_tokenizer.spec.end_token if source_tokenizer else None
    defaults = read_generation_defaults(checkpoint, end_token)
    chat_template = read_chat_template(checkpoint)
    n_bytes = 4 * shape.n_parameters
    with publish_folder(
        out, force=force, is_ours=is_ours, source=checkpoint.path, n_bytes=n_bytes
    ) as folder:
        described = {
            **hf_config(shape, architecture, end_token),
            WRITTEN_BY: f"gpt-edge {__version__}",
        }
        write_file(folder / CONFIG_FILE, (json.dumps(described, indent=1) + "\n").encode())
        if defaults is not None:
            write_file(folder / GENERATION_CONFIG_FILE, generation_config(defaults, end_token))
        if source_tokenizer is not None:
            progress("writing the tokenizer")
            for name, content in hf_files(source_tokenizer, shape.n_ctx).items():
                write_file(folder / name, content)
            _check_ids(folder, source_tokenizer)
        if chat_template is not None:
            write_file(folder / CHAT_TEMPLATE_FILE, chat_template.encode())
        progress("writing the weights")
        _write_weights(folder / WEIGHTS_FILE, tensors, checkpoint, progress)
        progress("reading the folder again")
        _check_read_back(folder, checkpoint)
        progress("running the reference")
        figures = _check_transformers(folder, checkpoint, source_tokenizer, progress)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        progress("publishing")
    return TransformersFolder(
        Path(out), architecture, files, figures, notes_for(shape, architecture, source_tokenizer)
    )


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what this module writes, and nothing else."""
    written = {
        CONFIG_FILE,
        GENERATION_CONFIG_FILE,
        CHAT_TEMPLATE_FILE,
        WEIGHTS_FILE,
        *FILE_NAMES,
    }
    if not {path.name for path in folder.iterdir()} <= written:
        return False
    try:
        return str(read_json_object(folder / CONFIG_FILE).get(WRITTEN_BY)).startswith("gpt-edge ")
    except CheckpointError:
        return False


def notes_for(
    config: GPTConfig, architecture: str, source_tokenizer: TokenizerSource | None
) -> tuple[str, ...]:
    """What other programs that read the folder cannot handle."""
    if source_tokenizer is None:
        return ("there is no tokenizer in the folder: converters that need one refuse it",)
    if architecture != "gpt2":
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
    if source_tokenizer.spec.vocab_size != GPT2_VOCAB_SIZE:
        notes.append(UNKNOWN_TO_LLAMA)
    return tuple(notes)


def _write_weights(
    path: Path, tensors: Sequence[HFTensor], checkpoint: Checkpoint, progress: Progress
) -> None:
    """Write a safetensors file, with one tensor in memory at a time. Source: the format's README:
    length, JSON header, data.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers requires it
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
    """Raise ParityError unless our importer reads back the same model, bit-identically."""
    again = open_checkpoint(folder)
    ours, theirs = checkpoint.config, again.config
    layers = range(ours.n_layer)
    same_layers = [ours.layer_window(i) for i in layers] == [theirs.layer_window(i) for i in layers]
    if not same_layers or _plain(ours) != _plain(theirs):
        raise ParityError(f"the folder reads back as a {theirs}, it was written from a {ours}")
    for name in checkpoint.names():
        if not np.array_equal(
            checkpoint.tensor(name).view(np.uint32), again.tensor(name).view(np.uint32)
        ):
            raise ParityError(f"{name} does not come back from the folder as it was")
        checkpoint.release(name)


def _check_ids(folder: Path, source: TokenizerSource) -> None:
    """Raise ParityError unless transformers' tokenizer gives our ids of a text."""
    transformers = require("transformers", "export")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = build_tokenizer(source).encode_part(SAMPLE)
    found = theirs(SAMPLE, add_special_tokens=False).input_ids
    if source.spec.add_prefix_space:
        ours = build_tokenizer(source).encode(SAMPLE)[len(source.spec.prefix) :]
    if found != ours:
        raise ParityError(f"transformers reads {source.origin} with other ids than gpt-edge")


def _plain(config: GPTConfig) -> dict[str, Any]:
    """The values that must be equal; the pattern of the layers is compared separately."""
    values = {**config.to_dict(), "n_inner": config.inner_size}
    return {name: value for name, value in values.items() if name not in ("attention", "window")}


def _check_transformers(
    folder: Path,
    checkpoint: Checkpoint,
    source_tokenizer: TokenizerSource | None,
    progress: Progress,
) -> dict[str, Any]:
    """Raise ParityError unless transformers, with this folder, has the reference's logits and
    greedy tokens.
    """
    encoder = None
    if source_tokenizer is not None:
        encoder = fit_to_rows(build_tokenizer(source_tokenizer), checkpoint.config.vocab_size)
    probes = parity.probes(checkpoint.config, encoder)
    expected: Outputs = run_reference(checkpoint, LanguageModelSubject(probes))
    progress("running transformers")
    logits, greedy = _run_transformers(folder, probes, expected.greedy)
    agreement = parity.compare(probes, expected.logits, logits)
    limit = TOLERANCE * max(1.0, agreement.spread)
    n_equal = next(
        (
            i
            for i, pair in enumerate(zip(expected.greedy, greedy, strict=True))
            if pair[0] != pair[1]
        ),
        None,
    )
    # both are right, and continue differently
    is_tie = n_equal is not None and expected.margins[n_equal] <= 2 * limit
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
        return (
            f"transformers' logits differ by {agreement.max_difference:.3g}, at most "
            f"{limit:.3g} is allowed"
        )
    return "transformers continues the first probe with other tokens" if has_other_tokens else ""


def _run_transformers(
    folder: Path, probes: list[Probe], expected: Sequence[int]
) -> tuple[list[FloatArray], list[int]]:
    """Logits [rows, V] of each probe, and the greedy continuation of the first, by the folder's
    model alone.

    expected: the reference's continuation. One call over prompt and continuation gives the choice
    of transformers at every step, after the same tokens.
    """
    transformers = require("transformers", "export")
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        logits = [_rows(model, probe) for probe in probes]
        prompt = probes[0].ids[:N_PROMPT]
        full = torch.tensor([[*prompt.tolist(), *expected]])
        greedy = model(full).logits[0, prompt.size - 1 : -1].argmax(-1).tolist() if expected else []
    return logits, greedy


def _rows(model: Any, probe: Probe) -> FloatArray:
    rows: FloatArray = (
        model(torch.from_numpy(probe.ids)[None])
        .logits[0, list(probe.compared_rows)]
        .float()
        .numpy()
    )
    return rows
