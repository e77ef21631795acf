"""Where does a bundle part from its checkpoint? Weights and operators, operator by operator, in the order
of the computation.

Three questions at each operator: is this operator there, are its weights those of the checkpoint, and
does it do what the reference's does with the input that the graph gives it? The first no is the
operator to look at. Logits alone cannot tell: a wrong row of an embedding, or one wrong scale among
thousands, hides in the noise of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.export.verify.activations import ExposedGraph
from gpt_edge.export.verify.check_operators import OperatorChecker
from gpt_edge.export.verify.check_weights import LOOSE, WeightCheck, check_weights
from gpt_edge.export.verify.graph_map import MappedOperator, map_operators
from gpt_edge.export.weights.reference_operators import (
    ReferenceOperator,
    parameters_of,
    reference_operators,
)
from gpt_edge.export.weights.smoothing import Smoothing
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import SCHEMES

N_PROMPT, N_MORE = 40, 12  # tokens of the first call and of the second, which finds a past
N_ALONE, MAX_ALONE = (
    8,
    0.3,
)  # tokens that are read again by themselves; of the noise of rounding: single levels that flip
FAR = 12  # tokens beyond the widest window
EPSILON_TOLERANCE = 1e-3  # relative: attributes are float32
SEED = 20190214
MAX_SHARE = 1e9  # JSON knows no infinity


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a operator."""

    operator: ReferenceOperator
    text: str

    def __str__(self) -> str:
        return f"{self.operator}: {self.text}"


@dataclass(slots=True)
class Localization:
    """What was found. faults: in the order of the computation, at most one of each kind for a
    operator.

    operators, weights: by operator, the number of places, the largest share of what rounding
    explains, and where it is.
    """

    faults: list[Fault] = field(default_factory=list)
    operators: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def first(self) -> Fault | None:
        """Where to look."""
        return self.faults[0] if self.faults else None


def localize(
    bundle: Bundle, model: GPT, *, progress: Callable[[str], None] = lambda stage: None
) -> Localization:
    """Hold every weight and every operator of a bundle against the reference. Changes nothing.

    Raises BundleError for a bundle that gpt-edge did not write: its operators may be any.
    """
    if bundle.is_optimum_export:
        raise BundleError(
            f"{bundle.path} was not written by gpt-edge: its operators cannot be told apart"
        )
    with Smoothing.of_manifest(bundle.manifest).applied(model) as smoothed:
        return _localize(bundle, smoothed, progress)


def _localize(bundle: Bundle, model: GPT, progress: Callable[[str], None]) -> Localization:
    config, found = bundle.config, Localization()
    graph_model = ir.load(bundle.model_path)
    mapped_operators, mismatch = map_operators(graph_model.graph, config)
    faults = [Fault(mismatch.operator, mismatch.text)] if mismatch else []
    progress("comparing the weights with the checkpoint")
    weights = _check_weights(bundle, model, mapped_operators, found, faults, progress)
    progress("comparing the operators with torch")
    faults += [
        Fault(mapped.operator, text)
        for mapped in mapped_operators.values()
        if (text := _epsilon(mapped, config))
    ]
    try:
        exposed = ExposedGraph(
            graph_model, bundle.path, config, bundle.graph, mapped_operators, _n_tokens(config)
        )
        is_tensor_wide = SCHEMES[bundle.scheme].activations == "tensor"
        _check_operators(exposed, model, mapped_operators, weights, found, faults, is_tensor_wide)
    except BundleError as error:
        faults.append(
            Fault(mismatch.operator if mismatch else reference_operators(config)[-1], error.message)
        )
    for figures in (found.weights, found.operators):
        for name, values in figures.items():
            values["places"] = sum(mapped.name == name for mapped in mapped_operators)
    order = {operator: index for index, operator in enumerate(reference_operators(config))}
    found.faults = sorted(faults, key=lambda fault: order[fault.operator])
    return found


def _n_tokens(config: GPTConfig) -> int:
    window = max(config.layer_window(layer) or 0 for layer in range(config.n_layer))
    return min(config.n_ctx, max(N_PROMPT, window + FAR) + N_MORE)


def _check_weights(
    bundle: Bundle,
    model: GPT,
    mapped_operators: dict[ReferenceOperator, MappedOperator],
    found: Localization,
    faults: list[Fault],
    progress: Callable[[str], None],
) -> dict[ReferenceOperator, WeightCheck]:
    wanted = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checks = {}
    for operator, mapped in mapped_operators.items():
        progress(f"{operator}".replace(" ", "."))
        rounding = _rounding(bundle, operator)
        check = checks[operator] = check_weights(
            mapped, bundle.graph, bundle.config, wanted, rounding
        )
        faults += [Fault(operator, text) for text in check.faults]
        if check.weight is not None or check.share:
            _record(found.weights, operator, check.share, not check.faults)
    return checks


def _rounding(bundle: Bundle, operator: ReferenceOperator) -> str:
    """How `quantize` rounded the weight of a operator, as the manifest says; to the nearest level
    where it says nothing.
    """
    described = bundle.manifest.provenance.get("quantization")
    tensors = described.get("tensors") if isinstance(described, dict) else None
    names = parameters_of(operator, bundle.config)
    label = tensors.get(names[0], "") if names and isinstance(tensors, dict) else ""
    return next((name for name in LOOSE if name in str(label).split()), "nearest")


def _check_operators(
    exposed: ExposedGraph,
    model: GPT,
    mapped_operators: dict[ReferenceOperator, MappedOperator],
    weights: dict[ReferenceOperator, WeightCheck],
    found: Localization,
    faults: list[Fault],
    tensor_wide: bool,
) -> None:
    config, checker = model.config, OperatorChecker(model, weights, tensor_wide=tensor_wide)
    n_tokens = _n_tokens(config)
    ids = np.random.default_rng(SEED).integers(0, config.vocab_size, n_tokens)
    cut = max(1, n_tokens - N_MORE)
    known = {fault.operator for fault in faults}
    whole: dict[ReferenceOperator, tuple[FloatArray, float]] = {}
    for part in (ids[:cut], ids[cut:]):
        if not part.size:
            continue
        n_past = exposed.n_past
        trace = exposed.run(part)
        for operator in mapped_operators:
            check = checker.check(operator, trace, part, n_past)
            text = check.fault
            if not text and operator.name == "attn.attention" and operator.layer is not None:
                text = _check_cache(exposed, checker, operator.layer)
            _record(found.operators, operator, check.share, not text)
            if text and operator not in known:
                known.add(operator)
                faults.append(
                    Fault(
                        operator,
                        text if not n_past else f"{text} (with {n_past} tokens in the cache)",
                    )
                )
            if not n_past:
                whole[operator] = trace[operator], check.noise
    if not tensor_wide:
        faults += _check_alone(exposed, ids[: min(N_ALONE, cut)], whole, known)


def _check_alone(
    exposed: ExposedGraph,
    ids: IntArray,
    whole: dict[ReferenceOperator, tuple[FloatArray, float]],
    known: set[ReferenceOperator],
) -> list[Fault]:
    """Read the first tokens by themselves: a row of a rounded product must not depend on those that
    were read with it.

    whole: what each operator left behind with all tokens, and the noise of its rounding. The first
    such operator is returned.
    """
    exposed.restart()
    for operator, rows in exposed.run(ids).items():
        wanted, noise = whole[operator]
        if noise and operator not in known:
            gap = float(np.sqrt(np.mean(np.square(rows - wanted[: ids.size]))))
            if gap > MAX_ALONE * noise:
                return [
                    Fault(
                        operator,
                        f"a row depends on its neighbours: read alone it differs by {gap:.2g}",
                    )
                ]
    return []


def _check_cache(exposed: ExposedGraph, checker: OperatorChecker, layer: int) -> str:
    """Keys and values are stored as they were computed: whole numbers of rows, nothing rounded."""
    for side, wanted, cached in zip(
        ("keys", "values"),
        checker.cache(layer),
        exposed.past[2 * layer : 2 * layer + 2],
        strict=True,
    ):
        held = cached[0, :, : wanted.shape[1], : wanted.shape[2]]
        if held.shape != wanted.shape or not np.allclose(held, wanted, rtol=1e-5, atol=1e-6):
            return f"the {side} in the cache are not those that were computed"
    return ""


def _epsilon(mapped: MappedOperator, config: GPTConfig) -> str:
    """What is wrong with a norm's epsilon: too small to show on most inputs."""
    if not mapped.operator.name.startswith("ln_"):
        return ""
    attribute = mapped.node.attributes.get("epsilon")
    default = 1e-12 if mapped.node.op_type == "SkipLayerNormalization" else 1e-5
    found, wanted = (
        attribute.as_float() if attribute is not None else default,
        config.layer_norm_epsilon,
    )
    if abs(found - wanted) <= EPSILON_TOLERANCE * wanted:
        return ""
    return f"its epsilon is {found:.3g}, the reference's is {wanted:.3g}"


def _record(
    figures: dict[str, dict[str, Any]], operator: ReferenceOperator, share: float, ok: bool
) -> None:
    """Take a operator into its operator's figures. share: infinite where the two cannot be compared at
    all.
    """
    known = figures.setdefault(
        operator.name, {"places": 0, "share": 0.0, "worst": str(operator), "ok": True}
    )
    share = min(share, MAX_SHARE)
    if share > known["share"]:
        known["share"], known["worst"] = float(f"{share:.3g}"), str(operator)
    known["ok"] = known["ok"] and ok
