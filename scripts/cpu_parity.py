"""What bundles say on this CPU, as JSON, and the comparison of two such files. `scripts/arm64.sh`
runs it on two kinds of CPU.

    python scripts/cpu_parity.py run OUT.json BUNDLE...
    python scripts/cpu_parity.py compare HERE.json THERE.json

`run` needs the runtime alone. Of a language model: the greedy ids of 32 prompts, the sampled text
of three seeds, and a hash of the logits of one prompt. Of a classifier: the label, the scores and a
hash of the logits of 32 texts. `compare` prints a Markdown table. It exits with 1 where greedy ids
agree for less than MIN_AGREEMENT, or a label differs whose score is no near tie; with custom
operators on both sides, where anything differs of a bundle all of whose products are theirs.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import platform
import sys
import time
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

AT_HWCAP = 16  # elf.h
N_NEW = 16  # tokens after each prompt
SEEDS = (1, 2, 3)
MIN_AGREEMENT = 0.9  # of greedy ids: one near tie changes the rest of its text
NEAR_TIE = 0.02  # of two labels' probabilities
STARTS = ("Once upon a time", "One day,", "The little", "In the dark forest,")
GOINGS = (" a girl", " the dog", " an old man", " two friends", " a bird", " Tom", " she", " it")
PROMPTS = [start + going for start, going in product(STARTS, GOINGS)]


def run(out: Path, bundles: list[str]) -> None:
    """Write what every bundle says, and the CPU that it was said on."""
    results: dict[str, Any] = {"cpu": cpu()}
    for name in bundles:
        start = time.perf_counter()
        label = Path(name).name
        results[label] = speak(name)
        print(f"{label}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


def cpu() -> dict[str, str]:
    """Machine, versions and what the CPU says it can do."""
    import onnxruntime

    from gpt_edge.native.library import find_library

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {name.strip(): value.strip() for name, value in found.items()}
    return {
        "machine": platform.machine(),
        "name": known.get("model name", known.get("CPU part", "")),
        "features": known.get("Features", known.get("flags", "")),
        "hwcap": f"{hwcap():x}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "operators": "onnxruntime's" if find_library() is None else "custom",
    }


def hwcap() -> int:
    """What the kernel, or the emulator, says that the CPU can do: AT_HWCAP's bits."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    return int(getauxval(AT_HWCAP))


def speak(name: str) -> dict[str, Any]:
    """A bundle's outputs, and whether custom operators compute all of its products."""
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.schemes import SCHEMES

    bundle = Bundle.open(name)
    found = classify(name) if bundle.task is not None else generate(name)
    is_whole = bundle.graph == "edge" and SCHEMES[bundle.scheme].activations in ("row", "block")
    return found | {"is_whole": is_whole}


def generate(name: str) -> dict[str, Any]:
    """Ids, texts and the hash of a language model."""
    from gpt_edge.generate.load import load
    from gpt_edge.generate.params import SamplingParams

    model = load(name, threads=1)
    greedy = SamplingParams(max_new_tokens=N_NEW)
    prompts = [model.tokenizer.encode(prompt) for prompt in PROMPTS]
    ids = [list(model.generate_ids(prompt, greedy)) for prompt in prompts]
    texts = [
        model.complete(
            PROMPTS[0],
            SamplingParams(max_new_tokens=N_NEW, temperature=0.8, top_k=40, seed=seed),
        ).text
        for seed in SEEDS
    ]
    session = model.session
    logits = session.forward([prompts[0]], session.new_cache())[0, -1]
    digest = hashlib.sha256(logits.tobytes()).hexdigest()
    return {"ids": ids, "texts": texts, "sha256": digest, "logits": logits.tolist()}


def classify(name: str) -> dict[str, Any]:
    """Labels and scores of a classifier."""
    from gpt_edge.classify.classifier import Classifier

    classifier = Classifier.load(name, threads=1)
    predictions = classifier.predict(PROMPTS)
    # not of the scores: numpy's exp makes them, which has a body for each kind of CPU
    sequences = [ids for text in PROMPTS for ids in classifier.encode(text).sequences]
    digest = hashlib.sha256(classifier.encoder.logits(sequences).tobytes()).hexdigest()
    return {
        "labels": list(predictions.labels),
        "scores": [probabilities.tolist() for probabilities in predictions.probabilities],
        "sha256": digest,
    }


def compare(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Print the table; return whether everything agrees as it should."""
    first, second = here.pop("cpu"), there.pop("cpu")
    print(f"{describe(first)}; against {describe(second)}\n")
    print("| bundle | same greedy ids | same sampled texts | logits, probabilities | same labels |")
    print("|---|---|---|---|---|")
    are_custom = first["operators"] == second["operators"] == "custom"
    agreements = []
    for name, mine in here.items():
        agreements.append(row(name, mine, there[name]))
        if are_custom and mine["is_whole"] and not agree_exactly(mine, there[name]):
            print(f"error: {name} must be the same with custom operators", file=sys.stderr)
            agreements.append(False)
    return all(agreements)


def agree_exactly(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Are ids, texts, labels and the bits of logits the same?"""
    return all(here.get(key) == there.get(key) for key in ("ids", "texts", "labels", "sha256"))


def describe(cpu: dict[str, str]) -> str:
    """One CPU in a line."""
    versions = f"Python {cpu['python']}, numpy {cpu['numpy']}, onnxruntime {cpu['onnxruntime']}"
    features = f", features {cpu['features']}, AT_HWCAP {cpu['hwcap']}"
    if cpu["machine"] == "x86_64":  # hundreds of flags, and the name says them
        features = ""
    return f"{cpu['machine']} ({cpu['name']}{features}), {versions}, {cpu['operators']} operators"


def row(name: str, here: dict[str, Any], there: dict[str, Any]) -> bool:
    """One bundle's line of the table, and whether it agrees."""
    if "labels" in here:
        scores, others = np.array(here["scores"]), np.array(there["scores"])
        same = [a == b for a, b in zip(here["labels"], there["labels"], strict=True)]
        two_best = np.sort(scores, axis=-1)[:, -2:]
        ties = two_best[:, 1] - two_best[:, 0] < NEAR_TIE
        difference = np.abs(scores - others).max()
        logits = bits_or(f"{difference:.1e} apart", here, there)
        print(f"| {name} | | | {logits} | {sum(same)} of {len(same)} |")
        return bool((np.array(same) | ties).all())
    pairs = [
        pair
        for mine, others in zip(here["ids"], there["ids"], strict=True)
        for pair in zip_longest(mine, others)
    ]
    n_same = sum(a == b for a, b in pairs)
    texts = sum(a == b for a, b in zip(here["texts"], there["texts"], strict=True))
    difference = np.abs(np.array(here["logits"]) - np.array(there["logits"])).max()
    logits = bits_or(f"{difference:.1e} apart", here, there)
    print(f"| {name} | {n_same} of {len(pairs)} | {texts} of {len(SEEDS)} | {logits} | |")
    return n_same >= MIN_AGREEMENT * len(pairs)


def bits_or(difference: str, here: dict[str, Any], there: dict[str, Any]) -> str:
    """The table's word for logits."""
    return "the same bits" if here["sha256"] == there["sha256"] else difference


def main() -> int:
    """Run or compare."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = arguments.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("out", type=Path)
    runs.add_argument("bundles", nargs="+")
    compares = commands.add_parser("compare")
    compares.add_argument("here", type=Path)
    compares.add_argument("there", type=Path)
    given = arguments.parse_args()
    if given.command == "run":
        run(given.out, given.bundles)
        return 0
    here, there = (json.loads(path.read_text()) for path in (given.here, given.there))
    return 0 if compare(here, there) else 1


if __name__ == "__main__":
    sys.exit(main())
