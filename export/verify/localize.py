"""Where does a bundle diverge from its checkpoint? Weights and operators, one by one, in the order
of the computation.

Three questions about each operator: is it there as the config says, are its weights those of the
checkpoint, and does it compute what the reference's does from the input that the graph gives it?
The first no is the operator to look at. Logits alone cannot tell: a wrong row of an embedding, or
one wrong scale among thousands, hides in the noise of int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.errors import BundleError
from gpt_edge.export.verify.activations import ExposedGraph, embedding_rows
from gpt_edge.export.verify.calls import calls
from gpt_edge.export.verify.check_nodes import node_faults
from gpt_edge.export.verify.check_operators import OperatorChecker
from gpt_edge.export.verify.check_weights import LOOSE, WeightCheck, check_weights
from gpt_edge.export.verify.graph_map import map_operators
from gpt_edge.export.weights.reference_operators import (
    ReferenceOperator,
    parameters_of,
    reference_operators,
)
from gpt_edge.export.weights.smoothing import Smoothing
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import SCHEMES

N_ALONE = 8  # tokens that are run again by themselves
N_TOGETHER = 16  # tokens of two sequences that are run at once
MAX_IN_BATCH = 1e-4  # of a result's size: float32 sums in another order
MAX_ALONE = 0.3  # of the noise of quantization: single levels that flip
SEED = 20190214
MAX_SHARE = 1e9  # JSON knows no infinity

# of each operator of a call its result, and its noise of quantization
PromptResults = dict[ReferenceOperator, tuple[FloatArray, float]]


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
    bundle: Bundle,
    model: GPT | TaskModel,
    *,
    full: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> Localization:
    """Compare every weight and every operator of a bundle with the reference. Changes nothing.

    full: at every position of the context, see `calls`. Raises BundleError for a bundle that
    gpt-edge did not write, whose operators may be any, and for a graph that the gate refuses.
    """
    if bundle.is_optimum_export:
        raise BundleError(
            f"{bundle.path} was not written by gpt-edge: its operators cannot be told apart"
        )
    gpt = model.gpt if isinstance(model, TaskModel) else model
    with Smoothing.of_manifest(bundle.manifest).applied(gpt) as smoothed:
        state = model.tensors() if isinstance(model, TaskModel) else smoothed.state_dict()
        return _Localizer(bundle, smoothed, state, progress).run(full=full)


class _Localizer:
    """One comparison, and what it has found so far.

    state: every parameter by its name, smoothed as the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: GPT,
        state: Mapping[str, Tensor],
        progress: Callable[[str], None],
    ) -> None:
        self.bundle = bundle
        self.config = bundle.config
        self.model = model
        self.state = state
        self.progress = progress
        self.result = Localization()
        checked_model(bundle)
        self.onnx_model = ir.load(bundle.model_path)
        self.mapped, self.mismatch = map_operators(self.onnx_model.graph, self.config)

    def run(self, *, full: bool) -> Localization:
        """Compare everything."""
        result = self.result
        if self.mismatch is not None:
            result.faults.append(Fault(self.mismatch.operator, self.mismatch.text))
        if text := self._output_fault():
            result.faults.append(Fault(self._final, text))
        for operator in self.mapped.values():
            texts = node_faults(operator, self.bundle.graph, self.config)
            result.faults += [Fault(operator.operator, text) for text in texts]
        self.progress("comparing the weights with the checkpoint")
        weights = self._check_weights()
        self.progress("comparing the operators with torch")
        is_tensor_wide = SCHEMES[self.bundle.scheme].activations == "tensor"
        checker = OperatorChecker(
            self.model, self.state, self.config, weights, tensor_wide=is_tensor_wide
        )
        try:
            self._check_tables(checker)
            self._check_operators(checker, full=full)
        except BundleError as error:
            last = reference_operators(self.config)[-1]
            where = self.mismatch.operator if self.mismatch is not None else last
            result.faults.append(Fault(where, error.message))
        for figures in (result.weights, result.operators):
            for name, values in figures.items():
                values["places"] = sum(operator.name == name for operator in self.mapped)
        operators = reference_operators(self.config)
        order = {operator: index for index, operator in enumerate(operators)}
        result.faults.sort(key=lambda fault: order[fault.operator])
        return result

    @property
    def _final(self) -> ReferenceOperator:
        """The operator whose result the head reads."""
        if self.config.norm == "pre":
            return ReferenceOperator(None, "ln_f")
        return ReferenceOperator(self.config.n_layer - 1, "ln_2")

    def _output_fault(self) -> str:
        """What is wrong with the output of hidden states, which older bundles do not have."""
        names = [value.name for value in self.onnx_model.graph.outputs]
        mapped = self.mapped.get(self._final)
        if mapped is None or onnx_contract.HIDDEN_STATES not in names:
            return ""
        if mapped.values[0].name == onnx_contract.HIDDEN_STATES:
            return ""
        return f"the output {onnx_contract.HIDDEN_STATES} is not its result"

    def _check_weights(self) -> dict[ReferenceOperator, WeightCheck]:
        expected = {name: tensor.numpy() for name, tensor in self.state.items()}
        checks = {}
        for reference, operator in self.mapped.items():
            self.progress(f"{reference}".replace(" ", "."))
            rounding = _rounding(self.bundle, reference)
            check = check_weights(operator, self.bundle.graph, self.config, expected, rounding)
            checks[reference] = check
            self.result.faults += [Fault(reference, text) for text in check.faults]
            if check.weight is not None or check.share:
                _record(self.result.weights, reference, check.share, not check.faults)
        return checks

    def _check_tables(self, checker: OperatorChecker) -> None:
        """Embed every token and every position by the graph's own nodes."""
        operator = ReferenceOperator(None, "embedding")
        mapped = self.mapped.get(operator)
        if mapped is None or any(fault.operator == operator for fault in self.result.faults):
            return
        n_ctx, vocab_size = self.config.n_ctx, self.config.vocab_size
        is_task = self.config.n_label is not None
        n_rows = max(n_ctx, vocab_size)
        if is_task:  # whole contexts
            n_rows = -(-n_rows // n_ctx) * n_ctx
        ids = np.arange(n_rows) % vocab_size
        positions = np.arange(n_rows) % n_ctx
        parts = [slice(start, start + n_ctx) for start in range(0, n_rows, n_ctx)]
        for part in parts if is_task else [slice(None)]:
            counted = None if is_task else positions
            rows = embedding_rows(self.onnx_model, self.bundle.path, mapped, ids[part], counted)
            if text := checker.check_tables(operator, rows, ids[part], positions[part]):
                self.result.faults.append(Fault(operator, text))
                return

    def _check_operators(self, checker: OperatorChecker, *, full: bool) -> None:
        """Run the calls, and check every operator of each."""
        exposed = ExposedGraph(
            self.onnx_model,
            self.bundle.path,
            self.config,
            self.bundle.graph,
            self.mapped,
            self.config.n_ctx,
            self.bundle.task,
        )
        rng = np.random.default_rng(SEED)
        faulty = {fault.operator for fault in self.result.faults}
        first: tuple[IntArray, PromptResults] | None = None
        for call in calls(self.config, full=full):
            ids = rng.integers(0, self.config.vocab_size, call.n_new)
            if call.n_past == 0:
                exposed.restart()
            elif call.n_past is not None:
                exposed.draw_past(call.n_past, rng)
            results = self._check_call(exposed, checker, ids, faulty)
            if first is None:
                first = ids, results
        if first is not None and not checker.tensor_wide:
            ids, results = first
            fault = _neighbour_fault(exposed, ids[: min(N_ALONE, ids.size)], results, faulty)
            self.result.faults += [fault] if fault is not None else []
            fault = _batch_fault(exposed, ids[: min(N_TOGETHER, ids.size)], results, faulty)
            self.result.faults += [fault] if fault is not None else []
            if self.bundle.task is None:
                self._check_beside_longer(exposed, checker, ids, faulty)

    def _check_beside_longer(
        self,
        exposed: ExposedGraph,
        checker: OperatorChecker,
        ids: IntArray,
        faulty: set[ReferenceOperator],
    ) -> None:
        """Run one token behind a few, beside a sequence that has more in its cache. A portable
        graph counts a window in places of the cache, so such a layer is left out; `PortableRunner`
        runs the sequences of such a model one by one.
        """
        n_past = min(N_ALONE, ids.size, (self.config.n_ctx - 1) // 2)
        if n_past < 1:
            return
        is_portable = self.bundle.graph == "portable"
        exposed.restart()
        exposed.run(ids[:n_past])
        checker.seed(exposed.past, n_past)
        trace = exposed.run_beside_longer(ids[:1])
        for operator in self.mapped:
            is_attention = operator.name == "attn.attention" and operator.layer is not None
            is_banded = is_attention and self.config.layer_window(operator.layer or 0) is not None
            if operator not in trace or (is_banded and is_portable):
                continue
            text = checker.check(operator, trace, ids[:1], n_past).fault
            if text and operator not in faulty:
                faulty.add(operator)
                text = f"{text} (beside a sequence that is longer)"
                self.result.faults.append(Fault(operator, text))

    def _check_call(
        self,
        exposed: ExposedGraph,
        checker: OperatorChecker,
        ids: IntArray,
        faulty: set[ReferenceOperator],
    ) -> PromptResults:
        """Run new tokens, and check every operator that is not faulty yet."""
        n_past = exposed.n_past
        checker.seed(exposed.past, n_past)
        trace = exposed.run(ids)
        results: PromptResults = {}
        for operator in self.mapped:
            if operator not in trace:
                continue
            check = checker.check(operator, trace, ids, n_past)
            text = check.fault
            is_attention = operator.name == "attn.attention" and operator.layer is not None
            if not text and is_attention and exposed.past:
                text = _cache_fault(exposed, checker, operator.layer or 0)
            _record(self.result.operators, operator, check.share, not text)
            if text and operator not in faulty:
                faulty.add(operator)
                if n_past:
                    text = f"{text} (with {n_past} tokens in the cache)"
                self.result.faults.append(Fault(operator, text))
            results[operator] = trace[operator], check.noise
        return results


def _rounding(bundle: Bundle, operator: ReferenceOperator) -> str:
    """How `quantize` rounded the weight of an operator, as the manifest says; to the nearest level
    where it says nothing.
    """
    quantization = bundle.manifest.provenance.get("quantization")
    labels = quantization.get("tensors") if isinstance(quantization, dict) else None
    names = parameters_of(operator, bundle.config)
    label = labels.get(names[0], "") if names and isinstance(labels, dict) else ""
    return next((name for name in LOOSE if name in str(label).split()), "nearest")


def _neighbour_fault(
    exposed: ExposedGraph,
    ids: IntArray,
    prompt_results: PromptResults,
    faulty: set[ReferenceOperator],
) -> Fault | None:
    """Run the first tokens by themselves: a row of a quantized product must not depend on the rows
    beside it. Return the first operator where it does.

    prompt_results: of each operator its result for the whole prompt, and its noise of quantization.
    """
    exposed.restart()
    for operator, rows in exposed.run(ids).items():
        expected, noise = prompt_results.get(operator, (rows, 0.0))
        if not noise or operator in faulty or operator.name == "task_head":
            continue
        difference = float(np.sqrt(np.mean(np.square(rows - expected[: ids.size]))))
        if difference > MAX_ALONE * noise:
            text = f"a row depends on its neighbours: read alone it differs by {difference:.2g}"
            return Fault(operator, text)
    return None


def _batch_fault(
    exposed: ExposedGraph,
    ids: IntArray,
    prompt_results: PromptResults,
    faulty: set[ReferenceOperator],
) -> Fault | None:
    """Run a sequence alone, and as the second of two: return the first operator whose result
    depends on the sequence beside it.
    """
    exposed.restart()
    alone = exposed.run(ids)
    for operator, rows in exposed.run_second(ids).items():
        if operator in faulty:
            continue
        _, noise = prompt_results.get(operator, (rows, 0.0))
        expected = alone[operator][: len(rows)]
        size = float(np.sqrt(np.mean(np.square(expected))))
        difference = float(np.sqrt(np.mean(np.square(rows - expected))))
        if not difference <= MAX_ALONE * noise + MAX_IN_BATCH * size:
            text = f"a sequence depends on the one beside it: it differs by {difference:.2g}"
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
