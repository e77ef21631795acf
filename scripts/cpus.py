"""The runtime on CPUs that this machine is not: what scripts/cpus.sh runs.

    python scripts/cpus.py export FOLDER     a bundle of every scheme and graph; needs torch
    python scripts/cpus.py probe FOLDER OUT  this CPU's outputs of those bundles, of the golden and
                                             of the built-in ones, to OUT.npz; needs no torch
    python scripts/cpus.py compare HERE.npz OTHER.npz...
                                             a Markdown table; exit code 1 where a CPU differs

`probe` runs under an emulator. An output is the logits of one text, the greedy tokens after its
first eight ids, or a classifier's logits.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle

REPO = Path(__file__).resolve().parents[1]
SCHEMES = ("fp32", "int8", "int8-block", "int4", "int8-dynamic")
GRAPHS = ("edge", "portable")
N_TOKENS, N_PROMPT, N_GREEDY = 40, 8, 24
# Mean KL in nats. Without quantized activations only the order of sums differs between CPUs; with
# them a sum that differs in its last bit may be quantized to the next level, which the limit of a
# verified bundle covers.
LIMIT = {"fp32": 1e-6}
QUANTIZED_LIMIT = 5e-3


def export(folder: Path) -> None:
    """Export a random model and a random classifier in every scheme as both graphs."""
    from gpt_edge.export.pipeline.export import export_bundle
    from tests.support.models import TINY, save_random
    from tests.support.task_models import save_task

    model = save_random(folder / "sources" / "model", TINY["gpt2"])
    task = save_task(folder / "sources" / "task", TINY["gpt1"], "classification")
    for graph in GRAPHS:
        for scheme in SCHEMES:
            out = folder / f"{scheme} {graph}"
            export_bundle(model, out, graph=graph, scheme=scheme, tokenizer="none")
        for scheme in SCHEMES[:-1]:
            out = folder / f"{scheme} {graph} classifier"
            export_bundle(task, out, graph=graph, scheme=scheme, tokenizer="none")


def probe(folder: Path, out: Path) -> None:
    """Write this CPU's outputs, a named array for each bundle, and whether products saturate."""
    from gpt_edge.bundle.bundle import Bundle, builtin_bundles
    from gpt_edge.runtime.ort_session import products_saturate

    found: dict[str, Any] = {"saturates": np.array(products_saturate())}
    bundles = {path.name: path for path in sorted(folder.iterdir()) if path.name != "sources"}
    bundles |= {f"golden {graph}": REPO / "tests" / "golden" / f"tiny-{graph}" for graph in GRAPHS}
    for name, path in (bundles | {name: name for name in builtin_bundles()}).items():
        found |= _outputs(name, Bundle.open(path))
        print(name, file=sys.stderr, flush=True)
    np.savez(out, **found)


def _outputs(name: str, bundle: Bundle) -> dict[str, np.ndarray]:
    from gpt_edge.runtime.encoder import Encoder
    from gpt_edge.runtime.session import Session

    ids = np.random.default_rng(0).integers(0, bundle.config.vocab_size, N_TOKENS)
    if bundle.task is not None:
        texts = [tuple(ids[:n].tolist()) for n in (3, 17, N_TOKENS)]
        return {f"{name}:logits": Encoder(bundle, threads=1).logits(texts)}
    session = Session(bundle, threads=1)
    logits = session.forward(ids[None], session.new_cache(), "all")[0]
    cache = session.new_cache()
    greedy = [int(session.forward(ids[None, :N_PROMPT], cache)[0].argmax())]
    while len(greedy) < N_GREEDY:
        greedy.append(int(session.decode([greedy[-1]], cache)[0].argmax()))
    return {f"{name}:logits": logits, f"{name}:greedy": np.array(greedy)}


def compare(here: Path, others: list[Path]) -> bool:
    """Print a row for each CPU and bundle; return whether all agree with this machine."""
    ours = np.load(here)
    print("| CPU | saturates | bundle | mean KL | largest difference | same id | same greedy |")
    print("|---|---|---|---|---|---|---|")
    agree = True
    for path in others:
        theirs = np.load(path)
        for key in (key for key in ours.files if key.endswith(":logits")):
            name = key.removesuffix(":logits")
            a, b = ours[key].astype(np.float64), theirs[key].astype(np.float64)
            divergence = float(_kl(a, b).mean())
            same = int((a.argmax(-1) == b.argmax(-1)).sum())
            agree &= divergence <= LIMIT.get(name.split()[0], QUANTIZED_LIMIT)
            greedy = name + ":greedy"
            prefix = "" if greedy not in ours.files else _prefix(ours[greedy], theirs[greedy])
            saturates = "yes" if theirs["saturates"] else "no"
            print(
                f"| {path.stem} | {saturates} | {name} | {divergence:.1e} | "
                f"{np.abs(a - b).max():.1e} | {same} of {len(a)} | {prefix} |"
            )
    return agree


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL divergence of each row in nats, from logits."""
    logs = [x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (p, q)]
    divergence: np.ndarray = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)
    return divergence


def _prefix(ours: np.ndarray, theirs: np.ndarray) -> str:
    """How many greedy tokens are the same before the first that differs."""
    differs = np.flatnonzero(ours != theirs)
    return f"{differs[0] if len(differs) else len(ours)} of {len(ours)}"


def main() -> int:
    command, *paths = sys.argv[1:] or ["help"]
    sys.path.insert(0, str(REPO))
    match command, [Path(path) for path in paths]:
        case "export", [folder]:
            export(folder)
        case "probe", [folder, out]:
            probe(folder, out)
        case "compare", [here, *others]:
            return 0 if compare(here, others) else 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
