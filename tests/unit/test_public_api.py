"""What `import gpt_edge` offers, and that it stays light."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import gpt_edge
from tests.support.tiny_model import bundle_path

HEAVY = (
    "numpy",
    "onnxruntime",
    "tiktoken",
    "typer",
    "rich",
    "torch",
    "onnx",
    "tokenizers",
    "transformers",
)


def loaded_after(code: str) -> set[str]:
    """Which of the heavy packages a new Python has imported after `code`."""
    ask = f"{code}\nimport sys\nprint(*({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), repr(set(HEAVY))
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, str(bundle_path())], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert (
        loaded_after("import gpt_edge; gpt_edge.BundleError, gpt_edge.__version__, dir(gpt_edge)")
        == set()
    )


def test_sampling_params_need_no_package() -> None:
    assert loaded_after("import gpt_edge; gpt_edge.SamplingParams(top_k=5)") == set()


def test_generating_loads_the_runtime_and_nothing_of_the_extras() -> None:
    code = "import gpt_edge, sys; gpt_edge.load(sys.argv[1], threads=1).complete('a')"
    assert loaded_after(code) == {"numpy", "onnxruntime", "tiktoken"}


def test_every_public_name_is_there_and_listed() -> None:
    for name in gpt_edge.__all__:
        assert getattr(gpt_edge, name) is not None
        assert name in dir(gpt_edge)
    assert gpt_edge.Generator.__module__ == "gpt_edge.generate.generator"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gpt_edge' has no attribute 'lode'"):
        _ = gpt_edge.lode


def test_the_version_is_that_of_the_installation() -> None:
    assert gpt_edge.__version__ == importlib.metadata.version("gpt-edge")


def test_two_lines_are_all_an_app_needs() -> None:
    text = "".join(
        gpt_edge.load(bundle_path()).stream("the end", gpt_edge.SamplingParams(max_new_tokens=8))
    )
    assert (
        text
        == gpt_edge.load(bundle_path())
        .complete("the end", gpt_edge.SamplingParams(max_new_tokens=8))
        .text
    )


def test_a_bundle_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(gpt_edge.BundleError, match="no/such/bundle is not there"):
        gpt_edge.load("no/such/bundle")
