"""The C++ program of examples/cpp beside Python: tokens per second, and CPU time and memory of a
whole process.

    python benchmarks/speed/cpp.py [BUNDLE] [--rounds 5] [--tokens 200] [--threads 1] [--operators]

Both run the same bundle with the same settings in processes of their own, in alternation; the table
has the best round of each, as other work on the machine only takes time. The ids must be equal.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.native.library import find_library

REPO = Path(__file__).resolve().parents[2]
PROMPT = "Once upon a time"
PYTHON = """
import sys
import gpt_edge
model = gpt_edge.load(sys.argv[1], threads=int(sys.argv[5]),
    native=False if sys.argv[4] == "0" else None)
done = model.complete(sys.argv[2], max_new_tokens=int(sys.argv[3]))
print(*done.ids)
print(f"{done.tokens_per_second:.1f} tokens/s", file=sys.stderr)
"""


@dataclass
class Run:
    """One process: its ids, and what it took."""

    ids: str
    tokens_per_second: float
    cpu_seconds: float  # from its start to its end
    megabytes: float  # the peak of its resident memory


def run(command: list[str], environment: dict[str, str]) -> Run:
    """Start a process, and read what it says and what it used."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        seconds = used.ru_utime + used.ru_stime
        out.seek(0)
        errors.seek(0)
        said = errors.read().decode()
        if status != 0:
            raise SystemExit(f"{command[0]}: {said}")
        speed = re.search(r"([\d.]+) tokens/s", said)
        assert speed is not None, said
        return Run(out.read().decode().strip(), float(speed[1]), seconds, used.ru_maxrss / 1024)


def compiled(folder: Path) -> Path:
    """The program, with the optimizations that its CMake file takes."""
    program = folder / "gpt_edge_generate"
    files = [str(REPO / "examples" / "cpp" / f"{name}.cpp") for name in ("gpt_edge", program.name)]
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-ffp-contract=off"]
    subprocess.run(["g++", *flags, *files, "-o", str(program), "-ldl", "-pthread"], check=True)
    return program


def row(name: str, runs: list[Run]) -> str:
    """The best of each figure."""
    return (
        f"| {name} | {max(one.tokens_per_second for one in runs):.0f} "
        f"| {min(one.cpu_seconds for one in runs):.2f} | {min(one.megabytes for one in runs):.0f} |"
    )


def main() -> None:
    """Alternate, then print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", nargs="?", default=str(REPO / "models" / DEFAULT_BUNDLE))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--operators", action="store_true", help="with custom operators")
    parser.add_argument("--program", help="gpt_edge_generate; by default it is compiled")
    options = parser.parse_args()
    library = str(find_library() or "0") if options.operators else "0"
    capi = Path(onnxruntime.__file__).parent / "capi"
    environment = {
        **os.environ,
        "GPT_EDGE_ONNXRUNTIME": str(next(capi.glob("libonnxruntime.so.*"))),
        "PYTHONPATH": str(REPO),
    }
    cpp: list[Run] = []
    python: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        program = options.program or str(compiled(Path(folder)))
        words = [options.bundle, PROMPT, "--greedy", "--ids", "--timings", "--operators", library]
        words += ["--threads", options.threads]
        for _ in range(options.rounds):
            cpp.append(run([program, *words, "--max-new-tokens", str(options.tokens)], environment))
            arguments = [options.bundle, PROMPT, str(options.tokens), library, options.threads]
            python.append(run([sys.executable, "-c", PYTHON, *arguments], environment))
            if cpp[-1].ids != python[-1].ids:
                raise SystemExit("the ids differ")
    print("| | tokens/s | CPU seconds | MB |\n|---|---|---|---|")
    print(row("C++", cpp))
    print(row("Python", python))


if __name__ == "__main__":
    main()
