"""Folders and files that are no checkpoint but lie near one, or hold what gpt-edge does not read:
what was found, and what to take instead. Reads names and a few bytes, never weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import read_json_object
from gpt_edge.reference.importers.sources import printable

EXPECTED = (
    "expected a folder with config.json (Hugging Face, gpt-edge), hparams.json (OpenAI GPT-2) or "
    "params_shapes.json (OpenAI GPT-1), or nanoGPT's ckpt.pt"
)
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_LLM_C = (20240326).to_bytes(4, "little")  # the first bytes of its model files
_TRAINER_STEP = re.compile(r"checkpoint-(\d+)")
_CACHED_MODEL = re.compile(r"models--(.+)")
# weights that other tools write, and what to take in their place
_OTHER_FILES = (
    (".gguf", "GGUF weights, which are not read", "take the checkpoint that it was made from"),
    (
        ".onnx",
        "an ONNX export",
        "it runs as it is: gpt-edge generate --bundle FOLDER; export takes its checkpoint",
    ),
    (
        ".msgpack",
        "weights for Flax",
        "take model.safetensors or pytorch_model.bin of the same model",
    ),
    (".h5", "weights for TensorFlow", "take model.safetensors or pytorch_model.bin of the model"),
    (".index", "a TensorFlow checkpoint without hparams.json", "put its hparams.json beside it"),
    (".ot", "weights for Rust", "take model.safetensors or pytorch_model.bin of the same model"),
    (".mlmodel", "weights for Core ML", "take the checkpoint that it was made from"),
    ("openvino_model.xml", "an export for OpenVINO", "take the checkpoint that it was made from"),
    (".zip", "an archive", "unpack it and take the folder"),
    (".tar.gz", "an archive", "unpack it and take the folder"),
    (".tgz", "an archive", "unpack it and take the folder"),
    (".tar", "an archive", "unpack it and take the folder"),
)
# what trainers call their files: nanoGPT, minGPT, Lightning, build-nanogpt
_TRAINED = re.compile(r"ckpt\.pt|model\.pt|last\.ckpt|model_\d+\.pt")


def refuse_file(path: Path) -> CheckpointError:
    """The error for a file that is no torch file."""
    if is_llm_c(path):
        return CheckpointError(
            f"{path} is llm.c's model file, which is not read",
            hint="llm.c's dev/eval/export_hf.py makes a Hugging Face folder of it: take that",
        )
    kind = kind_of(path.name)
    if kind is not None:
        what, hint = kind
        return CheckpointError(f"{path} is {what}", hint=hint.replace("FOLDER", str(path.parent)))
    message = f"{path} is a file, expected a checkpoint's folder or nanoGPT's .pt file"
    if (path.parent / "config.json").is_file():
        return CheckpointError(message, hint=f"try {path.parent}")
    if path.name in WEIGHTS:
        return CheckpointError(
            f"{path} has no config.json beside it",
            hint=f"put the model's config.json there, or give it: {path.parent} --config FILE",
        )
    return CheckpointError(message, hint=EXPECTED)


def refuse_folder(folder: Path, names: set[str]) -> CheckpointError:
    """The error for a folder that is no checkpoint."""
    if "adapter_config.json" in names:
        return _of_adapter(folder)
    if (near := _inner_folder(folder, names)) is not None:
        what, inner = near
        return CheckpointError(f"{folder} is {what}, not a checkpoint", hint=f"take {inner}")
    if (sharded := _sharded(folder, names)) is not None:
        what, hint = sharded
        return CheckpointError(f"{folder} is {what}, whose weights are in pieces", hint=hint)
    if weights := [name for name in WEIGHTS if name in names]:
        return CheckpointError(
            f"{folder} holds {weights[0]} but no config.json",
            hint="put the model's config.json there, or give it with --config FILE",
        )
    for name in sorted(names):
        if (kind := kind_of(name)) is not None:
            what, hint = kind
            return CheckpointError(
                f"{folder} holds {printable(name)}, {what}, and no checkpoint",
                hint=hint.replace("FOLDER", str(folder)),
            )
    for name in sorted(names):
        if name.endswith(".bin") and (folder / name).is_file() and is_llm_c(folder / name):
            return refuse_file(folder / name)
    return CheckpointError(f"{folder} is not a checkpoint that gpt-edge knows", hint=EXPECTED)


def is_llm_c(path: Path) -> bool:
    """Whether a file begins as llm.c's models do."""
    with path.open("rb") as file:
        return file.read(len(_LLM_C)) == _LLM_C


def kind_of(name: str) -> tuple[str, str] | None:
    """What a file of another tool holds, and what to do."""
    found = (entry for entry in _OTHER_FILES if name.endswith(entry[0]))
    return next(((what, hint) for _, what, hint in found), None)


def _of_adapter(folder: Path) -> CheckpointError:
    base = read_json_object(folder / "adapter_config.json").get("base_model_name_or_path")
    named = printable(base) if isinstance(base, str) and base else "its base model"
    return CheckpointError(
        f"{folder} is a PEFT adapter of {named}, not a checkpoint",
        hint=f"give the base, and the adapter with --adapter {folder}",
    )


def _inner_folder(folder: Path, names: set[str]) -> tuple[str, Path] | None:
    """What a folder is that holds checkpoints, and the one to take."""
    if _is_model(folder / "checkpoint"):
        return "the folder of a run", folder / "checkpoint"
    if (folder / "checkpoint").is_dir():
        runs = sorted(path for path in (folder / "checkpoint").iterdir() if _is_model(path))
        if runs:
            return f"gpt-2-simple's folder with {_counted(len(runs), 'run')}", runs[0]
    steps = {int(found[1]): name for name in names if (found := _TRAINER_STEP.fullmatch(name))}
    if steps:
        last = folder / steps[max(steps)]
        return f"the output_dir of a Trainer with {_counted(len(steps), 'checkpoint')}", last
    if (cached := _cached(folder, names)) is not None:
        return cached
    inner = sorted(name for name in names if _is_model(folder / name))
    if inner:
        return f"a folder with {_counted(len(inner), 'model folder')}", folder / inner[0]
    return _of_training(folder, names)


def _of_training(folder: Path, names: set[str]) -> tuple[str, Path] | None:
    """The folder above a training's files: of nanoGPT and its like, DeepSpeed or Lightning."""
    for pattern, trainer in (
        ("global_step*/mp_rank_00_model_states.pt", "DeepSpeed"),
        ("lightning_logs/version_*/checkpoints/*.ckpt", "Lightning"),
        ("version_*/checkpoints/*.ckpt", "Lightning"),
        ("checkpoints/*.ckpt", "Lightning"),
    ):
        if files := list(folder.glob(pattern)):
            last = max(files, key=lambda path: path.stat().st_mtime)
            return f"the folder of a training with {trainer}", last
    inner = sorted(name for name in names if _holds_training(folder / name))
    if inner:
        return f"a folder with {_counted(len(inner), 'training')} in it", folder / inner[0]
    return None


def _holds_training(folder: Path) -> bool:
    return folder.is_dir() and any(_TRAINED.fullmatch(path.name) for path in folder.iterdir())


def _cached(folder: Path, names: set[str]) -> tuple[str, Path] | None:
    """The hub's cache, a model's folder in it, or the folder above it."""
    if "snapshots" in names and (snapshot := _snapshot(folder)):
        return "a model's folder in the hub's cache", snapshot
    cached = sorted(name for name in names if _CACHED_MODEL.fullmatch(name))
    for name in cached:
        if snapshot := _snapshot(folder / name):
            return f"the hub's cache with {_counted(len(cached), 'model')}", snapshot
    if not cached and "hub" in names and (folder / "hub").is_dir():
        return _cached(folder / "hub", {path.name for path in (folder / "hub").iterdir()})
    return None


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / "hparams.json").is_file()


def _sharded(folder: Path, names: set[str]) -> tuple[str, str] | None:
    """A checkpoint of DeepSpeed or FSDP, each of whose processes wrote a piece."""
    if "zero_to_fp32.py" in names:
        return "DeepSpeed's checkpoint", f"python {folder}/zero_to_fp32.py {folder} FILE"
    pieces = sorted(name for name in names if name.startswith("pytorch_model_fsdp"))
    if pieces or any(name.endswith(".distcp") for name in names):
        inner = folder / pieces[0] if pieces else folder
        return "a checkpoint of FSDP", f"accelerate merge-weights {inner} OUT"
    return None


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _snapshot(folder: Path) -> Path | None:
    """The snapshot that `main` means, or the newest one, of a model in the hub's cache."""
    snapshots = folder / "snapshots"
    reference = folder / "refs" / "main"
    if reference.is_file():
        commit = reference.read_text(encoding="ascii", errors="replace").strip()[:64]
        if re.fullmatch(r"[0-9a-f]+", commit) and (snapshots / commit).is_dir():
            return snapshots / commit
    found = [path for path in snapshots.iterdir() if path.is_dir()] if snapshots.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
