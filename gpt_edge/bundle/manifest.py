"""Manifest: what `manifest.json` says about a bundle, and its strict reader. models/README.md
describes the format.

The file is untrusted: its size, nesting, keys, types and ranges are checked before anything acts on
them, and its own SHA-256 is in it, so that no changed byte goes unseen. It guards against
corruption, not against an attacker, who would write a new checksum. Knows nothing of folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import GRAPHS
from gpt_edge.schemes import SCHEMES
from gpt_edge.tasks import N_NEW_TOKENS, TaskSpec

FORMAT_VERSION = 1
CAUSAL_LM, TASK = "causal-lm", "task"
# a graph that runs adapters, and what one of them adds to it
BASE, ADAPTER = "base", "adapter"
KINDS = (CAUSAL_LM, TASK, BASE, ADAPTER)
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
ADAPTER_FILE = "adapter.safetensors"  # in place of a graph
SIGNATURE_FILE = "model.sig"  # of all other files, so no manifest lists it
MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_FILES = 64
MAX_FILE_BYTES = 1 << 50
# a plain name: it can never leave the folder
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SELF_HASH = "manifest_sha256"
# in the provenance of a bundle that was published out of tolerance: what was
ACCEPTED_PARITY = "accepted_parity"
# would act on a terminal, or cannot be printed at all
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
SURROGATE = re.compile("[\ud800-\udfff]")


class FileRecord(TypedDict):
    """Size in bytes and SHA-256 (64 lowercase hex digits) of one file of a bundle."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle's description. Raises ValueError for a kind, graph or scheme that this version does
    not know.

    It holds no date and no path, so the same export gives the same bytes.
    """

    name: str
    graph: str  # one of onnx_contract.GRAPHS
    scheme: str  # a name in gpt_edge.schemes.SCHEMES
    config: GPTConfig
    kind: str = CAUSAL_LM
    # of the kinds "task" and "adapter", and not in the file of another one
    task: TaskSpec | None = None
    # of an adapter the base that it belongs to: its "name", and the "sha256" of its weights
    base: Mapping[str, str] | None = None
    # TokenizerSpec.to_dict(); None: the bundle takes and gives ids only
    tokenizer: Mapping[str, Any] | None = None
    # how to generate where the user says nothing; not in the file where there are none
    generation_defaults: GenerationDefaults | None = None
    files: Mapping[str, FileRecord] = field(default_factory=dict)  # all but manifest.json
    # tool version, source kind, source hash
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)  # figures of `verify` at export
    # loss and bits per byte, where measured
    quality: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, KINDS),
            ("graph", self.graph, GRAPHS),
            ("scheme", self.scheme, tuple(SCHEMES)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        self._check_task()
        self._check_generation_defaults()
        if not FILE_NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be 1 to 80 letters, digits, '.', '_' or '-', got {self.name!r}"
            )

    def _check_task(self) -> None:
        task, n_label = self.task, self.config.n_label
        self._check_adapters()
        if self.kind == ADAPTER:
            return
        if (self.kind == TASK) != (task is not None) or (task is not None) != (n_label is not None):
            raise ValueError(
                f"kind task, a task and config.n_label must come together, got {self.kind}, "
                f"{n_label}"
            )
        if task is not None and task.n_label != n_label:
            raise ValueError(f"the task has {task.n_label} outputs, config.n_label is {n_label}")
        if task is not None and max(task.tokens, default=0) >= self.config.vocab_size:
            raise ValueError(
                f"the task's tokens must lie in the vocabulary of {self.config.vocab_size}"
            )

    def _check_adapters(self) -> None:
        if (self.kind in (BASE, ADAPTER)) != self.config.takes_adapters:
            raise ValueError(
                f"kind {self.kind} and config.takes_adapters do not fit, got "
                f"{self.config.takes_adapters}"
            )
        if self.config.takes_adapters and self.config.vocab_size <= N_NEW_TOKENS:
            raise ValueError(f"a base has more than {N_NEW_TOKENS} tokens")
        if (self.kind == ADAPTER) != (self.base is not None):
            raise ValueError(f"an adapter has a base, and nothing else has, got kind {self.kind}")
        if self.base is None:
            return
        if self.task is None or self.tokenizer is not None:
            raise ValueError("an adapter has a task, and its tokenizer is that of its base")
        n_text = self.config.vocab_size - N_NEW_TOKENS
        if self.task.tokens != tuple(range(n_text, self.config.vocab_size)):
            raise ValueError(
                f"an adapter's tokens are the last {N_NEW_TOKENS} of {self.config.vocab_size}, got "
                f"{list(self.task.tokens)}"
            )

    def _check_generation_defaults(self) -> None:
        defaults = self.generation_defaults
        if defaults is None:
            return
        if self.kind != CAUSAL_LM:
            raise ValueError(
                f"a bundle of kind {self.kind} generates nothing: it has no defaults for it"
            )
        if wrong := [id for id in defaults.eos_token_id if id >= self.config.vocab_size]:
            raise ValueError(
                f"generation_defaults: eos_token_id {wrong[0]} is not in the vocabulary of "
                f"{self.config.vocab_size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values in the order of the file; files by name."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        if self.task is None:
            del values["task"]
        else:
            values["task"] = self.task.to_dict()
        if self.base is None:
            del values["base"]
        else:
            values["base"] = dict(self.base)
        if self.generation_defaults is None:
            del values["generation_defaults"]
        else:
            values["generation_defaults"] = self.generation_defaults.to_dict()
        files = {name: dict(self.files[name]) for name in sorted(self.files)}
        ordered = {"format_version": self.format_version, "kind": self.kind, **values}
        return {**ordered, "config": self.config.to_dict(), "files": files}

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json, its own SHA-256 in the last line.

        Raises ValueError for what `from_json` would refuse: a figure that is NaN, a file name with
        a slash.
        """
        data = format_manifest(self.to_dict())
        try:
            Manifest.from_json(data, "the manifest to be written")
        except BundleError as error:
            raise ValueError(error.message) from error
        return data

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read the bytes of a manifest.json. Raises BundleError naming `where`, the actual and the
        expected value.
        """
        values = load_json_object(data, where)
        _check_version(values, where)
        _check_self_hash(values, data, where)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise BundleError(
                f"{where}: {_shown(error)}",
                hint="copy the bundle again, or rebuild it with gpt-edge export",
            ) from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """Check every field and make a Manifest. Raises ValueError naming the field, the actual
        and the expected value.
        """
        names = _check_fields(values, {item.name for item in dataclasses.fields(cls)})
        parsed = {name: values[name] for name in names}
        if "task" in parsed:
            parsed["task"] = TaskSpec.from_dict(parsed["task"])
        if "generation_defaults" in parsed:
            parsed["generation_defaults"] = _generation_defaults(parsed["generation_defaults"])
        return cls(**{**parsed, "config": GPTConfig.from_dict(values["config"])})


def format_manifest(values: Mapping[str, Any]) -> bytes:
    """The bytes of a file with these values, its own SHA-256 in the last line. Raises ValueError
    for NaN and what JSON has no word for.
    """
    blanked = {**values, SELF_HASH: "0" * 64}
    text = json.dumps(blanked, indent=1, allow_nan=False, default=_refuse) + "\n"
    blank = text.encode("ascii")
    return _replace_last(blank, "0" * 64, hashlib.sha256(blank).hexdigest())


def _check_fields(values: Mapping[str, Any], known: set[str]) -> set[str]:
    """Return the names of the known fields that are there. Raises ValueError for a field that is
    unknown, missing, or of the wrong type.
    """
    given = {name for name in values if name != SELF_HASH and not name.startswith("x-")}
    if unknown := sorted(given - known):
        raise ValueError(f"unknown fields: {', '.join(map(ascii, unknown))[:200]}")
    optional = {"generation_defaults"} | _absent_in(values.get("kind"))
    if missing := sorted(known - given - optional):
        raise ValueError(f"missing fields: {', '.join(missing)}")
    optional_objects = given & {"task", "base", "generation_defaults"}
    for name in ("name", "kind", "graph", "scheme"):
        if not isinstance(values[name], str):
            raise ValueError(f"{name} must be a text, got {_kind_of(values[name])}")
    objects = ("config", "files", "provenance", "parity", "quality", *sorted(optional_objects))
    for name in objects:
        if not isinstance(values[name], dict):
            raise ValueError(f"{name} must be an object, got {_kind_of(values[name])}")
        _check_texts(values[name], name)
    if not isinstance(values["tokenizer"], dict | None):
        raise ValueError(
            f"tokenizer must be an object or null, got {_kind_of(values['tokenizer'])}"
        )
    # a special token may hold any character
    _check_texts(dict.fromkeys(values["tokenizer"] or {}), "tokenizer")
    _check_files(values["files"], ADAPTER_FILE if values["kind"] == ADAPTER else MODEL_FILE)
    if "base" in given:
        _check_base(values["base"])
    return known & given


def _absent_in(kind: object) -> set[str]:
    """The fields that only the files of some kinds have."""
    if kind == ADAPTER:
        return set()
    return {"base"} if kind == TASK else {"base", "task"}


def _check_base(base: Mapping[str, Any]) -> None:
    name, sha256 = base.get("name"), base.get("sha256")
    is_right = isinstance(name, str) and FILE_NAME.fullmatch(name) and isinstance(sha256, str)
    if set(base) != {"name", "sha256"} or not is_right or not SHA256.fullmatch(str(sha256)):
        raise ValueError(
            f"base must have exactly a name and a sha256 of 64 lowercase hex digits, got "
            f"{ascii(base)[:100]}"
        )


def _generation_defaults(values: Mapping[str, Any]) -> GenerationDefaults:
    try:
        return GenerationDefaults.from_dict(values)
    except ValueError as error:
        raise ValueError(f"generation_defaults: {error}") from error


def load_json_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object that nobody vouches for. Raises BundleError naming `where`.

    Refused: more than 1 MiB, bytes that are not UTF-8, a key twice, NaN or an infinity, whole
    numbers beyond 64 bits, more than 16 levels, texts with lone surrogates. Source: RFC 8259,
    section 4 (keys) and 8.1 (UTF-8).
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{where} has more than {MAX_MANIFEST_BYTES} bytes")
    try:
        values = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise BundleError(f"{where} is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError too
        raise BundleError(f"{where} is not valid JSON: {_shown(error)}") from error
    if not isinstance(values, dict):
        raise BundleError(f"{where} must hold a JSON object, found {_kind_of(values)}")
    for depth, value in _walk(values):
        if depth > MAX_DEPTH:
            raise BundleError(f"{where} is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, str) and SURROGATE.search(value):
            raise BundleError(
                f"{where} holds a text that is not valid Unicode: {ascii(value)[:80]}"
            )
    return values


def _check_version(values: Mapping[str, Any], where: str) -> None:
    version = values.get("format_version")
    if type(version) is not int or version < 1:  # True is an int to isinstance
        found = "no format_version" if version is None else f"format_version {ascii(version)[:40]}"
        raise BundleError(
            f"{where} has {found}, expected a whole number from 1 to {FORMAT_VERSION}"
        )
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{where} is of format version {version}, this gpt-edge reads versions up to "
            f"{FORMAT_VERSION}",
            hint="pip install --upgrade gpt-edge",
        )


def _check_self_hash(values: Mapping[str, Any], data: bytes, where: str) -> None:
    found = values.get(SELF_HASH)
    if not isinstance(found, str) or not SHA256.fullmatch(found):
        raise BundleError(
            f"{where}: {SELF_HASH} must be 64 lowercase hex digits, found {ascii(found)[:80]}"
        )
    computed = hashlib.sha256(_replace_last(data, found, "0" * 64)).hexdigest()
    if computed != found:
        raise BundleError(
            f"{where} was changed after it was written: its SHA-256 is {computed[:12]}, it says "
            f"{found[:12]}",
            hint="copy the bundle again, or rebuild it with gpt-edge export",
        )


def _replace_last(data: bytes, old: str, new: str) -> bytes:
    head, _, tail = data.rpartition(old.encode("ascii"))
    return head + new.encode("ascii") + tail


def _check_files(files: Mapping[str, Any], main: str) -> None:
    if not 1 <= len(files) <= MAX_FILES or main not in files:
        raise ValueError(
            f"files must list 1 to {MAX_FILES} files, {main} among them, found {len(files)}"
        )
    if len({name.lower() for name in files}) < len(files):
        raise ValueError("files must differ in more than upper and lower case")
    for name, record in files.items():
        if not FILE_NAME.fullmatch(name) or name.lower() in (MANIFEST_FILE, SIGNATURE_FILE):
            raise ValueError(
                f"a file must have a plain name of at most 80 characters, got {name!r:.100}"
            )
        if not isinstance(record, dict) or set(record) != {"size", "sha256"}:
            raise ValueError(
                f"file {name} must have exactly the fields size and sha256, got {record!r:.100}"
            )
        size, sha256 = record["size"], record["sha256"]
        if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
            raise ValueError(
                f"file {name} must have a size from 0 to {MAX_FILE_BYTES} bytes, got {size!r:.40}"
            )
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise ValueError(
                f"file {name} must have a sha256 of 64 lowercase hex digits, got {sha256!r:.80}"
            )


def _check_texts(values: Mapping[str, Any], name: str) -> None:
    for _, value in _walk(values):
        if isinstance(value, str) and CONTROL.search(value):
            raise ValueError(f"{name} holds a control character: {ascii(value)[:80]}")


def _walk(values: object) -> Iterator[tuple[int, object]]:
    """Yield (depth, value) of everything inside, keys included; a loop, so depth costs no stack."""
    pending: list[tuple[int, object]] = [(1, values)]
    while pending:
        depth, value = pending.pop()
        yield depth, value
        if isinstance(value, Mapping):
            pending += [(depth + 1, part) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple):
            pending += [(depth + 1, part) for part in value]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {name!r:.80} comes twice")
    return values


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse(value: object) -> Any:
    raise ValueError(f"{value!r:.80} cannot stand in JSON")


def _shown(error: Exception) -> str:
    """What an error says, as one short line that no terminal obeys: it may quote the file."""
    text = str(error) if len(str(error)) <= 300 else f"{str(error)[:300]} ..."
    return text if text.isprintable() else ascii(text)


def _kind_of(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")
