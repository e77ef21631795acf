"""models/README.md, sentence by sentence: each promise is quoted by the test that holds it, and
none is left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.bundle.manifest import (
    FORMAT_VERSION,
    KINDS,
    MAX_DEPTH,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    SELF_HASH,
    FileRecord,
    Manifest,
    load_json_object,
)
from gpt_edge.bundle.writer import BundleWriter, is_bundle, new_bundle
from gpt_edge.errors import BundleError, GPTEdgeError, OutputError, TokenizerError
from gpt_edge.onnx_contract import GRAPHS
from gpt_edge.schemes import SCHEMES
from gpt_edge.tasks import new_task
from tests.support.bundle_factory import (
    label_of,
    manifest,
    payload,
    write_tiny_bundle,
    write_with_defaults,
)
from tests.support.runner import run
from tests.support.signatures import write_signature
from tests.support.tiny_model import bundle_path
from tests.support.warm_process import PATIENCE

MAX_20 = gpt_edge.SamplingParams(max_new_tokens=20)

README = (Path(__file__).resolve().parents[3] / "models" / "README.md").read_text(encoding="utf-8")
PROMISES = [line[2:] for line in README.splitlines() if line.startswith("- ")]
QUOTED: set[str] = set()
Test = Callable[..., None]


def quotes(*sentences: str) -> Callable[[Test], Test]:
    """Say which promises a test holds; a sentence that the page does not say is an error."""
    for sentence in sentences:
        assert sentence in PROMISES, f"models/README.md does not promise: {sentence}"
        QUOTED.add(sentence)
    return lambda test: test


# A bundle of format version 1, as it was first written. It never changes: every later gpt-edge must
# open it.
FROZEN = {
    "model.onnx": b"frozen",
    "manifest.json": b"""{
 "format_version": 1,
 "kind": "causal-lm",
 "name": "frozen-v1",
 "graph": "edge",
 "scheme": "int8",
 "config": {
  "n_layer": 2,
  "n_head": 2,
  "n_embd": 32,
  "n_ctx": 64,
  "vocab_size": 257,
  "norm": "pre",
  "attention": [
   "dense",
   "banded"
  ],
  "window": 16,
  "activation": "gelu_tanh",
  "layer_norm_epsilon": 1e-05,
  "n_inner": null,
  "scale_attention": true,
  "tied_embeddings": true
 },
 "tokenizer": {
  "kind": "gpt2",
  "file": "tokenizer.tiktoken",
  "vocab_size": 257,
  "end_token": 256,
  "special_tokens": {
   "<|endoftext|>": 256
  },
  "pattern": "gpt2"
 },
 "files": {
  "model.onnx": {
   "size": 6,
   "sha256": "ffb304816a1090313e833215c08dae3d209cfad1ffd1f674f0909a2ae99e1394"
  }
 },
 "provenance": {
  "tool": "gpt-edge 0.1.0"
 },
 "parity": {
  "logits_max_difference": 0.00015
 },
 "quality": {},
 "manifest_sha256": "810d8b3f0514e2b3379018360475e03733139951615f66aec4d6dc76801f0907"
}
""",
}


def resigned(values: dict[str, Any]) -> bytes:
    """The manifest that an attacker, or another program, would write: any values, a right
    checksum.
    """
    blank = json.dumps({**values, SELF_HASH: "0" * 64}).encode()
    head, _, tail = blank.rpartition(b"0" * 64)
    return head + hashlib.sha256(blank).hexdigest().encode() + tail


def changed(out: Path, **fields: Any) -> Path:
    """Write a tiny bundle whose manifest has other fields, rightly signed; a field that is ... is
    taken away.
    """
    write_tiny_bundle(out)
    values = {**json.loads((out / "manifest.json").read_bytes()), **fields}
    del values[SELF_HASH]
    (out / "manifest.json").write_bytes(
        resigned({name: value for name, value in values.items() if value is not ...})
    )
    return out


def refused(out: Path, match: str = "") -> None:
    with pytest.raises(BundleError, match=match):
        Bundle.open(out)


# In a process of its own: an audit hook stays for ever.
WATCH = """
import json, sys
from gpt_edge.bundle.bundle import Bundle
Bundle.open(sys.argv[1])  # whatever is loaded once is loaded by now
events, watching = [], [True]
watched = (
    "open", "import", "exec", "compile", "pickle.find_class", "subprocess.Popen", "os.system"
)
def watch(event, arguments):
    if watching and (event in watched or event.startswith("socket")):
        events.append((event, arguments[0] if arguments else None))
sys.addaudithook(watch)
Bundle.open(sys.argv[1])
watching.clear()
print(json.dumps(events))
"""


def write_bundle_with_a_subfolder(out: Path) -> None:
    with new_bundle(out) as writer:
        (writer.path / "folder").mkdir()
        writer.finalize(manifest())


@quotes(
    "A bundle is a folder, and nothing outside it is needed to run it.",
    "It holds `manifest.json`, `model.onnx`, and the files that the manifest lists, side by side, "
    "without subfolders.",
    "No file is a pickle, and opening a bundle runs no code from it and uses no network.",
)
def test_opening_touches_nothing_outside_the_folder(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(out)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    events = [tuple(event) for event in json.loads(done.stdout)]
    # The folder by its path, then plain names looked up in it, and the descriptors of both.
    named = {name for event, name in events if event == "open" and isinstance(name, str)}
    assert named == {str(out), "manifest.json", "model.onnx", "tokenizer.tiktoken"}
    assert {event for event, _ in events} == {"open"}
    with pytest.raises(ValueError, match="plain names"):
        write_bundle_with_a_subfolder(tmp_path / "deep")
    refused(
        changed(tmp_path / "no model", files={"other.onnx": {"size": 1, "sha256": "0" * 64}}),
        r"model\.onnx among them",
    )


@quotes(
    "A file's name is 1 to 80 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`, does not start "
    "with `.` or `-`, "
    "and does not differ from another by case alone."
)
def test_file_names_are_plain(tmp_path: Path) -> None:
    model = {"model.onnx": {"size": 3000, "sha256": hashlib.sha256(payload("one")).hexdigest()}}
    bad = [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/passwd",
        "C:x",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "é",
        "-x",
        ".x",
        "x" * 81,
    ]
    for name in [*bad, "manifest.json", "Manifest.JSON"]:
        with pytest.raises(BundleError, match=r"plain name|control character"):
            Manifest.from_json(
                resigned({**manifest().to_dict(), "files": {**model, name: model["model.onnx"]}}),
                "here",
            )
    refused(
        changed(tmp_path / "case", files={**model, "MODEL.onnx": model["model.onnx"]}),
        "upper and lower case",
    )


@quotes(
    "Every file is a regular file: a symbolic link, a pipe or a folder in its place is refused."
)
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_only_regular_files_count(tmp_path: Path, name: str) -> None:
    write_tiny_bundle(tmp_path / "out")
    path = tmp_path / "out" / name
    path.rename(tmp_path / "real")
    for make in (lambda: path.symlink_to(tmp_path / "real"), lambda: os.mkfifo(path), path.mkdir):
        make()
        refused(tmp_path / "out", f"{name} is not a regular file")
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@quotes(
    "A file that the manifest lists and the folder lacks is an error; "
    "a file that the folder has and the manifest omits is a warning."
)
def test_files_present_are_the_files_listed(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    (tmp_path / "out" / "extra.txt").touch()
    with pytest.warns(UserWarning, match=r"does not list: 'extra\.txt'"):
        Bundle.open(tmp_path / "out")
    (tmp_path / "out" / "tokenizer.tiktoken").unlink()
    refused(tmp_path / "out", r"tokenizer\.tiktoken is missing")


@quotes("`model.sig`, a signature of all other files, may lie beside them; no manifest lists it.")
def test_a_signature_lies_beside_the_files_and_is_none_of_them(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "out")
    write_signature(bundle.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert is_bundle(bundle.path)  # --force may replace it
    record = bundle.manifest.files["model.onnx"]
    refused(changed(tmp_path / "two", files={"model.onnx": record, "model.sig": record}), "plain")


@pytest.mark.parametrize("depth", ["Bundle.open(path)", "read_bundle(path, Bundle)"])
def test_the_warning_points_at_the_users_line(tmp_path: Path, depth: str) -> None:
    write_tiny_bundle(tmp_path / "out")
    (tmp_path / "out" / "extra.txt").touch()
    program = (
        "from gpt_edge.bundle.bundle import Bundle, read_bundle\n"
        f"path = {str(tmp_path / 'out')!r}\n"
        f"{depth.replace('Bundle)', 'lambda bundle: bundle)')}\n"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(program, "users_program.py", "exec"), {"__name__": "users_program"})
    assert [(one.filename, one.lineno) for one in caught] == [("users_program.py", 3)]


@quotes("`manifest.json` is a JSON object in UTF-8, at most 1 MiB long and 16 levels deep.")
def test_the_manifest_is_small_flat_json(tmp_path: Path) -> None:
    nested: object = 1
    for _ in range(MAX_DEPTH - 2):  # the manifest is level 1, the field 2
        nested = [nested]
    Bundle.open(changed(tmp_path / "deep enough", parity={"x": nested[0]}))  # type: ignore[index]
    refused(changed(tmp_path / "too deep", parity={"x": nested}), "levels deep")
    refused(
        changed(tmp_path / "too long", parity={"x": "y" * MAX_MANIFEST_BYTES}),
        "more than 1048576 bytes",
    )
    write_tiny_bundle(tmp_path / "out")
    whole = (tmp_path / "out" / "manifest.json").read_bytes()
    for data in (
        b"",
        b"[]",
        b"3",
        b"null",
        b"[" * 100_000,
        b"\xff" + whole,
        b"\xef\xbb\xbf" + whole,
        whole[:-10],
        whole.decode().encode("utf-16"),
    ):
        (tmp_path / "out" / "manifest.json").write_bytes(data)
        refused(tmp_path / "out", "manifest.json")


@quotes("A duplicate key, NaN, an infinity, and a whole number beyond 64 bits are refused.")
def test_json_that_two_readers_read_differently_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    whole = path.read_bytes()
    for old, new, message in (
        (b'"name": "tiny"', b'"name": "tiny", "name": "tiny"', "comes twice"),
        (b"1.0", b"NaN", "NaN"),
        (b"1.0", b"-Infinity", "Infinity"),
        (b"1.0", b"1e400", "too large"),
        (b"1.0", b"9223372036854775808", "too large"),
        (b"1.0", b"9" * 5000, "too large"),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        refused(tmp_path / "out", message)


def test_whole_numbers_have_64_bits_and_are_read_at_both_ends() -> None:
    for number in (0, (1 << 63) - 1, -(1 << 63)):
        assert load_json_object(b'{"a": %d}' % number, "file") == {"a": number}
    for number in (1 << 63, -(1 << 63) - 1, 10**19, -(10**19), 10**20):
        with pytest.raises(BundleError, match=f"file.*{number} is too large"):
            load_json_object(b'{"a": %d}' % number, "file")
    with pytest.raises(BundleError, match="the key 'b' comes twice"):
        load_json_object(b'{"a": 1, "b": 2, "c": 3, "b": 4}', "file")
    longest = b'{"a": 1}'.ljust(MAX_MANIFEST_BYTES)
    assert load_json_object(longest, "file") == {"a": 1}
    with pytest.raises(BundleError, match="has more than"):
        load_json_object(longest + b" ", "file")


WRONG: dict[str, list[object]] = {
    "generation_defaults": [
        None,
        {},
        [],
        1,
        {"do_sample": 1},
        {"do_sample": None},
        {"temperature": -0.1},
        {"temperature": True},
        {"temperature": "1"},
        {"top_k": -1},
        {"top_k": 2.0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"eos_token_id": []},
        {"eos_token_id": -1},
        {"eos_token_id": 300},
        {"eos_token_id": [1, True]},
        {"eos_token_id": [[1]]},
        {"eos_token_id": list(range(65))},
        {"min_p": 1.5},
        {"typical_p": 0},
        {"repetition_penalty": 0},
        {"no_repeat_ngram_size": -1},
        {"length_penalty": 1.1},
    ],
    "format_version": [0, -1, True, 1.0, "1", None, [1]],
    "kind": ["", "classifier", None, 1],
    "name": ["", "a/b", "x" * 81, "-x", None, 3, ["x"]],
    "graph": ["", "Edge", None, 1],
    "scheme": ["", "int2", None, 8],
    "tokenizer": [[], "gpt2", 1, False],
    "files": [
        {},
        [],
        None,
        {"model.onnx": {}},
        {"model.onnx": None},
        {"model.onnx": {"size": 1, "sha256": "0" * 64, "x": 1}},
    ]
    + [
        {"model.onnx": {"size": size, "sha256": "0" * 64}}
        for size in (-1, True, 1.0, "1", 1 << 60, None)
    ]
    + [
        {"model.onnx": {"size": 1, "sha256": value}}
        for value in ("", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", None, 0)
    ]
    + [{f"{n}": {"size": 1, "sha256": "0" * 64} for n in ["model.onnx", *range(MAX_FILES)]}],
    "provenance": [[], None, "x", 1],
    "parity": [[], None],
    "quality": [[], None],
    "config": [{}, [], None, 1],
}
WRONG_CONFIG: dict[str, list[object]] = {
    **{
        name: [0, -1, True, 1.5, "2", None, 1 << 21]
        for name in ("n_layer", "n_head", "n_embd", "n_ctx", "vocab_size")
    },
    "n_head": [3],
    "norm": ["sandwich", None, 1, ["pre"]],
    "attention": [[], "dense", ["wide"], [1], None, {}, ["banded"]],
    "window": [0, True, "x", 5],
    "activation": ["swish", None],
    "layer_norm_epsilon": [0, -1, None, "x", True, 0.0],
    "n_inner": [0, "x", True],
    "scale_attention": [1, None, "x"],
    "tied_embeddings": [0, None],
    "unknown": [1],
}


@quotes(
    "Every field of the table is present and has exactly the type and range given; no "
    "other field is allowed, except those whose name starts with `x-`, which are ignored."
)
def test_fields_are_exactly_those_of_the_table(tmp_path: Path) -> None:
    table = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    config = dataclasses.replace(manifest().config, n_label=2)
    task = new_task("classification", 297, ("a", "b"))
    tuned = dataclasses.replace(manifest(), kind="task", task=task, config=config)
    model = dataclasses.replace(manifest(), generation_defaults=GenerationDefaults(top_k=1))
    for own, absent in ((tuned, {"generation_defaults", "base"}), (model, {"task", "base"})):
        assert [name for name in table if name not in absent] == [*own.to_dict(), SELF_HASH]
    for choice in (*GRAPHS, *SCHEMES, *KINDS):
        assert f"`{choice}`" in README
    out = changed(tmp_path / "out", **{"x-note": {"any": "thing"}})
    assert Bundle.open(out).manifest.name == "tiny"
    good = json.loads((out / "manifest.json").read_bytes())
    del good[SELF_HASH]
    cases = [
        {**good, "note": 1},
        *({**good, name: value} for name, values in WRONG.items() for value in values),
    ]
    cases += [
        {name: value for name, value in good.items() if name != missing}
        for missing in set(table[:-1]) - {"task", "base", "generation_defaults"}
    ]
    for name, values in WRONG_CONFIG.items():
        cases += [{**good, "config": {**good["config"], name: value}} for value in values]
    for values in cases:
        with pytest.raises(BundleError, match=r"^here") as caught:
            Manifest.from_json(resigned(values), "here")
        assert "\n" not in caught.value.message
        assert len(caught.value.message) < 400
    Manifest.from_json(resigned(good), "here")


@quotes(
    "The last field, `manifest_sha256`, is the SHA-256 of the file itself with these 64 "
    "digits written as zeros: a changed byte anywhere is detected."
)
def test_the_manifest_carries_its_own_hash(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    values = json.loads(text)
    assert list(values)[-1] == "manifest_sha256"
    zeroed = text.replace(values["manifest_sha256"], "0" * 64)
    assert hashlib.sha256(zeroed.encode()).hexdigest() == values["manifest_sha256"]
    (tmp_path / "out" / "manifest.json").write_text(text.replace("1.0", "1.00"))
    refused(tmp_path / "out", "was changed after it was written")


@quotes("Texts hold no control characters, except the tokenizer's special tokens.")
def test_texts_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    for number, text in enumerate(["\x1b[2J", "a\nb", "\x7f", "\x9b", "\ud800"]):
        refused(
            changed(tmp_path / f"value {number}", provenance={"source": text}),
            "control character|not valid Unicode",
        )
        refused(
            changed(tmp_path / f"key {number}", quality={text: 1}),
            "control character|not valid Unicode",
        )
    Bundle.open(changed(tmp_path / "out", tokenizer={"special_tokens": {"\n": 1}}))


@quotes("It holds no date and no path, so the same export produces the same bytes.")
def test_a_manifest_says_nothing_of_when_and_where(tmp_path: Path) -> None:
    bundles = [write_tiny_bundle(tmp_path / name) for name in ("a", "b")]
    first, second = (bundle.path.joinpath("manifest.json").read_bytes() for bundle in bundles)
    assert first == second
    assert str(tmp_path).encode() not in first


@quotes("The tokenizer's file is one of the files that the manifest lists.")
def test_a_tokenizer_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    spec = {
        "kind": "gpt2",
        "vocab_size": 257,
        "end_token": 256,
        "special_tokens": {"<|endoftext|>": 256},
        "pattern": "gpt2",
    }
    out = changed(tmp_path / "a", tokenizer={**spec, "file": "elsewhere.tiktoken"})
    with pytest.raises(BundleError, match=r"elsewhere\.tiktoken is not listed"):
        Bundle.open(out).load_tokenizer()
    out = changed(tmp_path / "b", tokenizer={**spec, "file": "../secret"})
    with pytest.raises(TokenizerError, match="plain file name"):
        Bundle.open(out).load_tokenizer()


@quotes(
    "`chat_template.jinja`, if the manifest lists it, is the chat template that the checkpoint "
    "brought: UTF-8, Jinja, at most 64 KiB, untrusted."
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{ messages[0]['content'] }}é".encode(), None),
        (b"\xff", "chat_template.jinja is not UTF-8"),
        (b"x" * 65_537, "chat_template.jinja has more than 65536 bytes"),
    ],
)
def test_a_chat_template_is_read_as_text(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    plain = write_tiny_bundle(tmp_path / "plain")
    assert plain.read_chat_template() is None
    with new_bundle(tmp_path / "chat") as writer:
        for name in plain.manifest.files:
            (writer.path / name).write_bytes((plain.path / name).read_bytes())
        (writer.path / "chat_template.jinja").write_bytes(content)
        writer.finalize(plain.manifest)
    bundle = Bundle.open(tmp_path / "chat")
    if message is None:
        assert bundle.read_chat_template() == content.decode()
        return
    with pytest.raises(BundleError, match=message):
        bundle.read_chat_template()


@quotes(
    "`generation_defaults` has one or more of its nine fields, each of the type and range given, "
    "and every id of `eos_token_id` lies in the vocabulary."
)
@pytest.mark.parametrize(
    "defaults",
    [
        {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "eos_token_id": 299},
        {"do_sample": False, "temperature": 0, "top_k": 0, "top_p": 1, "eos_token_id": [0, 299]},
        {"top_p": 1e-9},
        {"min_p": 0.1, "typical_p": 1, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    ],
)
def test_generation_defaults_are_read_as_written(
    tmp_path: Path, defaults: dict[str, object]
) -> None:
    opened = Bundle.open(changed(tmp_path / "out", generation_defaults=defaults)).manifest
    assert opened.generation_defaults is not None
    assert opened.generation_defaults.to_dict() == defaults
    again = json.loads(opened.to_json())
    assert again["generation_defaults"] == defaults
    task = new_task("classification", 297, ("a", "b"))
    config = dataclasses.replace(manifest().config, n_label=2)
    with pytest.raises(ValueError, match="kind task"):
        dataclasses.replace(opened, kind="task", task=task, config=config)


@quotes(
    "`gpt-edge generate` samples with them where the user gives no sampling option, and every "
    "generation ends at the tokenizer's end token and at each of `eos_token_id`; without "
    "`do_sample`, the most likely token is taken."
)
def test_generation_defaults_are_applied_by_generate(tmp_path: Path) -> None:
    plain = gpt_edge.load(bundle_path()).complete("the end", MAX_20)
    last = plain.ids[4]
    first = plain.ids.index(last)
    defaults = GenerationDefaults(temperature=0.9, eos_token_id=(last,))
    write_with_defaults(tmp_path / "ends", defaults)
    done = run("generate", "the end", "-m", tmp_path / "ends", "--json").json
    assert (done["finish_reason"], done["completion_tokens"]) == ("stop", first)
    assert (done["seed"], done["top_k"], done["temperature"]) == (None, None, None)
    defaults = GenerationDefaults(do_sample=True, temperature=0.9, top_k=7)
    write_with_defaults(tmp_path / "samples", defaults)
    done = run("generate", "the end", "-m", tmp_path / "samples", "--json", "--seed", "5").json
    assert (done["seed"], done["top_k"], done["temperature"]) == (5, 7, 0.9)


@quotes(
    "An adapter holds `adapter.safetensors` in place of a graph, and runs on its base.",
    "`config` has `takes_adapters` in a base and in its adapters, whose configs are equal; the "
    "last three rows of the vocabulary are the adapters'.",
)
def test_a_base_and_its_adapters_have_kinds_of_their_own(tmp_path: Path) -> None:
    config = dataclasses.replace(manifest().config, takes_adapters=True)
    n_text = config.vocab_size - 3
    data = b"numbers"
    record: FileRecord = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    adapter = dataclasses.replace(
        manifest(),
        kind="adapter",
        config=config,
        task=new_task("classification", n_text, ("a", "b")),
        base={"name": "stories", "sha256": "0" * 64},
        tokenizer=None,
        files={"adapter.safetensors": record},
    )
    assert Manifest.from_json(adapter.to_json(), "the manifest") == adapter
    for changes in (
        {"base": None},
        {"kind": "base"},
        {"kind": "task"},
        {"task": None},
        {"tokenizer": {}},
        {"config": manifest().config},
        {"task": new_task("classification", n_text - 1, ("a", "b"))},
    ):
        with pytest.raises(ValueError, match=r"base|adapter|kind"):
            dataclasses.replace(adapter, **changes)
    for wrong in ({"name": "stories"}, {"name": "../x", "sha256": "0" * 64}, {"sha256": "0" * 64}):
        with pytest.raises(ValueError, match="base must have exactly a name and a sha256"):
            dataclasses.replace(adapter, base=wrong).to_json()
    with pytest.raises(ValueError, match=r"adapter\.safetensors among them"):
        dataclasses.replace(adapter, files={"model.onnx": record}).to_json()
    (tmp_path / "adapter.safetensors").write_bytes(data)
    (tmp_path / "manifest.json").write_bytes(adapter.to_json())
    opened = Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="is an adapter: it runs on its base stories"):
        _ = opened.model_path


@quotes(
    "A bundle is of kind `task` if and only if it has a `task` and `config` has its "
    "`n_label`, the number of the graph's outputs."
)
def test_a_task_its_kind_and_its_outputs_come_together(tmp_path: Path) -> None:
    config = manifest().config.to_dict()
    task = new_task("classification", 297, ("a", "b")).to_dict()
    tuned = {**config, "n_label": 2}
    opened = Bundle.open(changed(tmp_path / "right", kind="task", task=task, config=tuned))
    assert opened.task == new_task("classification", 297, ("a", "b"))
    assert "task" not in json.loads(
        (write_tiny_bundle(tmp_path / "lm").path / "manifest.json").read_bytes()
    )
    for number, fields in enumerate(
        (
            {"task": task},
            {"kind": "task"},
            {"config": tuned},
            {"kind": "task", "task": task},
            {"kind": "task", "task": None, "config": tuned},
            {"kind": "task", "task": {**task, "labels": ["a"]}, "config": tuned},
            {"kind": "task", "task": {**task, "labels": ["a", "b", "c"]}, "config": tuned},
            {"kind": "task", "task": {**task, "extract": 300}, "config": tuned},
            {"kind": "task", "task": {**task, "labels": ["a", "\x1b"]}, "config": tuned},
            {"kind": "task", "task": {**task, "more": 1}, "config": tuned},
        )
    ):
        refused(changed(tmp_path / f"wrong {number}", **fields), "task|classification")


@quotes("A bundle of a newer format version is refused with an error that names both versions.")
def test_a_newer_version_is_named_before_anything_else_is_looked_at(tmp_path: Path) -> None:
    out = changed(tmp_path / "out", format_version=FORMAT_VERSION + 1, new_field=[], config=...)
    with pytest.raises(
        BundleError,
        match=rf"format version {FORMAT_VERSION + 1}, .* versions up to {FORMAT_VERSION}",
    ) as caught:
        Bundle.open(out)
    assert "--upgrade" in str(caught.value.hint)


@quotes(
    "A bundle of every released format version can be opened permanently; the tests keep "
    "one of each."
)
def test_the_frozen_bundle_of_version_1_opens(tmp_path: Path) -> None:
    for name, data in FROZEN.items():
        (tmp_path / name).write_bytes(data)
    bundle = Bundle.open(tmp_path)
    assert bundle.manifest.name == "frozen-v1"
    assert bundle.config.layer_window(1) == 16
    assert dict(bundle.manifest.tokenizer or {})["end_token"] == 256
    # and would be written the same today
    assert bundle.manifest.to_json() == FROZEN["manifest.json"]


@quotes(
    "Opening a bundle checks the size and the SHA-256 of every file, and the error names the file "
    "that is corrupt or missing."
)
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.tiktoken"])
def test_a_corrupt_file_is_named(tmp_path: Path, name: str) -> None:
    write_tiny_bundle(tmp_path / "out")
    path = tmp_path / "out" / name
    data = path.read_bytes()
    for corrupt, message in (
        (bytes([data[0] ^ 1]) + data[1:], f"{name} is corrupt"),
        (data[:-1], f"{name} has {len(data) - 1} bytes"),
        (data + b"\0", f"{name} has {len(data) + 1} bytes"),
        (b"", f"{name} has 0 bytes"),
    ):
        path.write_bytes(corrupt)
        refused(tmp_path / "out", message)
    path.unlink()
    refused(tmp_path / "out", f"{name} is missing")


@quotes("A folder in the current directory comes before a built-in bundle of the same name.")
def test_a_local_folder_wins_over_an_embedded_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_edge.bundle.reader.BUILTIN", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    write_tiny_bundle(tmp_path / "models" / "tiny", "embedded")
    assert Bundle.open("tiny").path == tmp_path / "models" / "tiny"
    write_tiny_bundle(tmp_path / "tiny", "local")
    assert Bundle.open("tiny").path == Path("tiny")
    assert label_of(Path("tiny")) == "local"


@quotes(
    "A bundle that is replaced while it is opened is read as the old one or the new one, "
    "never as a mixture."
)
@pytest.mark.parametrize("n_times", [1, 2, 9])
def test_a_replacement_during_the_reading_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_times: int
) -> None:
    from gpt_edge.bundle import reader as bundle_reader

    write_tiny_bundle(tmp_path / "out", "0")
    check_file, done = bundle_reader._check_file, []

    def replace_then_check(*arguments: Any) -> None:
        if len(done) < n_times:
            done.append(1)
            write_tiny_bundle(tmp_path / "out", str(len(done)), force=True)
        check_file(*arguments)

    monkeypatch.setattr(bundle_reader, "_check_file", replace_then_check)
    if n_times == 9:
        refused(tmp_path / "out", "was replaced each time it was read")
    else:
        assert label_of(tmp_path / "out") == str(n_times)


@quotes(
    "The checksums detect corruption, not an attacker, who can write new ones; the "
    "SHA-256 of `manifest.json`, noted elsewhere, pins every byte of a bundle."
)
def test_the_manifest_pins_every_other_file(tmp_path: Path) -> None:
    for number, labels in enumerate([("a", "a"), ("b", "a"), ("a", "b")]):
        with new_bundle(tmp_path / str(number)) as writer:
            for name, label in zip(("model.onnx", "x.bin"), labels, strict=True):
                (writer.path / name).write_bytes(payload(label))
            writer.finalize(manifest())
    assert (
        len({(tmp_path / str(number) / "manifest.json").read_bytes() for number in range(3)}) == 3
    )
    Bundle.open(changed(tmp_path / "forged", name="forged"))


@quotes(
    "A bundle is written under a temporary name beside its target, flushed to the disk, "
    "read back and hashed, and published by one rename."
)
def test_everything_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[str] = []
    fsync, rename = os.fsync, os.rename

    def name_of(descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def watched_rename(one: Path, other: Path) -> None:
        trace.append("rename")
        rename(one, other)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to name a descriptor")
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (trace.append(name_of(descriptor)), fsync(descriptor))
    )
    monkeypatch.setattr(os, "rename", watched_rename)
    write_tiny_bundle(tmp_path / "out")
    assert trace.count("rename") == 1
    before, after = trace[: trace.index("rename")], trace[trace.index("rename") + 1 :]
    assert {"manifest.json", "model.onnx", "tokenizer.tiktoken"} < set(before)
    assert before[-1].startswith(".out.tmp-")  # the folder itself, after its files
    assert after == [tmp_path.name]


@quotes(
    "If the process is killed at any moment, the target is the complete old bundle or the "
    "complete new one; what the dead process left is removed by the next export to the "
    "same target."
)
def test_what_a_dead_process_left_is_cleared(tmp_path: Path) -> None:
    # test_files_faults.py kills real processes
    write_tiny_bundle(tmp_path / ".out.tmp-12345-0123abcd")
    write_tiny_bundle(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def start_and_fail(out: Path, error: BaseException) -> BundleWriter:
    """Replace `out` up to the last moment, then fail; return the writer."""
    writers = []
    try:
        with new_bundle(out, force=True) as writer:
            writers.append(writer)
            (writer.path / "model.onnx").write_bytes(payload("new"))
            writer.finalize(manifest("new"))
            raise error
    except type(error):
        return writers[0]


@quotes("An export that fails or is interrupted leaves nothing behind and the target untouched.")
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OutputError("x"), ValueError(), SystemExit()], ids=repr
)
def test_a_failure_leaves_the_target_untouched(tmp_path: Path, error: BaseException) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    writer = start_and_fail(tmp_path / "out", error)
    assert label_of(tmp_path / "out") == "old"
    assert os.listdir(tmp_path) == ["out"]
    with pytest.raises(RuntimeError, match="not published"):
        _ = writer.bundle


@quotes(
    "If two exports write to one target, the second fails at once and reports that the "
    "target is busy."
)
def test_the_second_export_is_told_that_the_target_is_busy(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "out") as writer:
        with pytest.raises(OutputError, match="is busy"):
            write_tiny_bundle(tmp_path / "out", "second", force=True)
        (writer.path / "model.onnx").write_bytes(payload("first"))
        writer.finalize(manifest("first"))
    assert label_of(tmp_path / "out") == "first"


@quotes(
    "An existing target is replaced only with `--force`, and only if it is an empty "
    "folder or a bundle without other files in it."
)
def test_force_replaces_bundles_and_empty_folders_only(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out", "old")
    with pytest.raises(OutputError, match="exists"):
        write_tiny_bundle(tmp_path / "out", "new")
    write_tiny_bundle(tmp_path / "out", "new", force=True)
    assert label_of(tmp_path / "out") == "new"
    (tmp_path / "empty").mkdir()
    write_tiny_bundle(tmp_path / "empty", "new", force=True)
    (tmp_path / "out" / "mine.txt").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    for name in ("out", "photos"):
        with pytest.raises(OutputError):
            write_tiny_bundle(tmp_path / name, "newer", force=True)
    assert (tmp_path / "out" / "mine.txt").exists()
    assert (tmp_path / "photos" / "1.jpg").exists()


@quotes(
    "A target is refused if it is a file or a symbolic link, if it is the source, or if "
    "one contains the other."
)
def test_targets_that_would_cost_a_user_something_are_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "source")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for target in (
        tmp_path / "file",
        tmp_path / "link",
        tmp_path / "source",
        tmp_path / "source" / "out",
        tmp_path,
    ):
        with pytest.raises(OutputError), new_bundle(target, force=True, source=tmp_path / "source"):
            pytest.fail("the work must not begin")
    assert label_of(tmp_path / "source") == "one"


@quotes(
    "A folder that Optimum exported from a GPT-2 (`config.json`, `model.onnx` or "
    "`model_quantized.onnx`, tokenizer files, "
    "no manifest) is opened as a portable bundle without checksums."
)
def test_an_optimum_folder_is_a_portable_bundle(tmp_path: Path) -> None:
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    (tmp_path / "model.onnx").write_bytes(b"x")  # test_bundle_foreign.py says more
    bundle = Bundle.open(tmp_path)
    assert bundle.is_optimum_export
    assert bundle.graph == "portable"
    assert {record["sha256"] for record in bundle.manifest.files.values()} == {""}


def test_every_promise_is_quoted_by_a_test() -> None:
    assert sorted(set(PROMISES) - QUOTED) == []
    assert len(PROMISES) == len(set(PROMISES)) >= 25


def test_every_error_on_the_way_is_a_typed_one(tmp_path: Path) -> None:
    with pytest.raises(GPTEdgeError):
        Bundle.open(tmp_path / "nothing")


def test_a_manifest_round_trips() -> None:
    full = dataclasses.replace(
        manifest(), files={"model.onnx": {"size": 1, "sha256": "a" * 64}}, tokenizer={"kind": "x"}
    )
    assert Manifest.from_json(full.to_json(), "here") == full


def test_a_base_has_words_beside_the_new_tokens_of_adapters() -> None:
    made = manifest()
    config = dataclasses.replace(made.config, takes_adapters=True, vocab_size=3, n_label=None)
    with pytest.raises(ValueError, match="a base has more than"):
        dataclasses.replace(made, kind="base", config=config)
