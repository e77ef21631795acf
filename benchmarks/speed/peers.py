"""gpt-edge beside the engines a user could pick instead: runs them in alternation, then writes
benchmarks/results/speed-KIND.md and speed-KIND.png, KIND being the kind of this CPU: avx2, avxvnni,
avx512, amx or neon. The table of another kind stays; speed.md beside them sums all of them up by
hand.

    python benchmarks/speed/peers.py --venvs VENVS --models MODELS \\
        --bundle edge-int8=MODELS/gpt2-edge-int8 --bundle edge-int4=MODELS/gpt2-edge-int4 \\
        --stock edge-int8-stock=MODELS/gpt2-edge-int8

A bundle runs with gpt-edge's custom operators where `gpt-edge native build` built them, and after
--stock with onnxruntime's. Needs the peers' harness (--harness, by default ../shared/peers beside
this checkout; its README.md says how VENVS and MODELS are made), numpy and matplotlib, and a
machine that does nothing else: 5 rounds take about half an hour. The bundles are exports of the
harness's checkpoint, so that every engine runs the same model:

    gpt-edge export MODELS/gpt2-hf MODELS/gpt2-edge-int8 --scheme int8

Samples are appended to a file of JSON lines, so rounds can be run in pieces, each a call with the
same --samples:

    python benchmarks/speed/peers.py ... --rounds 1 --samples runs/speed.jsonl     # five times
    python benchmarks/speed/peers.py --report runs/speed.jsonl    # the report again, without a run

drive.py of the harness does the running: A B C, A B C, a new process each, waiting until the
machine is quiet. One batch of 8 follows with two threads. What fails is listed; a bundle that fails
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from run_gpt_edge import STOCK
from speed_figures import BASELINE, Sample, bandwidths, medians, read_samples
from speed_goals import goals, goals_table, wanted_on
from speed_machine import cpu_kind, machine
from speed_report import agreement_table, noise_lines, plot, setting_table

REPO = Path(__file__).resolve().parents[2]
PEERS = (
    "ov-int8,ov-int8-bf16,llama-q8_0,ct2-int8,ort-oldtool-int8,genai-int8,optimum-int8,llama-q4_0"
)
# At batch 8, those that take several rows.
BATCH_PEERS = "ov-int8-optimum,llama-q8_0,ct2-int8,ort-oldtool-int8,genai-int8,optimum-int8"


def main() -> None:
    """Run what is asked for, then write the report."""
    given = parse(sys.argv[1:])
    samples = given.report
    if samples is None:
        samples = given.samples or REPO / "runs" / f"speed-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        samples.parent.mkdir(parents=True, exist_ok=True)
        run(given, samples)
    try:
        found = read_samples(samples)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    missing = missing_engines(given, found)
    write_report(found, given.out, missing)
    print(f"{given.out}: {len(found)} samples of {samples}")
    if failed := [
        name for name in given.bundle if any(line.startswith(f"{name} ") for line in missing)
    ]:
        raise SystemExit(f"error: no figures of {', '.join(failed)}; drive.py said why")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line, checked: `bundle` becomes a dictionary of folders by name. Wrong usage
    exits with 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--harness", type=Path, default=REPO.parent / "shared" / "peers", help="folder of drive.py"
    )
    parser.add_argument("--venvs", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--models", type=Path, help="folder of the peers' models")
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="may be given repeatedly",
    )
    parser.add_argument(
        "--stock",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="by onnxruntime's operators",
    )
    parser.add_argument(
        "--select", default=PEERS, help="peers at batch 1, by their names in peers.json"
    )
    parser.add_argument("--batch-select", default=BATCH_PEERS, help="peers at batch 8")
    parser.add_argument("--batches", default="1,8", help="either or both of 1 and 8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="generations per process and prompt")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--prompt-tokens", default="32,512")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument(
        "--quiet-wait",
        type=float,
        default=60,
        help="seconds that a run may wait for a quiet machine",
    )
    parser.add_argument(
        "--samples", type=Path, help="append to this file; by default a new one in runs/"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="SAMPLES",
        help="write the report of these samples, run nothing",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPO / "benchmarks" / "results" / f"speed-{cpu_kind()}.md",
        help="its plot lies beside, as .png",
    )
    given = parser.parse_args(words)
    pairs = [text.partition("=") for text in given.bundle + given.stock]
    given.stock = {text.partition("=")[0] for text in given.stock}
    given.batches = given.batches.split(",")
    if not set(given.batches) <= {"1", "8"}:
        parser.error("--batches wants 1, 8 or 1,8")
    given.bundle = {name: Path(folder).resolve() for name, _, folder in pairs}
    if len(given.bundle) < len(pairs) or not all(name and folder for name, _, folder in pairs):
        parser.error("--bundle and --stock want NAME=FOLDER, each name once")
    if given.report is None:
        if given.venvs is None or given.models is None:
            parser.error("--venvs and --models are needed to run anything")
        if not (given.harness / "drive.py").is_file():
            parser.error(
                f"{given.harness} has no drive.py: give the folder of the peers' harness with "
                "--harness"
            )
        if clash := sorted(set(given.bundle) & set(read_peers(given.harness))):
            parser.error(f"{clash[0]} is the name of a peer: give the bundle another")
    return given


def missing_engines(given: argparse.Namespace, samples: Sequence[Sample]) -> list[str]:
    """ "NAME at batch B" for everything that was asked for and gave nothing."""
    selected = {"1": given.select, "8": given.batch_select}
    asked = [
        (name, int(batch))
        for batch in given.batches
        for name in [*given.bundle, *filter(None, selected[batch].split(","))]
    ]
    there = {(sample["peer"], sample["batch"]) for sample in samples}
    return [f"{name} at batch {batch}" for name, batch in asked if (name, batch) not in there]


def read_peers(harness: Path) -> dict[str, list[str]]:
    """The harness's peers.json: name to [environment, runner, model, variant]."""
    peers: dict[str, list[str]] = json.loads((harness / "peers.json").read_text("utf-8"))
    return peers


def run(given: argparse.Namespace, samples: Path) -> None:
    """Let drive.py run the engines and append to `samples`. drive.py joins paths, so absolute ones
    stand for themselves.
    """
    harness = given.harness.resolve()
    runner = str(REPO / "benchmarks" / "speed" / "run_gpt_edge.py")
    ours = {
        name: [sys.prefix, runner, str(folder), STOCK if name in given.stock else ""]
        for name, folder in given.bundle.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        peers = Path(folder) / "peers.json"
        peers.write_text(json.dumps({**read_peers(harness), **ours}), "utf-8")
        canary = compile_canary(harness, Path(folder))
        jobs = {
            "1": (given.select, given.threads, given.prompt_tokens),
            "8": (given.batch_select, "2", "32"),
        }
        for batch in given.batches:
            select, threads, prompts = jobs[batch]
            names = ",".join([*given.bundle, *filter(None, [select])])
            command = [
                sys.executable,
                str(harness / "drive.py"),
                "--peers",
                str(peers),
                "--select",
                names,
            ]
            command += [
                "--venvs",
                str(given.venvs.resolve()),
                "--models",
                str(given.models.resolve()),
            ]
            command += [
                "--threads",
                threads,
                "--prompt-tokens",
                prompts,
                "--batch",
                batch,
                "--baseline",
                BASELINE,
            ]
            command += ["--rounds", str(given.rounds), "--repeats", str(given.repeats)]
            command += ["--new-tokens", str(given.new_tokens), "--out", str(samples.resolve())]
            command += ["--quiet-wait", str(given.quiet_wait)]
            command += ["--canary", str(canary)] if canary else []
            environment = {**os.environ, "GPT_EDGE_PEERS": str(harness)}
            if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
                raise SystemExit("error: drive.py of the harness failed; its message is above")


def compile_canary(harness: Path, folder: Path) -> Path | None:
    """Build the harness's bandwidth probe; None, and a warning, without a compiler: then no
    roofline is reported.
    """
    program = folder / "membw"
    compiler = shutil.which("gcc") or shutil.which("cc")
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-funroll-loops", "-fopenmp"]
    built = compiler and subprocess.run(
        [compiler, *flags, str(harness / "membw.c"), "-o", str(program)], capture_output=True
    )
    if not built or built.returncode:
        print(
            "warning: no C compiler could build the bandwidth probe: no fraction of the roofline",
            file=sys.stderr,
        )
        return None
    return program


def write_report(samples: Sequence[Sample], out: Path, missing: Sequence[str] = ()) -> None:
    """Write `out` (Markdown) and its plot beside it. missing: what was asked for and gave none."""
    table = medians(samples)
    plotted = out.with_suffix(".png")
    gb_s = {threads: found[0] for threads, found in bandwidths(samples).items()}
    days = sorted({time.strftime("%Y-%m-%d", time.localtime(sample["when"])) for sample in samples})
    figures = [found for engines in table.values() for found in engines]
    kept = [found.n_kept for found in figures]
    parts = [
        "# Speed beside other engines",
        f"GPT-2 124M with random weights, greedy, {samples[0]['new_tokens']} new tokens after the "
        "prompt, no end token; "
        f"measured on {' and '.join(days)}; {machine()}. Engines took turns, a new process each; "
        "every figure is a median "
        f"over {'–'.join(str(n) for n in sorted({min(kept), max(kept)}))} "
        f"round{'s' * (max(kept) > 1)}. Written by `python benchmarks/speed/peers.py --venvs VENVS "
        "--models MODELS "
        "--bundle NAME=FOLDER --stock NAME=FOLDER`, which says how to repeat it.",
        "Ready: from the start of the process, with the file in the page cache. First token: from "
        "a warm process. Peak "
        "RSS: the process's, so at 512 tokens it includes what 32 needed. × best peer: the fastest "
        "peer with as many "
        "bits per weight. Of roofline: the weights (124 MB in int8, 70 MB in 4 bits) and fp32 keys "
        "and values "
        "(float16 with gpt-edge's custom operators), read once a token at the bandwidth measured "
        "just "
        "before the runs.",
        f"![Decode speed and first token by engine]({plotted.name})",
    ]
    if n_disturbed := sum(found.is_disturbed for found in figures):
        warning = (
            f"{n_disturbed} of {len(figures)} rows below were disturbed in every round: "
            "not to be quoted"
        )
        print(f"warning: {warning}", file=sys.stderr)
        parts.insert(2, f"**{warning}.** No goal is judged by them.")
    sound = {
        setting: [found for found in engines if not found.is_disturbed]
        for setting, engines in table.items()
    }
    found = goals(sound, gb_s, wanted_on(cpu_kind()))
    if found:
        parts += ["## Goals", goals_table(found)]
    for setting, engines in table.items():
        batch, threads, prompt = setting
        parts.append(
            f"## Batch {batch}, {threads} thread{'s' * (threads > 1)}, prompt of {prompt} tokens"
        )
        parts.append(setting_table(setting, engines, gb_s.get(threads)))
    parts += ["## Noise", "\n".join(noise_lines(samples, table))]
    distinct = max(len(set(sample["head_ids"])) for sample in samples)
    parts += [
        "## Same tokens?",
        "The first eight greedy tokens, against those that most engines choose. It is a check of "
        "wiring, and a weak one "
        f"where they hardly differ among themselves: at most {distinct} of the eight are different "
        "here.",
    ]
    parts += [agreement_table(samples), "## Versions", versions_table(samples)]
    if missing:
        parts += ["## Failed", f"No figures of {', '.join(missing)}."]
    plot(plotted, table)
    out.write_text("\n\n".join(parts) + "\n", "utf-8")


def versions_table(samples: Sequence[Sample]) -> str:
    """What each engine says of itself."""
    found = sorted({(sample["peer"], sample["version"], sample["precision"]) for sample in samples})
    lines = [
        "| engine | version | weights |",
        "|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in found),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
