"""Adapters on a base against the merged model in torch: every task, every shape of a GPT, floats
and int8; and what is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import ADAPTER_FILE, MANIFEST_FILE, FileRecord
from gpt_edge.classify.classifier import Classifier
from gpt_edge.classify.embedder import Embedder
from gpt_edge.errors import BundleError, CheckpointError, ExportError, OutputError, ParityError
from gpt_edge.export.pipeline.adapters import export_adapter, export_base, verify_adapter
from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.export.verify.reference import run_reference
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session
from gpt_edge.serve.served_models import open_models
from gpt_edge.tasks import EMBEDDING, KINDS
from gpt_edge.verify.adapters import adapter_subject, verify_adapter_alone
from gpt_edge.verify.report import tokenizer_of
from gpt_edge.verify.subject import verify_alone
from tests.support.adapters import SHAPE, save_adapted, save_base
from tests.support.models import TINY
from tests.support.runner import done, run

# max |difference| of logits from the merged model in torch, as a fraction of their spread, at
# least 1: summation order of floats; int8 weights and rows, and float16 adapters (measured 0.06)
TOLERANCE = {"fp32": 1e-4, "int8": 0.2}
TEXTS = ["a good day", "no", "the sea is far away today", "b"]


@dataclasses.dataclass(frozen=True)
class Made:
    """checkpoint: of the language model; bases: by scheme; adapters: by scheme and kind; merged:
    the checkpoints that `finetune` would leave, by kind.
    """

    checkpoint: Path
    bases: dict[str, Bundle]
    adapters: dict[tuple[str, str], Bundle]
    merged: dict[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Bases of floats and of int8, and an adapter of each kind for both."""
    folder = tmp_path_factory.mktemp("adapters")
    checkpoint = save_base(folder / "model")
    bases = {
        scheme: export_base(checkpoint, folder / f"base-{scheme}", scheme=scheme)[0]
        for scheme in TOLERANCE
    }
    merged, adapters = {}, {}
    for kind in (*KINDS, EMBEDDING):
        merged[kind] = save_adapted(folder / f"{kind}-merged", checkpoint, kind)
        for scheme, base in bases.items():
            out = folder / f"{kind}-{scheme}"
            adapters[scheme, kind] = export_adapter(merged[kind], out, base)[0]
    return Made(checkpoint, bases, adapters, merged)


def largest_difference(base: Bundle, adapter: Bundle, merged: Path, native: Any = None) -> float:
    """Of logits from torch's, as a fraction of their spread."""
    subject = adapter_subject(adapter, tokenizer_of(base))
    expected = run_reference(open_checkpoint(merged), subject)
    actual = subject.outputs(subject.open(base, native=native))
    return float(np.abs(actual - expected).max() / max(1.0, expected.std()))


@pytest.mark.parametrize("scheme", TOLERANCE)
@pytest.mark.parametrize("kind", [*KINDS, EMBEDDING])
def test_an_adapter_on_its_base_is_the_merged_model(made: Made, scheme: str, kind: str) -> None:
    base, adapter = made.bases[scheme], made.adapters[scheme, kind]
    for native in (False, None):
        found = largest_difference(base, adapter, made.merged[kind], native)
        assert found <= TOLERANCE[scheme]
    if scheme == "fp32":  # a base of its own has none of the adapter
        other = Classifier.load(base.path, adapter=made.adapters[scheme, "entailment"].path)
        assert other.encoder.adapter is not None
        assert other.encoder.adapter.values["h.0.attn.c_attn.lora_a"].shape() == [32, 3]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["edge", "portable"])
@pytest.mark.parametrize("model", TINY)
def test_every_shape_of_a_gpt_takes_adapters(
    tmp_path: Path, model: str, graph: str, kind: str
) -> None:
    checkpoint = save_base(tmp_path / "model", TINY[model])
    merged = save_adapted(tmp_path / "merged", checkpoint, kind)
    for scheme, tolerance in TOLERANCE.items():
        base, _ = export_base(
            checkpoint, tmp_path / f"base-{scheme}", graph=graph, scheme=scheme, tokenizer="none"
        )
        adapter, _ = export_adapter(merged, tmp_path / f"adapter-{scheme}", base)
        assert largest_difference(base, adapter, merged) <= tolerance


def test_a_head_without_products_is_an_adapter(made: Made, tmp_path: Path) -> None:
    merged = save_adapted(tmp_path / "merged", made.checkpoint, rank=0)
    base = made.bases["fp32"]
    adapter, _ = export_adapter(merged, tmp_path / "head", base)
    assert largest_difference(base, adapter, merged) <= TOLERANCE["fp32"]
    assert adapter.n_bytes < made.adapters["fp32", "classification"].n_bytes / 4


def test_adapters_change_on_one_loaded_base(made: Made) -> None:
    base = made.bases["int8"].path
    paths = {kind: made.adapters["int8", kind].path for kind in ("classification", "entailment")}
    first = Classifier.load(base, adapter=paths["classification"])
    second = first.with_adapter(paths["entailment"])
    assert second.encoder._graph_runner is first.encoder._graph_runner
    before = first.predict(TEXTS).probabilities
    pairs = [(text, "so be it") for text in TEXTS]
    mixed = second.predict(pairs).probabilities
    np.testing.assert_array_equal(first.predict(TEXTS).probabilities, before)
    alone = Classifier.load(base, adapter=paths["entailment"]).predict(pairs).probabilities
    np.testing.assert_array_equal(mixed, alone)
    one_by_one = [first.predict([text]).probabilities[0] for text in TEXTS]
    np.testing.assert_allclose(before, one_by_one, atol=1e-5)
    assert "classification into 'low', 'middle', 'high'" in repr(first)
    second.close()
    with pytest.raises(ValueError, match="the model is closed"):
        first.predict(TEXTS)


def test_vectors_come_from_a_base_with_and_without_an_adapter(made: Made) -> None:
    base = made.bases["fp32"].path
    trained = Embedder.load(base, adapter=made.adapters["fp32", EMBEDDING].path)
    assert trained.embed(TEXTS).shape == (4, 6)
    own = Embedder.load(base).embed(TEXTS, pooling="last", normalize=False)
    model = open_checkpoint(made.checkpoint).load_model()
    for text, vector in zip(TEXTS, own, strict=True):
        ids = torch.tensor([list(text.encode())])
        with torch.inference_mode():
            states = model.hidden(ids)[0][0, -1].numpy()
        np.testing.assert_allclose(vector, states, atol=1e-4)


def test_verify_says_what_is_compared_and_what_differs(made: Made, tmp_path: Path) -> None:
    base, adapter = made.bases["int8"], made.adapters["int8", "classification"]
    report = verify_adapter(adapter, base, made.merged["classification"])
    assert report.faults == []
    assert {"checkpoint", "torch against int8", "int8 paths"} <= set(report.figures)
    assert verify_adapter_alone(adapter, base).faults == []
    assert verify_alone(base).faults == []
    assert verify_bundle(base, made.checkpoint).faults == []
    faults = verify_bundle(base, save_base(tmp_path / "model", seed=9)).faults
    assert any(fault.startswith("base_sha256: it is") for fault in faults)
    assert any(fault.startswith("torch against int8") for fault in faults)
    other = save_adapted(tmp_path / "other", made.checkpoint, seed=6)
    report = verify_adapter(adapter, base, other)
    assert any("differs from the checkpoint's by" in fault for fault in report.faults)
    assert any(fault.startswith("torch against int8") for fault in report.faults)


def test_an_adapter_that_is_not_the_merged_model_is_not_written(made: Made, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(made.merged["classification"], merged)
    other = save_adapted(tmp_path / "other", made.checkpoint, seed=6)
    shutil.copy(other / ADAPTER_FILE, merged / ADAPTER_FILE)
    with pytest.raises(ParityError, match="torch against fp32"):
        export_adapter(merged, tmp_path / "out", made.bases["fp32"])
    assert not (tmp_path / "out").exists()


def refused(call: Callable[[], Any], message: str, error: type[Exception] = BundleError) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_does_not_belong_together_is_refused_by_name(made: Made, tmp_path: Path) -> None:
    base, adapter = made.bases["int8"].path, made.adapters["int8", "classification"].path
    refused(lambda: Classifier.load(base), "is a base without a task of its own")
    refused(lambda: Classifier.load(adapter), "is an adapter: it runs on its base base-int8")
    refused(lambda: Classifier.load(base, adapter=base), "is no adapter, but a bundle of kind base")
    refused(
        lambda: Classifier.load(made.bases["fp32"].path, adapter=adapter),
        r"of the base base-int8 with the weights \w{12}, and .* has the weights \w{12}",
    )
    refused(lambda: Session(Bundle.open(base)), "is a base")
    refused(lambda: Session(Bundle.open(adapter)), "is an adapter")
    whole = Bundle.open("sentiment-6m-int8")
    refused(
        lambda: Classifier.load(whole.path, adapter=adapter), "of kind task: it takes no adapter"
    )
    stranger = save_adapted(tmp_path / "stranger", save_base(tmp_path / "model", seed=9))
    refused(
        lambda: export_adapter(stranger, tmp_path / "out", made.bases["int8"]),
        r"was trained on the weights \w{12}, .*base-int8 was exported from \w{12}",
        ExportError,
    )
    refused(
        lambda: export_adapter(made.merged["similarity"], tmp_path / "out", whole),
        "adapters have a base",
        ExportError,
    )
    refused(
        lambda: export_adapter(made.checkpoint, tmp_path / "out", made.bases["int8"]),
        "is no fine-tuned checkpoint",
        CheckpointError,
    )
    refused(
        lambda: export_adapter(
            made.merged["classification"], made.bases["int8"].path, made.bases["int8"], force=True
        ),
        "is the base itself",
        OutputError,
    )
    described = json.loads((made.checkpoint / "config.json").read_bytes())
    described["config"]["takes_adapters"] = True
    shutil.copytree(made.checkpoint, tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(json.dumps(described))
    refused(lambda: open_checkpoint(tmp_path / "odd"), "which only a bundle's may", CheckpointError)
    assert not (tmp_path / "out").exists()


def rewritten(adapter: Bundle, out: Path, change: Callable[[dict[str, Any]], bytes]) -> Path:
    """A copy of an adapter whose file holds what `change` makes of its header, under a manifest
    that vouches for it.
    """
    shutil.copytree(adapter.path, out)
    data = (out / ADAPTER_FILE).read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + n_header]))
    (out / ADAPTER_FILE).write_bytes(
        len(header).to_bytes(8, "little") + header + data[8 + n_header :]
    )
    data = (out / ADAPTER_FILE).read_bytes()
    record: FileRecord = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = dataclasses.replace(adapter.manifest, files={ADAPTER_FILE: record})
    (out / MANIFEST_FILE).write_bytes(manifest.to_json())
    return out


def test_hostile_files_end_in_one_line(made: Made, tmp_path: Path) -> None:
    adapter, base = made.adapters["int8", "classification"], made.bases["int8"]
    first = "h.0.attn.c_attn.lora_a"

    def edited(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
        def change(header: dict[str, Any]) -> bytes:
            header[first] = {**header[first], **changes}
            return json.dumps(header).encode()

        return change

    def renamed(header: dict[str, Any]) -> bytes:
        header["../../etc/passwd"] = header.pop(first)
        return json.dumps(header).encode()

    def twice(header: dict[str, Any]) -> bytes:
        text = json.dumps(header)
        return f'{text[:-1]}, "{first}": {json.dumps(header[first])}}}'.encode()

    cases: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
        "shape": (edited(shape=[3, 32]), "has the shape|its rank is"),
        "huge": (edited(shape=[1 << 40, 3]), "has the size or place"),
        "negative": (edited(data_offsets=[-2, 4]), "has the size or place"),
        "gap": (edited(data_offsets=[8, 200]), "begins at byte|not as long"),
        "type": (edited(dtype="I64"), "is 'I64'"),
        "field": (edited(extra=1), "other fields than exports write"),
        "name": (renamed, "it lacks the tensor|unknown tensor"),
        "twice": (twice, "comes twice"),
        "empty": (lambda header: b"{}", "it holds 0 tensors"),
        "text": (lambda header: b"\xff\xfe", "not valid JSON"),
    }
    for name, (change, message) in cases.items():
        path = rewritten(adapter, tmp_path / name, change)
        refused(lambda path=path: Classifier.load(base.path, adapter=path), message)  # type: ignore[misc]


def test_numbers_that_are_none_and_files_that_were_changed_are_refused(
    made: Made, tmp_path: Path
) -> None:
    adapter, base = made.adapters["int8", "classification"], made.bases["int8"]
    path = tmp_path / "broken"
    shutil.copytree(adapter.path, path)
    data = bytearray((path / ADAPTER_FILE).read_bytes())
    data[-2:] = np.float16(np.inf).tobytes()
    (path / ADAPTER_FILE).write_bytes(data)
    refused(lambda: Classifier.load(base.path, adapter=path), "is corrupt: its SHA-256")
    stale = dataclasses.replace(adapter, path=path)  # opened before the file was changed
    refused(lambda: Encoder(base, adapter=stale), "its SHA-256 is .*, the manifest says")
    opened = Bundle.unpublished(path, adapter.manifest)
    refused(lambda: Encoder(base, adapter=opened), "infinite values or no numbers")


def test_a_base_knows_its_shape(made: Made) -> None:
    config = made.bases["int8"].config
    assert config == dataclasses.replace(SHAPE, vocab_size=260, takes_adapters=True)
    assert made.bases["int8"].load_tokenizer().vocab_size == 257


def test_the_command_line_runs_several_adapters(made: Made, tmp_path: Path) -> None:
    base = made.bases["int8"].path
    merged = save_adapted(tmp_path / "merged", made.checkpoint, seed=8)
    second = export_adapter(merged, tmp_path / "second", made.bases["int8"])[0].path
    first = made.adapters["int8", "classification"].path
    alone = [done("classify", base, "--adapter", one, *TEXTS).out for one in (first, second)]
    both = done("classify", base, "--adapter", first, "--adapter", second, *TEXTS).out
    assert both.splitlines()[0::2] == [
        f"classification-int8\t{line}" for line in alone[0].splitlines()
    ]
    assert both.splitlines()[1::2] == [f"second\t{line}" for line in alone[1].splitlines()]
    as_json = done("classify", base, "--adapter", first, "--adapter", second, "a", "--json").out
    names = [json.loads(line)["adapter"] for line in as_json.splitlines()]
    assert names == ["classification-int8", "second"]
    other = made.adapters["int8", "similarity"].path
    kinds = "all must read the same texts, these are for classification, similarity"
    floats, out = made.bases["fp32"].path, tmp_path / "out"
    adapter_options: tuple[str | Path, ...] = ("--base", base, "--scheme", "int4")
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("classify", base, "a"), "is a base without a task of its own"),
        (("classify", first, "a"), "is an adapter: it runs on its base base-int8"),
        (("classify", base, "--adapter", first, "--adapter", other), kinds),
        (("verify", first), "is an adapter: --base is for adapters"),
        (("verify", base, "--base", base), "is no adapter: --base is for adapters"),
        (("generate", "a", "-m", base), "is a base for adapters"),
        (("quantize", floats, out, "--scheme", "int8"), "is a base: it is quantized when"),
        (("web", base, "-o", out), "a page runs no adapters"),
        (("export", merged, out, *adapter_options), "is not for --base"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.code in (1, 2), arguments
        assert len(result.errors) == 1, result.err
        assert message in result.errors[0], result.err
    assert not out.exists()
    vector = done("embed", base, "--adapter", made.adapters["int8", EMBEDDING].path, "a").json
    assert len(vector["embedding"]) == 6
    assert f"weights {made.bases['int8'].weights_hash()[:12]}" in done("inspect", first).out
    assert done("inspect", base, "--json").json["kind"] == "base"


def test_a_server_has_a_model_for_each_adapter(made: Made) -> None:
    pytest.importorskip("starlette")
    base = str(made.bases["int8"].path)
    folders = [str(made.adapters["int8", kind].path) for kind in ("classification", "entailment")]
    models = open_models([base], adapters=folders)
    try:
        names = [model.name for model in models]
        assert names == ["classification-int8", "entailment-int8"]
        first, second = (model.classifier for model in models)
        assert first is not None
        assert second is not None
        assert first.encoder._graph_runner is second.encoder._graph_runner
        assert models.named("classification-int8").embedder.embed(TEXTS).shape == (4, 32)
        assert len(first.predict(TEXTS).labels) == 4
    finally:
        models.close()
    with pytest.raises(BundleError, match="no adapter of a base among the bundles to serve"):
        open_models([str(made.bases["fp32"].path)], adapters=folders)
