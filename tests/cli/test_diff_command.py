"""`diff`: two models on one text, in the terminal and as JSON."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.cli.commands import diff
from tests.support.runner import Result, done, run

LINE = "the sea and the ship"


@pytest.fixture(scope="module")
def quantized(tiny_edge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny fp32 bundle in four bits, so that its predictions differ."""
    out = tmp_path_factory.mktemp("diff") / "tiny-int4"
    done("quantize", tiny_edge, out, "--scheme", "int4", "--rounding", "nearest")
    return out


def test_two_bundles_diverge_where_they_are_quantized(tiny_edge: Path, quantized: Path) -> None:
    result = done("diff", tiny_edge, quantized, "--text", LINE, "--json").json
    assert (result["a"], result["b"], result["text"]) == (str(tiny_edge), str(quantized), LINE)
    assert len(result["kl"]) == len(result["ids"]) == result["n_tokens"]
    assert result["mean_kl"] == pytest.approx(sum(result["kl"]) / result["n_tokens"])
    assert result["max_kl"] == max(result["kl"]) > 0
    assert result["first"]["place"] == result["places"][0]["place"] == "embedding"
    assert result["places"][-1]["place"] == "lm_head"
    assert result["top1"] == pytest.approx(1 - len(result["flips"]) / result["n_tokens"])
    for flip in result["flips"]:
        assert flip["tokens"][0] != flip["tokens"][1]


def test_a_bundle_does_not_diverge_from_itself(tiny_edge: Path) -> None:
    result = done("diff", tiny_edge, tiny_edge, "--json").json
    assert (result["max_difference"], result["mean_kl"], result["top1"], result["first"]) == (
        0,
        0,
        1,
        None,
    )
    assert "the models do not diverge" in done("diff", tiny_edge, tiny_edge).out


def test_a_bundle_against_its_checkpoint_is_only_rounded(
    exported: tuple[Path, Result], checkpoint: Path
) -> None:
    result = done("diff", exported[0], checkpoint, "--json").json
    assert result["first"]["place"] == "embedding"
    assert result["beyond_rounding"] is None
    assert "rounding explains every difference" in done("diff", checkpoint, exported[0]).out


def test_another_checkpoint_is_reported_with_the_operator(
    exported: tuple[Path, Result], checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    tensors = dict(load_file(other / "model.safetensors"))
    tensors["h.1.mlp.c_fc.weight"] = tensors["h.1.mlp.c_fc.weight"][::-1].copy()
    save_file(tensors, other / "model.safetensors")
    result = done("diff", exported[0], other, "--json").json
    assert result["beyond_rounding"].startswith("layer 1, mlp.c_fc: h.1.mlp.c_fc.weight differs")


def test_without_a_terminal_tokens_are_marked_with_braces(tiny_edge: Path, quantized: Path) -> None:
    text = done("diff", tiny_edge, quantized, "--text", LINE).out
    assert "\x1b" not in text
    shown = text.split("{{{1}}}\n")[1].splitlines()[0]
    assert re.sub("[{}]", "", shown) == LINE


def test_marks_follow_the_divergence_of_each_token() -> None:
    pieces = [("a", 0.0), ("b", 0.01), ("c", 0.5), ("d", 3.0)]
    assert diff._marked(pieces) == "a{b}{{c}}{{{d}}}"
    styled = diff._coloured(pieces)
    assert styled.plain == "abcd"
    assert [(span.start, str(span.style)) for span in styled.spans] == [
        (1, "yellow"),
        (2, "bold red"),
        (3, "bold white on red"),
    ]


def test_a_text_may_be_a_file_and_control_characters_in_it_do_not_act(
    tiny_edge: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("the\x1b[31m sea\n")
    out = done("diff", tiny_edge, tiny_edge, "--text", tmp_path / "text").out
    assert "the\\x1b[31m sea\n" in out


def test_a_long_text_is_truncated_at_the_shorter_context(tiny_edge: Path) -> None:
    assert (
        done("diff", tiny_edge, tiny_edge, "--text", "the " * 500, "--json").json["n_tokens"] == 64
    )


def test_models_of_different_vocabularies_are_refused(tiny_edge: Path) -> None:
    result = run("diff", tiny_edge, DEFAULT_BUNDLE)
    assert (result.code, result.out) == (1, "")
    assert len(result.errors) == 1
    assert "vocabulary of 277 tokens" in result.errors[0]
    assert "4096" in result.errors[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "nowhere"], "is not there"),
        (["tests", "tests"], "tests"),
        (["", ""], "not the name"),
    ],
)
def test_an_argument_that_is_not_a_model_is_named(arguments: list[str], words: str) -> None:
    result = run("diff", *arguments)
    assert (result.code, result.out, len(result.errors)) == (1, "", 1)
    assert words in result.errors[0]


def test_a_text_without_tokens_is_an_error(tiny_edge: Path) -> None:
    result = run("diff", tiny_edge, tiny_edge, "--text", "")
    assert (result.code, result.errors) == (1, ["error: the text has no token"])
