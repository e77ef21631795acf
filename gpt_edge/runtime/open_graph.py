"""A bundle's graph in onnxruntime: its options, custom operators where they are built, and the
contract of `onnx_contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from gpt_edge import onnx_contract
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.bundle.optimum_folder import PAST_HINT
from gpt_edge.errors import BundleError, GPTEdgeError
from gpt_edge.native.library import Native, find_library
from gpt_edge.native.rewrite import Rewritten, rewrite
from gpt_edge.runtime.ort_session import ORT_ERRORS, SILENT, cause_of, start_session
from gpt_edge.runtime.tuning import DEFAULT, Tuning
from gpt_edge.schemes import SCHEMES
from gpt_edge.system.heap import return_freed_memory

# parameters; fp32 weights are used where the file is mapped, as a packed copy would not fit beside
# them
LARGE = 500_000_000
# of a graph that comes as bytes
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


USE_CACHE_BRANCH = "use_cache_branch"  # an input of Optimum's merged decoders


@dataclass(frozen=True, slots=True)
class OpenedGraph:
    """is_row_exact: whether the bits of a token depend on nothing but the tokens before it, neither
    on what is computed beside it nor on how a text is cut into calls.
    """

    session: ort.InferenceSession
    is_row_exact: bool


def open_graph(
    bundle: Bundle,
    threads: int,
    *,
    native: Native = None,
    profile: Path | None = None,
    tuning: Tuning = DEFAULT,
) -> OpenedGraph:
    """A bundle's graph, checked against the contract. native: see `find_library`.

    Raises BundleError for a graph that the gate or onnxruntime refuses, or that lacks or adds an
    input or output, and GPTEdgeError for a library of custom operators that is named but missing,
    or cannot be loaded.
    """
    options = _options(bundle, threads, profile, tuning)
    library = find_library(native) if bundle.graph == "edge" else None
    model = checked_model(bundle)
    if isinstance(model, bytes):
        options.add_session_config_entry(WEIGHTS_FOLDER, str(bundle.model_path.parent))
    try:
        rewritten = None
        if library is not None and isinstance(model, bytes):
            rewritten = _with_operators(model, bundle, threads)
        if library is not None and rewritten is not None:
            _register(library, options)
            model = rewritten.model
        session = start_session(model, options)
    except ORT_ERRORS as error:
        raise BundleError(
            f"onnxruntime {ort.__version__} cannot load {bundle.model_path}: {cause_of(error)}"
        ) from error
    _check_contract(bundle, session)
    is_row_exact = rewritten is not None and rewritten.is_row_exact
    return_freed_memory()  # what loading took and no longer needs: up to half of the weights
    return OpenedGraph(session, is_row_exact)


def _options(
    bundle: Bundle, threads: int, profile: Path | None, tuning: Tuning
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = SILENT
    # it grows in powers of two and keeps what the longest prompt took
    options.enable_cpu_mem_arena = False
    # patterns are kept per input shape, and every prompt has its own
    options.enable_mem_pattern = False
    # Threads spin within a run, where they wait for microseconds, and not between runs, where they
    # would heat an idle app.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not tuning.is_spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if cores := tuning.worker_cores(threads):
        affinities = ";".join(str(core + 1) for core in cores)  # onnxruntime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    if SCHEMES[bundle.scheme].is_float and bundle.config.n_parameters > LARGE:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _with_operators(model: bytes, bundle: Bundle, threads: int) -> Rewritten | None:
    """The graph with the library's operators in it; None where it has no nodes that they
    replace.
    """
    head_size = onnx_contract.cache_head_size(bundle.config, bundle.graph)
    is_rounded = not SCHEMES[bundle.scheme].is_float
    return rewrite(model, threads, head_size, half_cache=is_rounded)


def _register(library: Path, options: ort.SessionOptions) -> None:
    try:
        options.register_custom_ops_library(str(library))
    except ORT_ERRORS as error:
        hint = "gpt-edge native build builds it again, GPT_EDGE_NATIVE=0 goes without it"
        raise GPTEdgeError(
            f"the operators in {library} cannot be loaded: {cause_of(error)}", hint=hint
        ) from error


def _check_contract(bundle: Bundle, session: ort.InferenceSession) -> None:
    """Raise BundleError unless the graph's inputs and outputs are those of onnx_contract.py; an
    Optimum export may have fewer inputs.
    """
    sides = (
        ("input", session.get_inputs(), onnx_contract.inputs(bundle.config, bundle.graph)),
        ("output", session.get_outputs(), onnx_contract.outputs(bundle.config, bundle.graph)),
    )
    optional = (
        {onnx_contract.POSITION_IDS, onnx_contract.ATTENTION_MASK, USE_CACHE_BRANCH}
        if bundle.graph == "portable"
        else set()
    )
    has_extra_output = not bundle.config.is_encoder or bundle.is_optimum_export
    optional = {*optional, onnx_contract.HIDDEN_STATES} if has_extra_output else set()
    for side, values, specs in sides:
        actual = {value.name for value in values}
        expected = {spec.name for spec in specs}
        missing = sorted(expected - actual - optional)
        unknown = sorted(actual - expected - optional)
        if bundle.is_optimum_export and onnx_contract.past_key(0) in missing:
            raise BundleError(
                f"{bundle.model_path} was exported without past keys and values", hint=PAST_HINT
            )
        if missing or unknown:
            names = ", ".join((missing or unknown)[:3])
            what = f"lacks the {side}" if missing else f"has an unknown {side}"
            raise BundleError(
                f"{bundle.model_path} {what} {names}, which the {bundle.graph} graph does not allow"
            )
