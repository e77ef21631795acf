"""OpenAI's GPT-2 release: hparams.json and a TensorFlow checkpoint with the variables model/wte,
model/h0/attn/c_attn/w, ...

Linear weights are [1, in, out]. Source: github.com/openai/gpt-2, src/model.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import read_settings
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, Checkpoint, Origin, open_tensors
from gpt_edge.reference.importers.tensorbundle import open_tensor_bundle

_TRAINING_STATE = re.compile(r"(.*/)?(Adam|Adam_1|Momentum|beta1_power|beta2_power|global_step)")


def open_openai_gpt2_tf(folder: Path) -> Checkpoint:
    """Raises CheckpointError as `open_tensors` and `open_tensor_bundle` do."""
    settings = read_settings(folder / "hparams.json")
    config = settings.config(
        n_layer=settings.whole("n_layer"),
        n_head=settings.whole("n_head"),
        n_embd=settings.whole("n_embd"),
        n_ctx=settings.whole("n_ctx"),
        vocab_size=settings.whole("n_vocab"),
    )
    source = open_tensor_bundle(_prefix(folder))

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        is_linear = name.endswith(LINEAR_WEIGHTS)
        return Origin((_variable(name),), (1, *shape[::-1]) if is_linear else shape, is_linear)

    return open_tensors(
        "openai-gpt2-tf",
        folder,
        config,
        source,
        origin_of,
        lambda name: bool(_TRAINING_STATE.fullmatch(name)),
    )


def _variable(name: str) -> str:
    """ "h.0.ln_1.weight" -> "model/h0/ln_1/g", "h.0.attn.c_attn.weight" ->
    "model/h0/attn/c_attn/w".
    """
    if name in ("wte.weight", "wpe.weight"):
        return "model/" + name.removesuffix(".weight")
    *path, kind = re.sub(r"^h\.(\d+)", r"h\1", name).split(".")
    letter = "b" if kind == "bias" else "g" if path[-1].startswith("ln_") else "w"
    return "/".join(["model", *path, letter])


def _prefix(folder: Path) -> Path:
    """The prefix that the file `checkpoint` names, in this folder only; else that of the only
    index.
    """
    indices = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if (folder / "checkpoint").is_file():
        with (folder / "checkpoint").open("rb") as file:
            text = file.read(1 << 16).decode("utf-8", errors="replace")
        match = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
        name = re.split(r"[/\\]", match[1])[-1] if match else ""
        if match and name in indices:
            return folder / name
    if len(indices) != 1:
        raise CheckpointError(
            f"{folder} has {len(indices)} *.index files and no file named checkpoint that names "
            "one of them"
        )
    return folder / indices[0]
