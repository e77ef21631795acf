"""The shapes that users have: GPT-2 124M and GPT-1 117M on every path, GPT-2 XL within its memory.
All slow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_edge.config import PRESETS
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.runtime.session import Session
from gpt_edge.verify import parity
from tests.parity import test_invariants

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MB = 1_000_000


@pytest.fixture(scope="module", params=["gpt2", "gpt1", "gpt3-small"])
def preset(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A random checkpoint of a full shape, with weights wide enough for logits with spread."""
    name: str = request.param
    folder = tmp_path_factory.mktemp("full") / name
    torch.manual_seed(0)
    model = GPT(PRESETS[name])
    state = {
        key: value * (4.0 if key == "wte.weight" else 1.0)
        for key, value in model.state_dict().items()
    }
    save_checkpoint(folder, PRESETS[name], state, None, {})
    return name, folder


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_full_shapes_agree_with_torch_and_with_themselves(
    preset: tuple[str, Path], scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, source = preset
    bundle, report = export_bundle(source, tmp_path / scheme, scheme=scheme, tokenizer="none")
    with capsys.disabled():
        print(f"\n{name} {scheme}: {bundle.n_bytes / MB:.1f} MB")
        for section, figures in report.figures.items():
            for key, figure in figures.items():
                print(
                    f"  {section:<22} {key:<14} "
                    f"{json.dumps({k: v for k, v in figure.items() if k != 'flips'})}"
                )
    assert report.faults == []
    assert report.figures["torch against fp32"]["logits"]["p99_difference"] <= 1e-4
    assert report.figures["torch against fp32"]["greedy"]["equal_tokens"] == 32
    for figure in report.figures[f"{scheme} paths"].values():
        for flip in figure["flips"]:
            assert flip["gap"] <= min(2 * figure["noise"], parity.NEAR_TIE * figure["spread"]), flip
    if name == "gpt2":
        assert bundle.n_bytes <= {"int8": 145, "int4": 110}[scheme] * MB


def test_shapes_splits_chunks_and_repeats_do_not_matter(
    preset: tuple[str, Path], tmp_path: Path
) -> None:
    """The full shape, fp32; fewer cases than the tiny models of test_invariants.py get."""
    name, source = preset
    bundle, _ = export_bundle(source, tmp_path / "fp32", scheme="fp32", tokenizer="none")
    assert bundle.n_bytes <= 500 * MB or name != "gpt2"
    session, model = Session(bundle), open_checkpoint(source).load_model()
    test_invariants.check_random_shapes(session, model, n_cases=4)
    del model
    test_invariants.check_splits(session, n_sequences=1)
    test_invariants.check_chunks(session, n_prompts=2, n_new=16, longest=300)
    test_invariants.check_repeats(session, 100)


CHILD = """
import sys
from gpt_edge.bench.process import peak_bytes
from gpt_edge.cli import main
code = main(sys.argv[1:])
print(peak_bytes(), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `source`, GPT-2 XL with random weights: 6.2 GB, written tensor by tensor."""
    folder = tmp_path_factory.mktemp("xl")
    config, source = PRESETS["gpt2-xl"], folder / "source"
    source.mkdir()
    write_random_safetensors(source / "model.safetensors", config)
    described = {
        "format": "gpt-edge-checkpoint",
        "version": 1,
        "config": config.to_dict(),
        "tokenizer": None,
    }
    (source / "config.json").write_text(json.dumps({**described, "training": {}}))
    return folder


@pytest.mark.parametrize(
    ("command", "scheme"),
    [
        ("export", "fp32"),
        ("export", "int8"),
        ("export", "int4"),
        ("quantize", "int8-block"),
        ("quantize", "int4"),
    ],
)
def test_gpt2_xl_stays_within_1_3_times_its_weights(
    xl: Path, command: str, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five to ten minutes each; with the fp32 bundle, which `quantize` reads, 15 GB of disk."""
    config, out = PRESETS["gpt2-xl"], xl / f"{command}-{scheme}"
    source = [str(xl / "source"), str(out), "--tokenizer", "none"]
    if command == "quantize":
        source = [str(xl / "export-fp32"), str(out)]
    # gptq takes hours
    rounding = ["--rounding", "nearest"] if (command, scheme) == ("quantize", "int4") else []
    arguments = [
        sys.executable,
        "-c",
        CHILD,
        command,
        *source,
        "--scheme",
        scheme,
        *rounding,
        "--json",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    peak, weights = int(done.stderr.splitlines()[-1]), 4 * config.n_parameters
    with capsys.disabled():
        n_bytes = sum(path.stat().st_size for path in out.iterdir())
        print(
            f"\n{command} {scheme}: {n_bytes / MB:,.0f} MB, peak {peak / MB:,.0f} MB, "
            f"{peak / weights:.2f} of the weights"
        )
    assert json.loads(done.stdout)["ok"] is True
    if scheme != "fp32":
        shutil.rmtree(out)
    assert peak <= 1.3 * weights


def write_random_safetensors(path: Path, config: object) -> None:
    """Random weights of `config`, one tensor in memory at a time."""
    from gpt_edge.reference.importers.tensor_map import reference_shapes

    shapes = reference_shapes(config)  # type: ignore[arg-type]
    header, offset = {}, 0
    for name, shape in shapes.items():
        n_bytes = 4 * int(np.prod(shape))
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [offset, offset + n_bytes],
        }
        offset += n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            is_gain = ".ln_" in f".{name}" and name.endswith("weight")
            array = (
                np.ones(shape, np.float32)
                if is_gain
                else rng.standard_normal(shape, np.float32) * np.float32(0.02)
            )
            file.write(array.tobytes())
