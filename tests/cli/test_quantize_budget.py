"""`gpt-edge quantize` with a budget: what it keeps, what it says, and what it refuses, on tiny
bundles.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.export.budget import run as pipeline
from gpt_edge.export.formats.plan import shapes
from gpt_edge.export.graph.fuse import count_operators
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.runtime.session import Session
from tests.conftest import REPO
from tests.support.models import TINY, random_model, save_random
from tests.support.runner import Result, done, listing, run

sys.path.insert(0, str(REPO / "benchmarks" / "quality"))

from outliers import plant_outliers

N_TOKENS = 256


@pytest.fixture(scope="module", autouse=True)
def _short_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CALIBRATION_TOKENS", "EVALUATION_TOKENS", "SENSITIVITY_TOKENS"):
            patch.setattr(pipeline, name, N_TOKENS)
        yield


def search(bundle: Path, folder: Path) -> Result:
    """A mixed bundle within a KL of 0.002 at `folder / "mixed"`, the picture beside it."""
    options = ("--scheme", "mixed", "--max-kl", "0.002", "--plot", folder / "loss.png", "--json")
    return done("quantize", bundle, folder / "mixed", *options)


@pytest.fixture(scope="module")
def mixed(
    _short_texts: None, tiny_edge: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The folder of one search, and what it said."""
    folder = tmp_path_factory.mktemp("mixed")
    return folder, search(tiny_edge, folder)


def operators(bundle: Path) -> dict[str, int]:
    """How many nodes of each operator."""
    return count_operators(ir.load(bundle / "model.onnx").graph)


def test_mixed_meets_the_budget_explains_itself_and_is_stored(mixed: tuple[Path, Result]) -> None:
    out, picture, result = mixed[0] / "mixed", mixed[0] / "loss.png", mixed[1].json
    budget = result["budget"]
    best = next(point for point in budget["points"] if point["label"] == budget["best"])
    assert best["ok"]
    assert best["mean_kl"] <= 0.002
    assert {"int8", "int8-block", "int4"} <= {point["label"] for point in budget["points"]}
    assert picture.read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["scheme"] == "mixed"
    stored = manifest["provenance"]["quantization"]
    assert stored["tensors"] == result["tensors"]
    assert stored["budget"]["points"] == budget["points"]
    assert stored["budget"]["text"] == "text written by the model, seed 20190214"
    assert sum(stored["formats"].values()) == len(stored["tensors"]) == 9
    for name, values in stored["budget"]["tensors"].items():
        assert values["format"] in values["kl"], name
    assert "formats" in done("inspect", out).out
    assert done("verify", out).code == 0


def test_the_same_command_gives_the_same_bytes(
    mixed: tuple[Path, Result], tiny_edge: Path, tmp_path: Path
) -> None:
    search(tiny_edge, tmp_path)
    assert listing(tmp_path) == listing(mixed[0])


def test_a_smaller_budget_costs_more_bytes(tiny_edge: Path, tmp_path: Path) -> None:
    sizes, kls = [], []
    for limit in ("0.5", "0.0005"):
        done_well = done(
            "quantize",
            tiny_edge,
            tmp_path / limit,
            "--scheme",
            "mixed",
            "--max-kl",
            limit,
            "--json",
        )
        budget = done_well.json["budget"]
        best = next(point for point in budget["points"] if point["label"] == budget["best"])
        sizes.append(best["n_bytes"])
        kls.append(best["mean_kl"])
        assert best["mean_kl"] <= float(limit)
    assert sizes[0] < sizes[1]
    assert kls[1] < kls[0]


def test_a_budget_that_cannot_be_met_says_how_close_it_came(
    tiny_edge: Path, tmp_path: Path
) -> None:
    before = listing(tmp_path)
    options = ("quantize", tiny_edge, tmp_path / "out", "--scheme", "mixed", "--max-kl", "1e-12")
    result = run(*options)
    assert result.code == 1
    assert len(result.errors) == 1
    assert "no assignment meets the budget; the closest of" in result.errors[0]
    assert "instead of 1e-12" in result.errors[0]
    assert "too much loss" in result.out
    assert listing(tmp_path) == before
    as_json = run(*options, "--json")
    assert (as_json.code, as_json.json["ok"], as_json.json["budget"]["ok"]) == (1, False, False)


def test_a_uniform_scheme_must_meet_the_budget_too(tiny_edge: Path, tmp_path: Path) -> None:
    kept = done(
        "quantize",
        tiny_edge,
        tmp_path / "kept",
        "--scheme",
        "int8-block",
        "--max-ppl-increase",
        "0.05",
    )
    assert "within the budget, chosen" in kept.out
    missed = run("quantize", tiny_edge, tmp_path / "missed", "--scheme", "int4", "--max-kl", "1e-6")
    assert (missed.code, (tmp_path / "missed").exists()) == (1, False)


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        (
            ("--scheme", "int4", "--head", "4", "--asymmetric"),
            {"MatMulNBits": 9, "GatherBlockQuantized": 1},
        ),
        (
            ("--scheme", "int8", "--embedding", "16"),
            {"MatMulIntegerToFloat": 8, "FusedMatMul": 1, "Cast": 2},
        ),
        (("--scheme", "int8-block", "--exclude", "h.0.*"), {"MatMulNBits": 5, "MatMul": 4}),
        (
            ("--scheme", "int8-block", "--include", "h.*.mlp.*", "--block-size", "16"),
            {"MatMulNBits": 4, "FusedMatMul": 1},
        ),
        (
            ("--scheme", "int4", "--rounding", "search", "--head", "32"),
            {"MatMulNBits": 8, "FusedMatMul": 1},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_options_choose_the_operators(
    options: tuple[str, ...], counts: dict[str, int], tiny_edge: Path, tmp_path: Path
) -> None:
    result = done("quantize", tiny_edge, tmp_path / "out", *options)
    found = operators(tmp_path / "out")
    assert {name: found.get(name, 0) for name in counts} == counts
    if "--head" in options or "--embedding" in options:
        assert "embedding and head are one table in this model, wte.weight" in result.out


def test_texts_of_the_user_are_read(tiny_edge: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "the rain in the street, the wind in the trees.\n<|endoftext|>\nand then it stopped.\n" * 30
    )
    options = ("--scheme", "int4", "--calibration", text, "--eval-text", text, "--max-kl", "1")
    result = done("quantize", tiny_edge, tmp_path / "out", *options, "--json").json
    assert len(result["notes"]) == 2
    assert all("a text, its ids with SHA-256" in note for note in result["notes"])


def test_the_portable_graph_is_searched_too(tmp_path: Path) -> None:
    """Of a model whose trace other tests need."""
    source = save_random(tmp_path / "source", TINY["gpt2"], std=0.08)
    portable, _ = export_bundle(
        source, tmp_path / "fp32", graph="portable", scheme="fp32", tokenizer="none"
    )
    options = ("--scheme", "mixed", "--max-kl", "0.005", "--json")
    result = done("quantize", portable.path, tmp_path / "out", *options).json
    assert result["budget"]["ok"]
    assert operators(tmp_path / "out").get("MatMulNBits", 0) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--scheme", "mixed"), "give max_kl"),
        (("--scheme", "int8", "--plot", "x.png"), "a plot shows measured points"),
        (("--scheme", "int8", "--block-size", "32"), "int8-block"),
        (("--scheme", "int4", "--block-size", "33"), "power of two"),
        (("--scheme", "int4", "--head", "4", "--embedding", "8"), "one table"),
        (("--scheme", "int4", "--include", "nothing*"), "'nothing*' matches no weight"),
        (("--scheme", "int8-dynamic", "--head", "8"), "Optimum's"),
        (("--scheme", "int8", "--max-kl", "-1"), "max_kl must be a number above 0"),
        (("--scheme", "int8", "--min-top1", "98.5"), "min_top1"),
        (
            ("--scheme", "int8", "--calibration", "x.txt"),
            "calibration text is for rounding by gptq",
        ),
    ],
    ids=lambda options: " ".join(options) if isinstance(options, tuple) else None,
)
def test_options_that_contradict_are_wrong_usage(
    options: tuple[str, ...], expected: str, tiny_edge: Path, tmp_path: Path
) -> None:
    result = run("quantize", tiny_edge, tmp_path / "out", *options)
    assert (result.code, len(result.errors), (tmp_path / "out").exists()) == (2, 1, False)
    assert expected in result.errors[0]


def test_a_text_that_is_too_short_or_missing_is_one_clear_line(
    tiny_edge: Path, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("too short")
    for name, expected in (
        ("short.txt", "tokens, at least 64 are needed"),
        ("none.txt", "no such file"),
    ):
        options = ("--scheme", "int8", "--max-kl", "1", "--eval-text", tmp_path / name)
        result = run("quantize", tiny_edge, tmp_path / "out", *options)
        assert (result.code, len(result.errors)) == (1, 1)
        assert expected in result.errors[0]


def outlying(tmp_path: Path, model: GPT, config: GPTConfig) -> Bundle:
    """The fp32 bundle of a model with planted outliers, checked to say what the model said
    before.
    """
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (1, 40)))
    with torch.inference_mode():
        before = model(ids)[0]
    plant_outliers(model)
    with torch.inference_mode():
        assert float((model(ids)[0] - before).abs().max()) < 1e-3 * float(before.std())
    save_checkpoint(tmp_path / "source", config, model.state_dict(), None, {})
    return export_bundle(tmp_path / "source", tmp_path / "fp32", scheme="fp32", tokenizer="none")[0]


def test_planted_outliers_break_dynamic_int8_and_none_of_ours(tmp_path: Path) -> None:
    config = GPTConfig(n_layer=2, n_head=4, n_embd=128, n_ctx=96, vocab_size=307)
    bundle = outlying(tmp_path, random_model(config, std=0.08), config)
    kls = {}
    for scheme in ("int8-dynamic", "int8", "int8-block"):
        found = run(
            "quantize",
            bundle.path,
            tmp_path / scheme,
            "--scheme",
            scheme,
            "--max-kl",
            "1e-6",
            "--json",
        ).json
        kls[scheme] = found["budget"]["points"][0]["mean_kl"]
    options = (
        "quantize",
        bundle.path,
        tmp_path / "mixed",
        "--scheme",
        "mixed",
        "--max-kl",
        "0.002",
        "--json",
    )
    mixed = done(*options).json["budget"]
    best = next(point for point in mixed["points"] if point["label"] == mixed["best"])
    assert best["mean_kl"] <= 0.002
    assert kls["int8-dynamic"] > 0.02
    assert max(kls["int8"], kls["int8-block"]) <= 0.002
    assert best["n_bytes"] < 0.6 * 4 * sum(n * k for n, k in shapes(config, "edge").values())
    assert Session(Bundle.open(tmp_path / "mixed")).config == config
    description = " ".join(done("inspect", tmp_path / "mixed").out.split())
    assert "smoothing 6 channels in 6 operators" in description
