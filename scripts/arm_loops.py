"""What the innermost loops of integer products cost on Arm, counted and by llvm-mca's models.

    python scripts/arm_loops.py [OBJECT...] [--cpus NAME...] [--json]

Without OBJECT our own bodies are compiled. Needs gcc-aarch64-linux-gnu and llvm-mca, 16 or newer
(Debian: gcc-aarch64-linux-gnu, llvm-19). An OBJECT is any compiled file for aarch64, such as
another library's.

For every loop without a loop in it that multiplies bytes: its instructions, its products of two
bytes, both divided, and the products a cycle that each CPU would reach if its caches never kept it
waiting (llvm-mca's "Block RThroughput"), an upper bound. A product of one row is one weight. A row
that reads its weights interleaved in memory needs none of the shuffles of one that reads them as
they are mapped.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpt_edge.native.compile import OPTIONS  # noqa: E402, of this checkout

BODIES = ("neon", "dotprod", "i8mm")
# llvm has models of its own for cortex-a55 and neoverse-n1; cortex-a76 borrows cortex-a57's, and
# apple-m1 has that of Apple's Cyclone
CPUS = ("cortex-a55", "cortex-a76", "neoverse-n1", "apple-m1")
GCC, OBJDUMP = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump"
LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*?)\s*(?://.*)?$")
TARGET = re.compile(r"\b([0-9a-f]+) <[^>]*>")
BRANCHES = re.compile(r"b(\.\w+)?|cbn?z|tbn?z")
PRODUCTS_OF = {"sdot": 16, "usdot": 16, "smmla": 32, "usmmla": 32}
LONG = re.compile(r"[su]ml[as]l2?|[su]mull2?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a disassembly."""

    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = TARGET.search(self.operands)
        return int(found[1], 16) if found and BRANCHES.fullmatch(self.name) else None

    @property
    def n_products(self) -> int:
        """Products of two bytes."""
        if LONG.fullmatch(self.name):
            return 8 if ".8h" in self.operands.split(",")[0] else 0
        return PRODUCTS_OF.get(self.name, 0)


@dataclass
class Loop:
    """An innermost loop. products_per_cycle: by CPU."""

    file: str
    function: str
    n_instructions: int
    n_products: int
    n_loads: int
    products_per_cycle: dict[str, float] = field(default_factory=dict)

    @property
    def per_product(self) -> float:
        """Instructions."""
        return self.n_instructions / self.n_products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="*", type=Path, metavar="OBJECT")
    parser.add_argument("--cpus", nargs="+", default=CPUS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    mca = _llvm_mca()
    with tempfile.TemporaryDirectory() as folder:
        objects = asked.objects or [_compiled(name, Path(folder)) for name in BODIES]
        loops = [loop for path in objects for loop in loops_of(path, mca, asked.cpus)]
    if asked.json:
        print(json.dumps([asdict(loop) for loop in loops], indent=2))
        return
    print(f"| file | function | instructions | products | each | {' | '.join(asked.cpus)} |")
    print("|---" * (5 + len(asked.cpus)) + "|")
    for loop in loops:
        rates = " | ".join(f"{loop.products_per_cycle[cpu]:.1f}" for cpu in asked.cpus)
        print(
            f"| {loop.file} | `{loop.function}` | {loop.n_instructions} | {loop.n_products} | "
            f"{loop.per_product:.3f} | {rates} |"
        )


def _llvm_mca() -> str:
    names = ["llvm-mca-19", "llvm-mca-18", "llvm-mca-17", "llvm-mca-16", "llvm-mca"]
    found = next((name for name in names if shutil.which(name)), None)
    if found is None or shutil.which(GCC) is None:
        raise SystemExit(
            f"error: needs {GCC} and llvm-mca (apt install gcc-aarch64-linux-gnu llvm-19)"
        )
    return found


def _compiled(body: str, folder: Path) -> Path:
    made = folder / f"{body}.o"
    source = ROOT / "gpt_edge/native/kernels/bodies" / f"{body}.c"
    subprocess.run([GCC, *OPTIONS, "-fPIC", "-c", source, "-o", made], check=True)
    return made


def loops_of(path: Path, mca: str, cpus: list[str]) -> Iterator[Loop]:
    """The innermost loops of a file that multiply bytes, the cheapest of each function first."""
    for function, body in _functions(path):
        found = []
        for lines in _innermost(body):
            n_products = sum(line.n_products for line in lines)
            if n_products:
                n_loads = sum(line.name.startswith("ld") for line in lines)
                loop = Loop(path.stem, function, len(lines), n_products, n_loads)
                for cpu in cpus:
                    loop.products_per_cycle[cpu] = n_products / _cycles(lines, mca, cpu)
                found.append(loop)
        yield from sorted(found, key=lambda loop: loop.per_product)


def _functions(path: Path) -> Iterator[tuple[str, list[Instruction]]]:
    done = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", path], check=True, capture_output=True, text=True
    )
    for part in re.split(r"^(?=[0-9a-f]+ <.+>:$)", done.stdout, flags=re.MULTILINE)[1:]:
        title, *rest = part.splitlines()
        lines = [found for line in rest if (found := LINE.match(line))]
        body = [Instruction(int(one[1], 16), one[2], one[3]) for one in lines]
        yield title.partition("<")[2].rstrip(">:"), body


def _innermost(body: list[Instruction]) -> Iterator[list[Instruction]]:
    first = body[0].address if body else 0
    spans = {
        (line.target, line.address)
        for line in body
        if line.target is not None and first <= line.target <= line.address
    }
    for start, end in sorted(spans):
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans):
            yield [line for line in body if start <= line.address <= end]


def _cycles(lines: list[Instruction], mca: str, cpu: str) -> float:
    """Cycles of one round when every load hits the first cache."""
    text = "loop:\n" + "\n".join(
        f"{line.name} {TARGET.sub('loop', line.operands)}" for line in lines
    )
    done = subprocess.run(
        [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm,+fullfp16"],
        input=text + "\n",
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Block RThroughput:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout[:500]
    return float(found[1])


if __name__ == "__main__":
    main()
