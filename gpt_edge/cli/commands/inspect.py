"""`inspect`: what a bundle claims to be, its sizes, and the figures measured at export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.operators import operator_facts, operator_figures
from gpt_edge.cli.support.options import BundleArgument, JsonOption
from gpt_edge.cli.support.signature_facts import signature_fact, signature_figures
from gpt_edge.cli.support.tables import columns, describe, parity_table, size

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.bundle.manifest import Manifest
    from gpt_edge.tasks import TaskSpec


def inspect(
    bundle: BundleArgument = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="Show the memory that it takes: calculated, predicted, measured."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a bundle's contents, sizes and measured quality."""
    from gpt_edge.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    figures = None
    if memory:
        from gpt_edge.cli.support.memory import memory_figures

        figures = memory_figures(opened)
    if as_json:
        values = {
            **describe(opened),
            "signature": signature_figures(opened),
            **({} if opened.manifest.base else {"operators": operator_figures(opened)}),
            "manifest": opened.manifest.to_dict(),
        }
        console.say_json(values if figures is None else {**values, "memory": figures})
        return
    files = describe(opened)["files"]
    console.say(columns(_facts(opened)))
    for text in _accepted(opened.manifest.provenance):
        console.say(f"warning: published out of tolerance: {text}")
    console.say()
    console.say(columns([(f"  {name}", size(n_bytes)) for name, n_bytes in files.items()]))
    if opened.manifest.parity:
        console.say("\nmeasured at export")
        console.say(parity_table(opened.manifest.parity))
    if figures:
        console.say("\nmemory")
        console.say(columns(_memory_rows(figures)))


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    """Return name and value of each line, the values padded so that `columns` aligns them left."""
    manifest = bundle.manifest
    n_files = len(manifest.files) + (not bundle.is_optimum_export)
    kind = f"{manifest.kind}, {bundle.graph} graph, {bundle.scheme}"
    facts = [
        ("name", manifest.name),
        ("path", console.visible(str(bundle.path))),
        ("kind", f"{kind}, format version {manifest.format_version}"),
        ("size", f"{size(bundle.n_bytes)} in {n_files} files"),
        *_shape_facts(bundle),
    ]
    if manifest.base is not None:
        base = f"{manifest.base['name']}, weights {manifest.base['sha256'][:12]}"
        facts.append(("base", base))
    elif bundle.config.takes_adapters:
        facts.append(("weights", f"{bundle.weights_hash()[:12]}, by which adapters know it"))
    if manifest.task is not None:
        facts.append(("task", _task(manifest.task)))
        facts += _calibration_facts(manifest)
    if (template := bundle.read_chat_template()) is not None:
        n_lines = len(template.splitlines())
        facts.append(("chat template", f"{len(template):,} characters, {n_lines:,} lines"))
    for name, values in (("quality", manifest.quality), ("provenance", manifest.provenance)):
        plain = {key: value for key, value in values.items() if not isinstance(value, dict | list)}
        if plain:
            facts.append((name, ", ".join(f"{key} {_value(plain[key])}" for key in plain)))
    facts += _quantization_facts(manifest.provenance)
    if manifest.base is None:  # an adapter has no graph
        facts += _product_facts(bundle)
    facts.append(("signature", console.visible(signature_fact(signature_figures(bundle)))))
    if manifest.base is None:
        facts += [(name, console.visible(value)) for name, value in operator_facts(bundle)]
    width = max(len(value) for _, value in facts)
    return [(name, value.ljust(width)) for name, value in facts]


def _calibration_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """The temperature, and its figures as far as the manifest has them in the expected shape."""
    task = manifest.task
    if task is None or not task.has_probabilities:
        return []
    if task.temperature is None:
        return [("probabilities", "not calibrated")]
    text = f"calibrated, temperature {task.temperature:.4g}"
    figures = manifest.quality.get("calibration")
    names = ("ece_before", "ece_after", "n_examples")
    if isinstance(figures, dict) and all(name in figures for name in names):
        before, after, n_examples = (_value(figures[name]) for name in names)
        text += f"; error {before} before, {after} after, on {n_examples} examples"
    return [("probabilities", text)]


def _accepted(provenance: Mapping[str, Any]) -> list[str]:
    """What was out of tolerance when the bundle was published with --accept-parity."""
    from gpt_edge.bundle.manifest import ACCEPTED_PARITY

    texts = provenance.get(ACCEPTED_PARITY)
    return [console.visible(str(text)) for text in texts] if isinstance(texts, list) else []


def _shape_facts(bundle: Bundle) -> list[tuple[str, str]]:
    config = bundle.config
    attention = " and ".join(config.attention)
    if config.window:
        attention += f", window {config.window}"
    layers = f"{config.n_layer}, {config.n_head} heads, width {config.n_embd}"
    return [
        ("parameters", f"{config.n_parameters:,}"),
        ("layers", f"{layers}, {config.norm}-norm, {attention}"),
        ("context", f"{config.n_ctx:,} tokens"),
        ("vocabulary", _vocabulary(bundle)),
    ]


def _quantization_facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Formats and smoothing, as far as the manifest has them in the expected shape."""
    facts = []
    quantization = provenance.get("quantization")
    formats = quantization.get("formats") if isinstance(quantization, dict) else None
    if isinstance(formats, dict):
        counts = [f"{_value(count)} x {_value(label)}" for label, count in formats.items()]
        facts.append(("formats", ", ".join(counts)))
    smoothing = provenance.get("smoothing")
    if isinstance(smoothing, dict):
        channels = [value for value in smoothing.values() if isinstance(value, dict)]
        n_channels = sum(map(len, channels))
        facts.append(("smoothing", f"{n_channels:,} channels in {len(smoothing):,} operators"))
    return facts


def _product_facts(bundle: Bundle) -> list[tuple[str, str]]:
    """Where the same graph would compute something else: only in another runtime."""
    from gpt_edge.bundle.integer_products import has_integer_products, has_signed_weights

    path = bundle.model_path
    if not (has_integer_products(path) and has_signed_weights(path)):
        return []
    other = "elsewhere, x86 CPUs without VNNI need session.x64quantprecision=1"
    return [("int8 products", f"exact on every CPU in gpt-edge; {other}")]


def _vocabulary(bundle: Bundle) -> str:
    tokenizer = bundle.manifest.tokenizer
    rows = f"{bundle.config.vocab_size:,} rows"
    if tokenizer is None:
        return rows if bundle.is_optimum_export else f"{rows}, no tokenizer"
    return console.visible(
        f"{rows}, tokenizer {tokenizer.get('kind')} with {tokenizer.get('vocab_size')} tokens"
    )


def _task(task: TaskSpec) -> str:
    if task.score_range is not None:
        return f"{task.kind}, scores from {task.score_range[0]:g} to {task.score_range[1]:g}"
    if task.dimensions is not None:
        return f"{task.kind}, vectors of {task.dimensions} numbers"
    if not task.labels:
        return f"{task.kind}, each question has its own answers"
    shown = ", ".join(task.labels[:8]) + (", ..." if len(task.labels) > 8 else "")
    kind = f"{task.kind} ({task.problem})" if task.problem else task.kind
    plural = "s" * (len(task.labels) != 1)
    return console.visible(f"{kind}, {len(task.labels)} label{plural}: {shown}")


def _value(value: object) -> str:
    return console.visible(f"{value:.4g}" if isinstance(value, float) else str(value))


def _memory_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("  weights", size(figures["weights"])),
        (
            f"  keys and values, {size(figures['cache_per_token'])} for each of "
            f"{figures['n_ctx']:,} tokens",
            size(figures["cache"]),
        ),
        ("  logits", size(figures["logits"])),
        ("  sum, with a full context", size(figures["sum"])),
        ("  predicted: peak, model loaded and run once", size(figures["predicted_peak"])),
        ("  predicted: peak, with a full context", size(figures["predicted_full"])),
    ]
    if figures["measured_peak"] is not None:
        rows += [
            ("  measured: Python and onnxruntime", size(figures["measured_base"])),
            ("  measured: peak, model loaded and run once", size(figures["measured_peak"])),
        ]
    return rows
