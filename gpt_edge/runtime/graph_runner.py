"""GraphRunner: a bundle's graph, opened in onnxruntime, and what every run of it needs; below
Session and Encoder.

Memory is bound, not passed: a run reads and writes numpy arrays where they are. Knows nothing of
what the inputs mean.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from gpt_edge import onnx_contract
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import GPTEdgeError
from gpt_edge.native.library import Native
from gpt_edge.runtime.open_graph import open_graph
from gpt_edge.runtime.ort_session import ORT_ERRORS, cause_of
from gpt_edge.runtime.tuning import DEFAULT, Tuning
from gpt_edge.system.fork_safety import check_process, keep_in_child
from gpt_edge.system.threads import check_threads

Arrays = dict[str, npt.NDArray[Any]]


class GraphRunner:
    """An opened graph. Thread-safe: a run keeps nothing. `threads`: how many it uses. `input_types`
    and `output_types`: onnxruntime's name of each type, by the name of the input or output.
    `is_row_exact`: see `OpenedGraph`.

    threads: None takes those of `tuning`. native: see `find_library`. profile: onnxruntime times
    every operator, into a file whose path begins with this one.
    Raises ValueError for threads outside 1 to 256, else as `open_graph`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        native: Native = None,
        profile: Path | None = None,
        tuning: Tuning = DEFAULT,
    ) -> None:
        if threads is not None:
            check_threads(threads)
        self.threads = threads or tuning.threads()
        self._pid = os.getpid()
        opened = open_graph(bundle, self.threads, native=native, profile=profile, tuning=tuning)
        self._session: Any = opened.session
        self.is_row_exact = opened.is_row_exact
        keep_in_child(self._session)
        self.input_types = {value.name: value.type for value in self._session.get_inputs()}
        self.output_types = {value.name: value.type for value in self._session.get_outputs()}

    @property
    def cache_dtype(self) -> str:
        """The type of the graph's keys and values; float32 where it has none."""
        key_type = self.input_types.get(onnx_contract.past_key(0))
        return "float16" if key_type == "tensor(float16)" else "float32"

    def new_binding(self) -> Any:
        """An IOBinding without inputs or outputs; see `bind_memory`."""
        return self._opened().io_binding()

    def run(self, binding: Any) -> None:
        """Run the graph once. Raises GPTEdgeError for what onnxruntime refuses, and in a fork of
        the process that opened the graph: its threads are not there; ValueError after `close`.
        """
        check_process(self._pid)
        session = self._opened()
        try:
            session.run_with_iobinding(binding)
        except ORT_ERRORS as error:
            raise GPTEdgeError(
                f"onnxruntime failed while running the model: {cause_of(error)}"
            ) from error

    def end_profile(self) -> Path:
        """Stop timing the operators and return the profiler's file; once, after `profile`."""
        return Path(self._opened().end_profiling())

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._session is None

    def close(self) -> None:
        """Let go of onnxruntime's session. A run in another thread ends first."""
        self._session = None

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            raise ValueError("the model is closed: load it again")
        return session


def bind_memory(binding: Any, inputs: Arrays, outputs: Arrays) -> None:
    """Bind numpy arrays to graph inputs and outputs without a copy; the binding keeps the arrays
    alive.
    """
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
