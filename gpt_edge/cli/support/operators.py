"""Which of a bundle's operators are gpt-edge's own where the library is in use, and what stays with
onnxruntime and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt_edge.errors import BundleError

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle


def operator_figures(bundle: Bundle) -> dict[str, Any]:
    """custom: how many of each; outside: operator, count and reason of what the library has one for
    and leaves; same_bits: whether logits have the same bits on every CPU; error: why the graph
    cannot be read, or None. Reads the graph, and no weights.
    """
    from gpt_edge.bundle.gate.check import checked_model
    from gpt_edge.native.rewrite import rewrite
    from gpt_edge.onnx_contract import cache_head_size
    from gpt_edge.schemes import SCHEMES

    told: dict[str, Any] = {"custom": {}, "outside": [], "same_bits": False, "error": None}
    if bundle.graph != "edge":
        told["error"] = "custom operators are for edge graphs"
        return told
    try:
        model = checked_model(bundle)
    except BundleError as error:
        told["error"] = str(error)
        return told
    head_size = cache_head_size(bundle.config, bundle.graph)
    rewritten = None
    if isinstance(model, bytes):
        is_rounded = not SCHEMES[bundle.scheme].is_float
        rewritten = rewrite(model, 1, head_size, half_cache=is_rounded)
    if rewritten is None:
        told["error"] = "no operator of the graph has a custom one"
        return told
    told["custom"] = rewritten.counts
    told["outside"] = [
        {"operator": operator, "count": count, "reason": reason}
        for (operator, reason), count in rewritten.outside.items()
    ]
    told["same_bits"] = rewritten.is_row_exact
    return told


def operator_facts(bundle: Bundle) -> list[tuple[str, str]]:
    """The figures as names and values of lines."""
    told = operator_figures(bundle)
    if told["error"] is not None:
        return [("custom operators", f"none: {told['error']}")]
    custom = ", ".join(f"{count} x {name}" for name, count in told["custom"].items())
    facts = [("custom operators", custom)]
    facts += [
        ("onnxruntime's", f"{one['count']} x {one['operator']}: {one['reason']}")
        for one in told["outside"]
    ]
    if told["same_bits"]:
        facts.append(("same bits", "with custom operators, on every CPU and thread count"))
    return facts
