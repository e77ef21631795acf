"""benchmarks/: what is measured beside the peers. The report from recorded samples, the runner in a
stub of the harness.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPO
from tests.support.tiny_model import bundle_path, open_session

sys.path.insert(0, str(REPO / "benchmarks" / "speed"))

import peers
import speed_figures
import speed_goals
import speed_machine
import speed_report

IDS = [11, 12, 13, 14, 15, 16, 17, 18]
RECORDED: dict[str, Any] = {
    **json.loads(  # what run_ct2.py printed
        '{"engine": "ctranslate2", "version": "ctranslate2 4.8.5", "precision": "int8_float32", '
        '"variant": "int8", "threads": 2, "batch": 1, "prompt_tokens": 32, "new_tokens": 128, '
        '"load_s": 1.161, "prefill_s": 0.07119, "prefill_tok_s": 449.5, "first_token_s": 0.07119, '
        '"decode_tok_s": 29.37, "decode_step_ms_p50": 32.01, "peak_rss_mb": 271.4, '
        '"disk_bytes": 127252291, "cpu_per_wall": 0.53, "repeats": 1, '
        '"head_ids": [2475, 2475, 2475, 2475, 2475, 2475, 2475, 2475]}'
    ),
    "peer": "ct2-int8",
    "round": 0,
    "foreign_cores": 0.02,
    "canary_gb_s": None,
    "when": 1795320000,  # by drive.py
}


def sample(peer: str, decode: float, **changes: Any) -> dict[str, Any]:
    """The recorded sample with another name and speed, undisturbed."""
    engine = speed_figures.OURS if peer.startswith("edge") else "other"
    precision = peer.partition("-")[2] if peer.startswith("edge") else "int8"
    same = {
        "peer": peer,
        "engine": engine,
        "precision": precision,
        "decode_tok_s": decode,
        "foreign_cores": 0.0,
    }
    return {**RECORDED, **same, "head_ids": IDS, **changes}


def written(folder: Path, samples: list[dict[str, Any]]) -> Path:
    """A file of samples."""
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in samples), "utf-8")
    return path


def test_a_recorded_sample_is_read(tmp_path: Path) -> None:
    assert speed_figures.read_samples(written(tmp_path, [RECORDED])) == [RECORDED]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "holds no samples"),
        ([{"peer": "a"}], "line 1 is no sample of drive.py: it lacks batch"),
        ([sample("a", 1), sample("a", 1, version="2")], "mixes 2 states of a"),
        ([sample("a", 1), sample("b", 1, new_tokens=7)], r"mixes runs of \[7, 128\] new tokens"),
    ],
)
def test_samples_that_do_not_belong_together_are_refused(
    tmp_path: Path, lines: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        speed_figures.read_samples(written(tmp_path, lines))


def test_medians_leave_out_rounds_that_others_disturbed() -> None:
    rounds = [sample("ct2-int8", speed) for speed in (50, 60, 100)]
    table = speed_figures.medians([*rounds, sample("ct2-int8", 1, foreign_cores=0.9)])
    (found,) = table[1, RECORDED["threads"], RECORDED["prompt_tokens"]]
    assert (found.decode, found.low, found.high, found.n_kept, found.n_rounds) == (
        60,
        50,
        100,
        3,
        4,
    )


def test_medians_keep_disturbed_rounds_where_there_are_no_others() -> None:
    (engines,) = speed_figures.medians([sample("ct2-int8", 5, foreign_cores=0.9)]).values()
    assert (engines[0].decode, engines[0].n_kept) == (5, 1)


def test_rows_that_were_always_disturbed_say_so_and_judge_no_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "plot", lambda path, table: None)
    samples = [sample("edge-int8", 100, foreign_cores=0.9), sample("ct2-int8", 60)]
    peers.write_report(samples, tmp_path / "speed.md")
    text = (tmp_path / "speed.md").read_text("utf-8")
    assert "**1 of 2 rows below were disturbed in every round" in text
    assert "| 1 of 1, disturbed |" in text
    assert "## Goals" not in text


def test_a_bundle_is_compared_with_peers_of_its_bits() -> None:
    speeds = {
        "ct2-int8": 60.0,
        "ov-int8": 80.0,
        "llama-q4_0": 200.0,
        "edge-int8": 120.0,
        "edge-int8-block": 100.0,
    }
    (engines,) = speed_figures.medians(
        [sample(name, speed) for name, speed in speeds.items()]
    ).values()
    assert [found.engine for found in engines] == sorted(speeds, key=lambda name: -speeds[name])
    best = speed_figures.best_peer(engines, 8)
    assert best is not None
    assert best.engine == "ov-int8"
    setting = 1, RECORDED["threads"], RECORDED["prompt_tokens"]
    row = speed_report.setting_table(setting, engines, None).splitlines()[3]
    assert row.startswith("| **edge-int8** | 120.0 | 120.0–120.0 | 1.50 |  |  |")


def test_the_roofline_counts_weights_and_the_keys_and_values_before() -> None:
    (engines,) = speed_figures.medians(
        [sample("edge-int8", 100, threads=1, prompt_tokens=32)]
    ).values()
    read = 124e6 + (32 + RECORDED["new_tokens"] / 2) * 12 * 2 * 768 * 4
    assert speed_figures.roofline(engines[0], (1, 1, 32), 20.0) == pytest.approx(100 * read / 20e9)


def test_goals_say_what_holds_and_what_does_not() -> None:
    settings = {"threads": 2, "prompt_tokens": 512, "peak_rss_mb": 300.0, "disk_bytes": 130_000_000}
    samples = [
        sample("edge-int8", 100, **settings, first_token_s=0.2, load_s=0.3),
        sample("ov-int8", 90, **settings, first_token_s=0.3, load_s=0.9),
        sample("ct2-int8", 70, **settings, first_token_s=0.21, load_s=0.2),
    ]
    wanted = speed_goals.WANTED["avx512"]
    medians = speed_figures.medians(samples)
    found = {goal.what: goal for goal in speed_goals.goals(medians, {}, wanted)}
    assert not found["decode t2 p512, × ov-int8"].holds  # 1.11, 1.4 is wanted
    assert not found["first token t2 p512, ms (ct2-int8: 210.0)"].holds  # 200, 189 is wanted
    assert found["ready after, s"].holds
    assert not found["peak RSS, MB, against 1.3 × the bundle"].holds  # 300, 169 is wanted
    assert found["disk, MB"].holds
    assert (
        "| edge-int8 | decode t2 p512, × ov-int8 | 1.11 | ≥ 1.4 | **no** |"
        in speed_goals.goals_table(list(found.values()))
    )


def test_avx2_has_goals_of_its_own_and_judges_our_operators_alone() -> None:
    settings = {"threads": 2, "prompt_tokens": 512, "peak_rss_mb": 229.0}
    native = {**settings, "version": "gpt-edge 0.1.0, onnxruntime 1.31.1, native"}
    samples = [
        sample("edge-int8", 140, **native, first_token_s=0.5),
        sample("edge-int8-stock", 90, **settings, first_token_s=0.9),
        sample("ov-int8", 100, **settings, first_token_s=0.4),
        sample("ct2-int8", 70, **settings, first_token_s=0.6),
    ]
    found = speed_goals.goals(speed_figures.medians(samples), {}, speed_goals.wanted_on("avx2"))
    assert {goal.engine for goal in found} == {"edge-int8"}
    by_name = {goal.what: goal for goal in found}
    assert not by_name["decode t2 p512, × ov-int8"].holds  # 1.4, 1.5 is wanted
    assert not by_name["first token t2 p512, ms (ct2-int8: 600.0)"].holds  # 500, 480 is wanted
    assert by_name["peak RSS, MB"].holds
    assert not [name for name in by_name if "optimum" in name or "roofline" in name]


def test_the_default_report_is_named_after_the_kind_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"flags": "sse2 avx2 avx_vnni"}
    monkeypatch.setattr(speed_machine, "cpu_facts", lambda: facts)
    assert peers.parse(["--report", "x"]).out.name == "speed-avxvnni.md"
    facts["flags"] += " avx512_vnni"
    assert peers.parse(["--report", "x"]).out.name == "speed-avx512.md"
    facts["flags"] += " amx_int8"
    assert peers.parse(["--report", "x"]).out.name == "speed-amx.md"


def test_a_goal_says_how_much_of_the_bandwidth_it_would_take() -> None:
    settings = {"threads": 1, "prompt_tokens": 32}
    table = speed_figures.medians(
        [sample("edge-int8", 50, **settings), sample("ov-int8", 60, **settings)]
    )
    found = speed_goals.goals(table, {1: 10.0}, speed_goals.WANTED["avx512"])
    (goal,) = [goal for goal in found if "ov-int8" in goal.what]
    read = 124e6 + (32 + RECORDED["new_tokens"] / 2) * 12 * 2 * 768 * 4
    assert goal.wanted == f"≥ 1.5 ({1.5 * 60 * read / 10e9:.0%} of the roofline)"


def test_the_bandwidth_is_that_of_batch_1() -> None:
    slow = sample("ov-int8", 60, batch=8, canary_gb_s=5.0)
    found = speed_figures.bandwidths([sample("ov-int8", 60, batch=1, canary_gb_s=10.0), slow, slow])
    assert list(found.values()) == [(10.0, 10.0, 10.0)]


def test_tokens_that_differ_from_the_usual_ones_are_counted() -> None:
    odd = [*IDS[:3], 0, *IDS[4:]]
    table = speed_report.agreement_table(
        [sample("a", 1), sample("b", 1), sample("c", 1, head_ids=odd), sample("a", 2)]
    )
    assert [line.split(" | ")[-1] for line in table.splitlines()[2:]] == [
        "8 of 8 |",
        "8 of 8 |",
        "3 of 8 |",
    ]


def test_the_report_is_written_with_its_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    samples = [sample("edge-int8", 100, canary_gb_s=20.0), sample("ct2-int8", 60, canary_gb_s=30.0)]
    peers.write_report(samples, tmp_path / "speed.md", ["llama-q8_0 at batch 1"])
    text = (tmp_path / "speed.md").read_text("utf-8")
    assert "| **edge-int8** | 100.0 | 100.0–100.0 | 1.67 |" in text
    assert "25.0 GB/s (20.0–30.0)" in text
    assert "No figures of llama-q8_0 at batch 1." in text
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bundle", "a=x"], "--venvs and --models are needed"),
        (["--bundle", "a", "--report", "x"], "--bundle and --stock want NAME=FOLDER"),
        (["--venvs", "v", "--models", "m", "--harness", "/nowhere"], "/nowhere has no drive.py"),
    ],
)
def test_wrong_usage_is_named(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        peers.parse(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_engines_run_through_drive_and_what_failed_is_listed(tmp_path: Path) -> None:
    """A stub of drive.py writes one sample for each peer whose model folder exists."""
    harness = tmp_path / "harness"
    harness.mkdir()
    (harness / "peers.json").write_text(
        json.dumps({"ct2-int8": ["ct2", "run_ct2.py", "gpt2-ct2", "int8"]})
    )
    (harness / "membw.c").write_text("this is no C")
    (harness / "drive.py").write_text(
        "import argparse, json, pathlib\n"
        "p = argparse.ArgumentParser()\n"
        "for o in 'peers select venvs models threads prompt-tokens batch baseline rounds repeats "
        "new-tokens out quiet-wait'.split():\n"
        "    p.add_argument('--' + o)\n"
        "a = p.parse_args()\n"
        f"base = {RECORDED!r}\n"
        "for name in a.select.split(','):\n"
        "    venv, script, model, variant = json.loads(pathlib.Path(a.peers).read_text())[name]\n"
        "    if (pathlib.Path(a.models) / model).exists():\n"
        "        engine = 'gpt-edge' if script.endswith('run_gpt_edge.py') else 'other'\n"
        "        with open(a.out, 'a') as f:\n"
        "            f.write(json.dumps({**base, 'peer': name, 'engine': engine, 'batch': "
        "int(a.batch)}) + '\\n')\n"
    )
    samples, out = tmp_path / "runs" / "samples.jsonl", tmp_path / "speed.md"
    words = [
        "--harness",
        harness,
        "--venvs",
        tmp_path,
        "--models",
        tmp_path,
        "--bundle",
        f"edge={bundle_path()}",
    ]
    words += [
        "--select",
        "ct2-int8",
        "--batch-select",
        "ct2-int8",
        "--samples",
        samples,
        "--out",
        out,
    ]
    command = [sys.executable, str(REPO / "benchmarks" / "speed" / "peers.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(s["peer"], s["batch"]) for s in speed_figures.read_samples(samples)] == [
        ("edge", 1),
        ("edge", 8),
    ]
    assert "No figures of ct2-int8 at batch 1, ct2-int8 at batch 8." in out.read_text("utf-8")
    assert "no C compiler could build the bandwidth probe" in done.stderr


def test_the_runner_generates_as_the_session_does(tmp_path: Path) -> None:
    """A stub of common.py calls load and prints what generate gives, for two prompts."""
    prompts = [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "common.py").write_text(
        "import argparse, json, pathlib\n"
        "def main(load):\n"
        f"    engine = load(argparse.Namespace(model_dir=pathlib.Path({str(bundle_path())!r}), "
        "threads=1, variant=''))\n"
        f"    times, ids = engine.generate({prompts}, 5)\n"
        f"    seconds = engine.prefill({prompts})\n"
        "    print(json.dumps([len(times), times == sorted(times), ids, seconds > 0, engine.name, "
        "engine.precision]))\n"
    )
    command = [sys.executable, str(REPO / "benchmarks" / "speed" / "run_gpt_edge.py")]
    environment = {**os.environ, "GPT_EDGE_PEERS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    session = open_session()
    greedy, cache = [], session.new_cache()
    logits = session.forward([prompts[0]], cache)[0]
    for _ in range(5):
        greedy.append(int(np.argmax(logits[0])))
        logits = session.decode(greedy[-1:], cache)
    assert json.loads(done.stdout) == [5, True, greedy, True, "gpt-edge", "fp32"]


def test_the_runner_names_a_bundle_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "common.py").write_text(
        "import argparse, pathlib\n"
        "def main(load):\n"
        "    load(argparse.Namespace(model_dir=pathlib.Path('nowhere'), threads=1, variant=''))\n"
    )
    command = [sys.executable, str(REPO / "benchmarks" / "speed" / "run_gpt_edge.py")]
    environment = {**os.environ, "GPT_EDGE_PEERS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
