"""Is a library of custom operators right? The built-in bundles with it, against the same bundles
with onnxruntime's operators.

`python -m gpt_edge.verify.native_operators LIBRARY` prints the figures as JSON: in a process of its
own, as a wrong library may end it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import Bundle, builtin_bundles
from gpt_edge.errors import GPTEdgeError
from gpt_edge.native.compile import compiled_library
from gpt_edge.native.library import body_in_use, built_path, is_own
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session
from gpt_edge.system.atomic_files import publish_file, write_file
from gpt_edge.system.disk import output_error
from gpt_edge.system.python_process import python_command, python_environment
from gpt_edge.verify import parity
from gpt_edge.verify.classifiers import compare_tasks, task_probes
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.native_bits import BITS, bits_of
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of

SECTION = "onnxruntime against native"
# nats; activations that are rounded the other way make 2e-4 (float32 sums in another order)
MAX_KL = 2e-3
SECONDS = 600


def build_library(progress: Progress = silent) -> dict[str, Any]:
    """Compile the operators for this machine, check them, and only then put them where sessions
    load them from.

    Returns the figures, as `Verification.figures`. Raises as `compiled_library`, and GPTEdgeError
    for operators that do not agree with onnxruntime's own; then nothing is left behind.
    """
    target = built_path()
    with publish_file(
        target, force=True, is_ours=lambda path: True, folder_mode=0o700
    ) as candidate:
        progress("compiling")
        write_file(candidate, compiled_library())
        progress("checking against onnxruntime's operators")
        figures = check_in_child(candidate)
        candidate.chmod(0o644)  # whatever the umask: what others may write to is not loaded
    if not is_own(target):
        raise GPTEdgeError(
            f"others may write to {target.parent}", hint=f"chmod go-w {target.parent}"
        )
    return figures


def remove_library() -> None:
    """Remove what `build_library` made. Raises OutputError."""
    try:
        built_path().unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, built_path()) from error


def check_in_child(library: Path) -> dict[str, Any]:
    """Check a library in a process of its own, and return the figures, as `Verification.figures`.

    Raises GPTEdgeError for operators that do not agree with onnxruntime's own, or end the process.
    """
    try:
        done = subprocess.run(
            python_command("-m", "gpt_edge.verify.native_operators", str(library)),
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GPTEdgeError(f"the operators did not answer within {SECONDS} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
        raise GPTEdgeError(f"the operators failed with exit code {done.returncode}: {last[:250]}")
    result = json.loads(done.stdout)
    if result["faults"]:
        raise GPTEdgeError(f"the operators are wrong on this machine: {result['faults'][0]}")
    figures: dict[str, Any] = result["figures"]
    return figures


def check_library(library: Path) -> Verification:
    """Compare every built-in bundle with `library` with the same by onnxruntime, with itself on
    every execution path, and with the bits that it has on every CPU.

    Raises GPTEdgeError on a CPU that has no body: onnxruntime's operators would be compared with
    themselves.
    """
    body_in_use(library)
    report = Verification()
    for name in builtin_bundles():
        bundle = Bundle.open(name)
        if bundle.task is None:
            _check_model(report, bundle, library)
        else:
            _check_classifier(report, bundle, library)
        check_bits(report, bundle, library)
    return report


def check_bits(report: Verification, bundle: Bundle, library: Path) -> None:
    """Compare a built-in bundle's logits with the bits that they have on every CPU."""
    name = bundle.manifest.name
    bits = bits_of(bundle, library)
    if bits != BITS[name]:
        report.faults.append(f"{name} has the bits {bits}, on every CPU they are {BITS[name]}")


def _check_model(report: Verification, bundle: Bundle, library: Path) -> None:
    probes = parity.probes(bundle.config, tokenizer_of(bundle))
    plain = Session(bundle, native=False)
    expected = [parity.probe_logits(plain, probe) for probe in probes]
    session = Session(bundle, native=library)
    actual = [parity.probe_logits(session, probe) for probe in probes]
    agreement = parity.compare(probes, expected, actual)
    # embeddings take another path through the graph
    Encoder(bundle, native=library).states([probe.ids.tolist() for probe in probes])
    report.add(SECTION, bundle.manifest.name, agreement, {"mean_kl": MAX_KL}, excuse_ties=True)
    LanguageModelSubject(probes).check_paths(
        report, session, bundle.scheme, name=bundle.manifest.name
    )


def _check_classifier(report: Verification, bundle: Bundle, library: Path) -> None:
    assert bundle.task is not None
    probes = task_probes(bundle.config, bundle.task, tokenizer_of(bundle))
    expected = Encoder(bundle, native=False).logits(probes.sequences)
    actual = Encoder(bundle, native=library).logits(probes.sequences)
    report.add(
        SECTION,
        bundle.manifest.name,
        compare_tasks(probes, expected, actual),
        {"mean_kl": MAX_KL},
        excuse_ties=True,
    )


if __name__ == "__main__":
    checked = check_library(Path(sys.argv[1]))
    print(json.dumps({"figures": checked.figures, "faults": checked.faults}))
