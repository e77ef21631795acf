"""Branch coverage of the files that everything rests on, as a table.

    python scripts/branches.py [PART ...]

Needs coverage.py (`pip install coverage`). Each part is measured with the tests that are about it,
in one process: what a child process runs does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# part: its files, its tests
PARTS: dict[str, tuple[list[str], list[str]]] = {
    "gate": (
        ["gpt_edge/bundle/gate/*.py", "gpt_edge/bundle/onnx_wire.py"],
        [
            "tests/unit/bundle/gate",
            "tests/unit/bundle/test_optimum_folder.py",
            "tests/hostile/test_gate_in_process.py",
            "tests/hostile/test_fast_readers.py",
        ],
    ),
    "manifest": (["gpt_edge/bundle/manifest.py"], ["tests/unit/bundle"]),
    "atomic_files": (
        [f"gpt_edge/system/{name}.py" for name in ("atomic_files", "lock", "disk")],
        ["tests/unit/system"],
    ),
    "tokenizer": (
        ["gpt_edge/tokenizer/*.py"],
        ["tests/unit/tokenizer", "tests/parity/test_tokenizers_of_checkpoints.py"],
    ),
    "sampling": (
        [
            f"gpt_edge/generate/{name}.py"
            for name in ("sampler", "truncation", "penalties", "processors", "params", "philox")
        ],
        ["tests/unit/generate", "tests/parity/test_processors.py"],
    ),
}


def measure(part: str) -> dict[str, tuple[float, str]]:
    """Percent of lines and branches, and what is missing, of each file of a part."""
    files, tests = PARTS[part]
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as scratch:
        data, report = Path(scratch, "data"), Path(scratch, "report.json")
        coverage = [sys.executable, "-m", "coverage"]
        run = ["run", "--branch", f"--data-file={data}", f"--include={','.join(files)}"]
        marks = "not network" if part == "gate" else "not slow and not network"
        pytest = ["-m", "pytest", "-n0", "-p", "no:cacheprovider", "-m", marks, *tests]
        subprocess.run([*coverage, *run, *pytest], cwd=REPO, check=True, stdout=sys.stderr)
        write = ["json", f"--data-file={data}", "-o", str(report)]
        subprocess.run([*coverage, *write], cwd=REPO, check=True, stdout=sys.stderr)
        found = json.loads(report.read_text("utf-8"))["files"]
    return {
        name: (values["summary"]["percent_covered"], missing(values))
        for name, values in found.items()
    }


def missing(values: dict[str, list[object]]) -> str:
    lines = [str(line) for line in values["missing_lines"]]
    branches = [f"{start}→{end}" for start, end in values["missing_branches"]]  # type: ignore[misc]
    return ", ".join([*lines, *branches])


def main() -> int:
    print("| part | file | covered | missing |\n|---|---|---|---|")
    for part in sys.argv[1:] or PARTS:
        for name, (percent, rest) in sorted(measure(part).items()):
            print(f"| {part} | `{name}` | {percent:.1f} % | {rest} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
