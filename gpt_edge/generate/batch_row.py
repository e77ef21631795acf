"""BatchRow: one text of a batch while it is under way, from logits to pieces of text."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.completion import Completion, TextAssembly, TokenChoice
from gpt_edge.generate.context import UNLIMITED, window_of
from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.logprobs import PromptLogprobs, TokenLogprob
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.token_healing import heal
from gpt_edge.tokenizer.spec import Tokenizer


class BatchRow:
    """The prompt, the ids and the text of one sequence. Not thread-safe."""

    def __init__(
        self,
        prompt: Prompt,
        params: SamplingParams,
        n_ctx: int,
        tokenizer: Tokenizer,
        end_tokens: Collection[int],
        processors: Sequence[LogitsProcessor],
    ) -> None:
        prompt = heal(prompt, params, tokenizer)
        self.prompt = prompt
        self.choice = TokenChoice(
            params,
            prompt.ids,
            n_ctx if prompt.keep_first is None else UNLIMITED,
            tokenizer,
            end_tokens,
            processors,
            prompt.healed,
        )
        self._n_ctx = n_ctx
        self._window = prompt.ids  # the context's ids, of which those after `_n_shifted` are new
        self._n_shifted = 0
        self.prompt_logprobs: PromptLogprobs | None = None
        if params.prompt_logprobs is not None:
            self.prompt_logprobs = PromptLogprobs(
                prompt.ids, tokenizer.vocab_size, params.prompt_logprobs
            )
        self.cached_tokens = 0  # of the prompt, that were not read again
        self._text = TextAssembly(params, tokenizer, prompt.healed)
        self._started = 0.0
        self._chosen = 0.0
        self._ended = 0.0

    @property
    def last_id(self) -> int:
        """The id to read next."""
        return self.choice.ids[-1]

    @property
    def ids(self) -> list[int]:
        """What stands in the context: the prompt or the window, and the ids after it."""
        return [*self._window, *self.choice.ids[self._n_shifted :]]

    def shift(self) -> list[int]:
        """Make a window of a full context; return its ids, all of which but the first `keep_first`
        are to be read again.
        """
        assert self.prompt.keep_first is not None
        self._window = window_of(self.ids, self.prompt.keep_first, self._n_ctx)
        self._n_shifted = len(self.choice.ids)
        return self._window

    @property
    def is_ended(self) -> bool:
        """Whether it has a finish_reason."""
        return self.choice.finish_reason is not None

    def start(self) -> None:
        """Its prompt is being read from now on."""
        self._started = self._chosen = self._ended = time.perf_counter()

    def take(self, logits: FloatArray, drawn: int | Exception | None = None) -> str:
        """Choose the next token of logits [V] and return the text that is certain now, often "".
        The text of an ended row is complete. drawn: what `choice.draw` gave or raised for them, if
        it was called before. Raises NumericError.
        """
        is_first = not self.choice.ids
        if isinstance(drawn, Exception):
            raise drawn
        id = self.choice.take(self.choice.draw(logits) if drawn is None else drawn, logits)
        piece = "" if id is None else self._text.push(id)
        if self.is_ended:
            piece += self._text.flush()
        if self._text.is_stopped:
            self.choice.finish_reason = "stop"
        self._ended = time.perf_counter()
        if is_first:
            self._chosen = self._ended
        return piece

    def cancel(self) -> str:
        """End it here and return the text that was held back."""
        self.choice.finish_reason = "cancelled"
        return self._text.flush()

    def completion(self) -> Completion:
        """The whole result of an ended row."""
        assert self.choice.finish_reason is not None
        return Completion(
            text="".join(self._text.pieces),
            finish_reason=self.choice.finish_reason,
            ids=tuple(self.choice.ids),
            prompt_tokens=len(self.prompt.ids),
            dropped_tokens=self.prompt.dropped_tokens,
            seed=self.choice.seed,
            prefill_seconds=self._chosen - self._started,
            decode_seconds=self._ended - self._chosen,
            prompt_logprobs=self._prompt_entries(),
            cached_tokens=self.cached_tokens,
            **self.choice.logprob_fields(),
        )

    def _prompt_entries(self) -> tuple[TokenLogprob, ...] | None:
        return None if self.prompt_logprobs is None else tuple(self.prompt_logprobs.entries)
