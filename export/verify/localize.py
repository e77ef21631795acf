"""Where does a bundle diverge from its checkpoint? Weights and operators, one by one, in the order
of the computation.

Three questions about each operator: is it there, are its weights those of the checkpoint, and does
it compute what the reference's does from the input that the graph gives it? The first no is the
operator to look at. Logits alone cannot tell: a wrong row of an embedding, or one wrong scale among
thousands, hides in the noise of int8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
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

N_PROMPT = 40  # tokens of the first call
N_MORE = 12  # tokens of the second, which has a past
N_ALONE = 8  # tokens that are run again by themselves
MAX_ALONE = 0.3  # of the noise of quantization: single levels that flip
FAR = 12  # tokens beyond the widest window
EPSILON_TOLERANCE = 1e-3  # relative: attributes are float32
SEED = 20190214
MAX_SHARE = 1e9  # JSON knows no infinity

Mapped = dict[ReferenceOperator, MappedOperator]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an operator."""

    operator: ReferenceOperator
    text: str

    def __str__(self) -> str:
        return f"{self.operator}: {self.text}"


@dataclass(slots=True)
class Localization:
    """Faults in the order of the computation, at most one of each kind for an operator.

    operators, weights: by the operator's name, how many there are ("places"), the largest
    difference as a fraction of what quantization explains ("share"), and which has it ("worst").
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
    """Compare every weight and every operator of a bundle with the reference. Changes nothing.

    Raises BundleError for a bundle that gpt-edge did not write, whose operators may be any, and for
    a graph that the gate refuses.
    """
    if bundle.is_optimum_export:
        raise BundleError(
            f"{bundle.path} was not written by gpt-edge: its operators cannot be told apart"
        )
    with Smoothing.of_manifest(bundle.manifest).applied(model) as smoothed:
        return _localize(bundle, smoothed, progress)


def _localize(bundle: Bundle, model: GPT, progress: Callable[[str], None]) -> Localization:
    config = bundle.config
    result = Localization()
    checked_model(bundle)
    onnx_model = ir.load(bundle.model_path)
    mapped, mismatch = map_operators(onnx_model.graph, config)
    if mismatch is not None:
        result.faults.append(Fault(mismatch.operator, mismatch.text))
    progress("comparing the weights with the checkpoint")
    weights = _check_weights(bundle, model, mapped, result, progress)
    progress("comparing the operators with torch")
    for operator in mapped.values():
        if text := _epsilon_fault(operator, config):
            result.faults.append(Fault(operator.operator, text))
    try:
        exposed = ExposedGraph(
            onnx_model, bundle.path, config, bundle.graph, mapped, _n_tokens(config)
        )
        is_tensor_wide = SCHEMES[bundle.scheme].activations == "tensor"
        checker = OperatorChecker(model, weights, tensor_wide=is_tensor_wide)
        _check_operators(exposed, checker, config, mapped, result)
    except BundleError as error:
        last = mismatch.operator if mismatch is not None else reference_operators(config)[-1]
        result.faults.append(Fault(last, error.message))
    for figures in (result.weights, result.operators):
        for name, values in figures.items():
            values["places"] = sum(operator.name == name for operator in mapped)
    order = {operator: index for index, operator in enumerate(reference_operators(config))}
    result.faults.sort(key=lambda fault: order[fault.operator])
    return result


def _n_tokens(config: GPTConfig) -> int:
    window = max(config.layer_window(layer) or 0 for layer in range(config.n_layer))
    return min(config.n_ctx, max(N_PROMPT, window + FAR) + N_MORE)


def _check_weights(
    bundle: Bundle,
    model: GPT,
    mapped: Mapped,
    result: Localization,
    progress: Callable[[str], None],
) -> dict[ReferenceOperator, WeightCheck]:
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checks = {}
    for reference, operator in mapped.items():
        progress(f"{reference}".replace(" ", "."))
        rounding = _rounding(bundle, reference)
        check = check_weights(operator, bundle.graph, bundle.config, expected, rounding)
        checks[reference] = check
        result.faults += [Fault(reference, text) for text in check.faults]
        if check.weight is not None or check.share:
            _record(result.weights, reference, check.share, not check.faults)
    return checks


def _rounding(bundle: Bundle, operator: ReferenceOperator) -> str:
    """How `quantize` rounded the weight of an operator, as the manifest says; to the nearest level
    where it says nothing.
    """
    quantization = bundle.manifest.provenance.get("quantization")
    labels = quantization.get("tensors") if isinstance(quantization, dict) else None
    names = parameters_of(operator, bundle.config)
    label = labels.get(names[0], "") if names and isinstance(labels, dict) else ""
    return next((name for name in LOOSE if name in str(label).split()), "nearest")


def _check_operators(
    exposed: ExposedGraph,
    checker: OperatorChecker,
    config: GPTConfig,
    mapped: Mapped,
    result: Localization,
) -> None:
    """Run a prompt, then more tokens with the prompt in the cache, and check every operator."""
    n_tokens = _n_tokens(config)
    n_prompt = max(1, n_tokens - N_MORE)
    ids = np.random.default_rng(SEED).integers(0, config.vocab_size, n_tokens)
    faulty = {fault.operator for fault in result.faults}
    prompt_results: dict[ReferenceOperator, tuple[FloatArray, float]] = {}
    for new in (ids[:n_prompt], ids[n_prompt:]):
        if not new.size:
            continue
        n_past = exposed.n_past
        trace = exposed.run(new)
        for operator in mapped:
            check = checker.check(operator, trace, new, n_past)
            text = check.fault
            if not text and operator.name == "attn.attention" and operator.layer is not None:
                text = _cache_fault(exposed, checker, operator.layer)
            _record(result.operators, operator, check.share, not text)
            if text and operator not in faulty:
                faulty.add(operator)
                if n_past:
                    text = f"{text} (with {n_past} tokens in the cache)"
                result.faults.append(Fault(operator, text))
            if not n_past:
                prompt_results[operator] = trace[operator], check.noise
    if not checker.tensor_wide:
        fault = _neighbour_fault(exposed, ids[: min(N_ALONE, n_prompt)], prompt_results, faulty)
        result.faults += [fault] if fault is not None else []


def _neighbour_fault(
    exposed: ExposedGraph,
    ids: IntArray,
    prompt_results: dict[ReferenceOperator, tuple[FloatArray, float]],
    faulty: set[ReferenceOperator],
) -> Fault | None:
    """Run the first tokens by themselves: a row of a quantized product must not depend on the rows
    beside it. Return the first operator where it does.

    prompt_results: of each operator its result for the whole prompt, and its noise of quantization.
    """
    exposed.restart()
    for operator, rows in exposed.run(ids).items():
        expected, noise = prompt_results[operator]
        if not noise or operator in faulty:
            continue
        difference = float(np.sqrt(np.mean(np.square(rows - expected[: ids.size]))))
        if difference > MAX_ALONE * noise:
            text = f"a row depends on its neighbours: read alone it differs by {difference:.2g}"
            return Fault(operator, text)
    return None


def _cache_fault(exposed: ExposedGraph, checker: OperatorChecker, layer: int) -> str:
    """Keys and values are stored as they were computed: whole numbers of rows, nothing rounded."""
    cached = exposed.past[2 * layer : 2 * layer + 2]
    for side, expected, padded in zip(
        ("keys", "values"), checker.cache(layer), cached, strict=True
    ):
        actual = padded[0, :, : expected.shape[1], : expected.shape[2]]
        is_same = actual.shape == expected.shape
        if not is_same or not np.allclose(actual, expected, rtol=1e-5, atol=1e-6):
            return f"the {side} in the cache are not those that were computed"
    return ""


def _epsilon_fault(operator: MappedOperator, config: GPTConfig) -> str:
    """What is wrong with a norm's epsilon: too small to show on most inputs."""
    if not operator.operator.name.startswith("ln_"):
        return ""
    attribute = operator.node.attributes.get("epsilon")
    default = 1e-12 if operator.node.op_type == "SkipLayerNormalization" else 1e-5
    actual = attribute.as_float() if attribute is not None else default
    expected = config.layer_norm_epsilon
    if abs(actual - expected) <= EPSILON_TOLERANCE * expected:
        return ""
    return f"its epsilon is {actual:.3g}, the reference's is {expected:.3g}"


def _record(
    figures: dict[str, dict[str, Any]], operator: ReferenceOperator, share: float, ok: bool
) -> None:
    """Add an operator to the figures of its name. share: infinite where the two cannot be compared
    at all.
    """
    values = figures.setdefault(
        operator.name, {"places": 0, "share": 0.0, "worst": str(operator), "ok": True}
    )
    share = min(share, MAX_SHARE)
    if share > values["share"]:
        values["share"] = float(f"{share:.3g}")
        values["worst"] = str(operator)
    values["ok"] = values["ok"] and ok
