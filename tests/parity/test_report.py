"""`report`: the page holds what was measured, is one file that asks nothing of anybody, and no text
in it acts.
"""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, EvaluationError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.report.data import BundleReport
from gpt_edge.export.report.html import tag, text
from gpt_edge.export.report.measure import make_report
from gpt_edge.export.report.page import page
from gpt_edge.export.report.plots import Line, Mark, lines, scatter
from gpt_edge.export.report.samples import continue_prompt
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import TokenizerSource
from gpt_edge.tokenizer.formats.hf_json import make_spec
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.verify.report import tokenizer_of
from tests.conftest import REPO
from tests.support.models import random_model
from tests.support.runner import done, run

EVIL = "<script>alert(1)</script>"
EVIL_TOKENS = [
    b"<s",
    b"<sc",
    b"<scr",
    b"ip",
    b"ipt",
    b"<script",
    b"<script>",
    b"</",
    b"</script",
    b"\x1b[31m",
]
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """Reads a page as a browser would: tags must nest, and what it would fetch or run is kept."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def words(self) -> str:
        return "".join(self.texts)


def assert_inert(content: str) -> Page:
    """No script, no handler, no address, nothing to fetch."""
    found = Page(content)
    names = {name for name, _ in found.tags}
    assert not names & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "a",
        "base",
        "use",
        "image",
    }
    for name, attributes in found.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            assert key not in ("src", "href", "srcset", "action"), (name, key)
            assert "url(" not in (value or ""), (name, key)
    assert "http://" not in content
    assert "https://" not in content
    assert "@import" not in content
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", content)
    return found


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A checkpoint whose vocabulary is made to write HTML, and its int4 bundle."""
    root = tmp_path_factory.mktemp("evil")
    n_plain = 256 + len(EVIL_TOKENS)
    spec = make_spec(
        "gpt2",
        "tokenizer.tiktoken",
        n_plain + 2,
        {EVIL: n_plain, "<b>": n_plain + 1},
        "<b>",
        "here",
    )
    content = format_ranks([*(bytes([byte]) for byte in range(256)), *EVIL_TOKENS])
    config = GPTConfig(n_layer=1, n_head=2, n_embd=32, n_ctx=64, vocab_size=n_plain + 2)
    model = random_model(config, std=0.3)
    with torch.no_grad():  # it likes to write the script tag, among others
        dict(model.named_parameters())["ln_f.bias"].add_(model.wte.weight[n_plain])
    save_checkpoint(
        root / "checkpoint", config, model.state_dict(), TokenizerSource(spec, content), {}
    )
    bundle, _ = export_bundle(root / "checkpoint", root / "int4", scheme="int4")
    described = {
        **bundle.manifest.provenance,
        "note": f'{EVIL} & "quoted" <img src=x onerror=alert(1)>',
    }
    manifest = dataclasses.replace(bundle.manifest, provenance=described)
    return root / "checkpoint", dataclasses.replace(bundle, manifest=manifest)


@pytest.fixture(scope="module")
def whole(evil: tuple[Path, Bundle]) -> BundleReport:
    checkpoint, bundle = evil
    return make_report(bundle, against=checkpoint, prompts=(f"{EVIL} & \x1b[2J", "plain"), n_tokens=128,
                       with_sensitivity=True)  # fmt: skip


def test_a_model_that_writes_html_is_shown_and_does_nothing(whole: BundleReport) -> None:
    found = assert_inert(page(whole))
    assert any(
        EVIL in "".join(sample.pieces) for variant in whole.variants for sample in variant.samples
    )
    assert EVIL in found.words
    assert "<img src=x onerror=alert(1)>" in found.words
    assert "\\x1b[2J" in found.words
    policy = [
        values["content"]
        for name, values in found.tags
        if name == "meta" and "http-equiv" in values
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_page_holds_every_version_and_every_section(whole: BundleReport) -> None:
    words = assert_inert(page(whole)).words
    assert [variant.label for variant in whole.variants] == ["fp32", "this bundle (int4)", "int8"]
    for heading in ("Size and loss", "Samples, side by side", "Token by token", "Error, layer by layer", "Sensitivity",
                    "Verification at export", "The bundle"):  # fmt: skip
        assert heading in words
    assert "What is not on this page" not in words
    assert whole.missing == ()
    for record in whole.bundle.manifest.files.values():
        assert record["sha256"] in words


def test_figures_are_those_of_the_models(whole: BundleReport, evil: tuple[Path, Bundle]) -> None:
    fp32, main, int8 = whole.variants
    assert main.degradation is not None
    assert int8.degradation is not None
    assert fp32.degradation is None
    assert main.is_main
    assert 0 < int8.degradation.mean_kl < main.degradation.mean_kl
    assert f"{1 + main.degradation.ppl_increase:.5f}" in page(whole)
    assert fp32.n_bytes > int8.n_bytes > main.n_bytes > 0
    layers = {str(divergence.operator): divergence.relative for divergence in main.layers}
    exact = {str(divergence.operator): divergence.relative for divergence in int8.layers}
    assert layers.keys() == exact.keys()
    assert layers["lm_head"] > exact["lm_head"] > 0
    assert set(whole.sensitivity) >= {
        "wte.weight",
        "h.0.attn.c_attn.weight",
        "h.0.mlp.c_proj.weight",
    }
    assert whole.torch is not None
    assert whole.torch["max_difference"] < 1e-3
    session, words = Session(evil[1]), tokenizer_of(evil[1])
    assert words is not None
    wanted, _ = continue_prompt(session, np.array(words.encode("plain")), words)
    assert main.samples[1].ids == tuple(wanted)


def test_marks_are_where_the_tokens_differ(whole: BundleReport) -> None:
    reference = whole.variants[0].samples
    n_parted = 0
    for variant in whole.variants[1:]:
        for wanted, sample in zip(reference, variant.samples, strict=True):
            n_same = 0
            while (
                n_same < min(len(wanted.ids), len(sample.ids))
                and wanted.ids[n_same] == sample.ids[n_same]
            ):
                n_same += 1
            is_same = wanted.ids == sample.ids
            assert sample.diverges_at == (None if is_same else n_same)
            assert not any(sample.differs[:n_same])
            assert is_same == (not any(sample.differs) and len(wanted.ids) == len(sample.ids))
            n_parted += not is_same
    assert n_parted  # 4 bits of a random model: something must have changed
    assert page(whole).count('class="first"') >= 2


def test_without_a_checkpoint_the_page_says_what_is_missing(evil: tuple[Path, Bundle]) -> None:
    found = make_report(evil[1], prompts=("plain",))
    assert [variant.degradation for variant in found.variants] == [None]
    assert len(found.variants[0].samples) == 1
    words = assert_inert(page(found)).words
    assert "What is not on this page" in words
    assert "--against CHECKPOINT" in words
    assert "--sensitivity" in words
    assert "Verification at export" in words


def test_an_fp32_bundle_is_its_own_reference_and_ids_do_without_a_tokenizer() -> None:
    golden = Bundle.open(REPO / "tests" / "golden" / "tiny-edge")
    bundle = dataclasses.replace(
        golden, manifest=dataclasses.replace(golden.manifest, tokenizer=None)
    )
    found = make_report(bundle, also=[golden], n_tokens=128)
    assert [(v.label, v.is_main) for v in found.variants] == [
        ("fp32", True),
        ("int8", False),
        ("int4", False),
    ]
    words = assert_inert(page(found)).words
    assert "random ids" in words
    assert found.text == "text written by the model, seed 20190214"
    assert found.text in words
    with pytest.raises(EvaluationError, match="prompts cannot be read"):
        make_report(bundle, prompts=("x",))


def test_a_checkpoint_of_another_shape_is_refused(
    evil: tuple[Path, Bundle], tmp_path: Path
) -> None:
    config = dataclasses.replace(evil[1].config, n_head=1)
    save_checkpoint(tmp_path / "other", config, random_model(config).state_dict(), None, {})
    with pytest.raises(BundleError, match="n_head 1 against 2"):
        make_report(evil[1], against=tmp_path / "other")
    with pytest.raises(BundleError, match="rounding starts from an fp32 bundle"):
        make_report(evil[1], against=evil[1].path)


def test_stored_sensitivity_and_search_are_shown_as_somebody_elses(
    evil: tuple[Path, Bundle],
) -> None:
    """What quantize leaves in a manifest, and what nobody should."""
    point = {"label": f"mixed {EVIL}", "n_bytes": 5000, "mean_kl": 1e-3, "ok": True}
    tensors = {
        "wte.weight": {
            "format": "int8 b64",
            "kl": {"int4 b32": 2e-3, "int8 b64": "text", "<b>": 0.5},
        },
        "x": 3,
    }
    budget = {
        "limits": {"max_kl": 0.01},
        "text": EVIL,
        "best": point["label"],
        "points": [point, 7],
        "tensors": tensors,
    }
    provenance = {"quantization": {"budget": budget}}
    bundle = dataclasses.replace(
        evil[1], manifest=dataclasses.replace(evil[1].manifest, provenance=provenance)
    )
    found = make_report(bundle, prompts=("plain",))
    assert found.sensitivity == {"wte.weight": {"int4 b32": 2e-3, "<b>": 0.5}}
    words = assert_inert(page(found)).words
    assert f"mixed {EVIL}" in words
    assert "2.0e-3" in words
    assert "stored in the manifest" in words


def test_the_command_writes_one_file_whole(evil: tuple[Path, Bundle], tmp_path: Path) -> None:
    checkpoint, bundle = evil
    source = tmp_path / "text.txt"
    source.write_text("a few words, and more of them. " * 40, "utf-8")
    out = tmp_path / "page.html"
    line = ("report", bundle.path, "-o", out, "--against", checkpoint, "--text", source, "--tokens", "128",
            "--also", bundle.path)  # fmt: skip
    found = done(*line, "--json").json
    content = out.read_text("utf-8")
    assert "text.txt (a text, its ids with SHA-256" in assert_inert(content).words
    assert str(tmp_path) not in content  # a release page tells nothing of the machine
    assert found["report"] == str(out)
    assert [variant["label"] for variant in found["variants"]] == [
        "fp32",
        "this bundle (int4)",
        "int4",
        "int8",
    ]
    assert json.dumps(found["variants"][1]["damage"])
    before = out.read_bytes()
    failed = run("report", bundle.path, "-o", out, "--against", tmp_path / "nowhere")
    assert failed.code == 1
    assert len(failed.errors) == 1
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "text.txt"]
    for wrong in (tmp_path, tmp_path / "none" / "page.html"):
        failed = run("report", bundle.path, "-o", wrong)
        assert (failed.code, len(failed.errors)) == (1, 1)
        assert str(wrong) in failed.err


def test_html_is_escaped_by_construction() -> None:
    assert (
        tag("p", "<b>&\"'", tag("i", 3), class_='"x')
        == '<p class="&quot;x">&lt;b&gt;&amp;&quot;&#x27;<i>3</i></p>'
    )
    assert text("a\x00\x1b\x9f\ud800\u202eb\n\t") == "a\\x00\\x1b\\x9f\\ud800\\u202eb\n\t"
    assert tag("meta", name="x", content=None) == '<meta name="x">'


def test_plots_stay_inside_their_frame_whatever_the_values() -> None:
    marks = [
        Mark(f"m{i}", x, y, i % 6)
        for i, (x, y) in enumerate([(1e-3, 1e-9), (5.2, 3e-4), (5.2, 3e-4), (0.0, 1.0)])
    ]
    drawings = [
        scatter(marks, "t", "x", "y"),
        scatter([Mark("one", 3.0, 0.5)], "t", "x", "y"),
        lines(
            [Line("a", (None, 0.0, 1e-5, 2.0)), Line("b", (1e-3,) * 4)],
            ["in", "0", "1", "out"],
            "t",
            "x",
            "y",
        ),
        lines([Line("none", (0.0, None))], ["in", "out"], "t", "x", "y"),
    ]
    for drawing in drawings:
        for name, attributes in Page(drawing).tags:
            if name == "circle":
                assert 0 <= float(attributes["cx"] or -1) <= 400
                assert 0 <= float(attributes["cy"] or -1) <= 250
