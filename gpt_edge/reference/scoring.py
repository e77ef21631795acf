"""TorchScorer: the reference as a `gpt_edge.evaluate` Scorer, in float32."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.errors import ContextLengthError
from gpt_edge.evaluate.scorer import blocks
from gpt_edge.reference.model import GPT
from gpt_edge.system.threads import check_threads, default_threads


class TorchScorer:
    """A model in torch, in evaluation mode, with its own number of threads (torch's is global for
    the process).

    threads: None takes `default_threads()`. Raises ValueError for threads outside 1 to 256.
    """

    def __init__(self, model: GPT, name: str, *, threads: int | None = None) -> None:
        if threads is not None:
            check_threads(threads)
        self.name = name
        self.config = model.config
        self.threads = threads or default_threads()
        self._model = model.eval()

    def rows(self, ids: IntArray, first: int) -> Iterator[FloatArray]:
        """Logits float32 [r, V] of rows first .. T - 1 of ids [T]; see Scorer. Raises
        ContextLengthError.
        """
        if ids.size > self.config.n_ctx:
            raise ContextLengthError(
                f"{ids.size} tokens do not fit into the context of {self.config.n_ctx}"
            )
        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            hidden = self._model.hidden(torch.from_numpy(ids)[None])[0][0]
        for start, stop in blocks(ids.size, first):
            torch.set_num_threads(self.threads)  # another scorer may have run since
            # not around the yield: the mode would apply to the caller, and outlive this call
            with torch.inference_mode():
                logits: FloatArray = self._model.lm_head(hidden[start:stop]).numpy()
            yield logits
