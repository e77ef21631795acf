"""Generator: a session and its tokenizer. Streams ids or text, returns whole texts, one or a batch.

Checks its arguments before any work.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.generate.batch import BATCH_SIZE, complete_batch
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.defaults import params_from_defaults
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt, Truncate, check_ids, encode_prompt
from gpt_edge.generate.stream import TextStream, TokenStream
from gpt_edge.native.library import Native
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer


def open_generator(
    bundle: Bundle, *, threads: int | None = None, native: Native = None
) -> Generator:
    """A generator for an opened bundle: the tokenizer is built while onnxruntime prepares the
    weights. threads, native: as for `Session`.
    """
    with ThreadPoolExecutor(1) as executor:
        session = executor.submit(Session, bundle, threads=threads, native=native)
        tokenizer = bundle.load_tokenizer()
        return Generator(session.result(), tokenizer, bundle.manifest.generation_defaults)


class Generator:
    """Generates text with one model. Thread-safe: every generation has a cache of its own."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        bundle_defaults: GenerationDefaults | None = None,
    ) -> None:
        """bundle_defaults: as the bundle's manifest has them. Generation ends at their end tokens
        and at the tokenizer's.
        """
        self.session = session
        self.tokenizer = tokenizer
        self.bundle_defaults = bundle_defaults
        end_tokens = [tokenizer.end_token] if tokenizer.end_token is not None else []
        if bundle_defaults is not None:
            end_tokens += bundle_defaults.eos_token_id
        self.end_tokens = frozenset(end_tokens)

    @property
    def generation_defaults(self) -> SamplingParams:
        """The sampling that the model's maker chose; greedy where the bundle says nothing. Applied
        only by a caller who passes it: `SamplingParams()` stays greedy.
        """
        return params_from_defaults(self.bundle_defaults, self.session.config.vocab_size)

    def generate_ids(
        self,
        ids: Sequence[int],
        params: SamplingParams | None = None,
        *,
        cancel: threading.Event | None = None,
    ) -> TokenStream:
        """Continue `ids`, one id at a time, without the end token that ends it. This layer knows no
        text, so no stop strings.

        Raises ValueError for no ids, ids out of range or stop strings; ContextLengthError for more
        than the context.
        """
        params = params or SamplingParams()
        if params.stop:
            raise ValueError("stop strings need text: use stream or complete")
        check_ids(ids, self.session.config)
        return TokenStream(self.session, ids, params, self.tokenizer, cancel, self.end_tokens)

    def stream(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
    ) -> TextStream:
        """Continue `prompt`, text piece by text piece; the default is greedy.

        An empty prompt generates unconditionally, after an end token, as GPT-2 was trained.
        truncate: "left" cuts the start of a prompt that leaves no room for max_new_tokens, see
        `encode_prompt`.
        special: special tokens in the prompt become their ids, such as `<|endoftext|>`; else they
        are plain text, which is safe for text of strangers.
        cancel: set it, from any thread, and the stream ends before its next token.
        Raises ContextLengthError, before any work, for a prompt that does not fit.
        """
        params = params or SamplingParams()
        encoded = self.encode_prompt(prompt, params.max_new_tokens, truncate, special=special)
        tokens = TokenStream(
            self.session, encoded.ids, params, self.tokenizer, cancel, self.end_tokens
        )
        return TextStream(tokens, params, self.tokenizer, encoded.dropped_tokens)

    def complete(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
    ) -> Completion:
        """Continue `prompt` and return the whole result; see `stream`."""
        stream = self.stream(prompt, params, truncate=truncate, special=special, cancel=cancel)
        for _ in stream:
            pass
        return stream.completion

    def generate_batch(
        self,
        prompts: Sequence[str],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[Completion]:
        """Continue every prompt, `batch_size` at a time through the model, and return them in
        order.

        Each is what `complete` alone would return: a seed starts again for every row. params: one
        for all, or one per prompt. decode_seconds of a row is the time until it ended. All prompts
        are checked before the first is processed.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts must be a sequence of strings, got one string")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        each = list(params) if isinstance(params, Sequence) else [params or SamplingParams()]
        if not isinstance(params, Sequence):
            each *= len(prompts)
        if len(each) != len(prompts):
            raise ValueError(
                f"expected one SamplingParams per prompt, {len(prompts)}, got {len(each)}"
            )
        encoded = [
            self.encode_prompt(prompt, own.max_new_tokens, truncate, special=special)
            for prompt, own in zip(prompts, each, strict=True)
        ]
        return complete_batch(
            encoded,
            each,
            self.session,
            self.tokenizer,
            end_tokens=self.end_tokens,
            batch_size=batch_size,
            cancel=cancel,
        )

    def encode_prompt(
        self,
        prompt: str,
        max_new_tokens: int,
        truncate: Truncate | None = None,
        *,
        special: bool = False,
    ) -> Prompt:
        """Ids of `prompt`, at least one and at most a context full; see `prompt.encode_prompt`."""
        return encode_prompt(
            prompt,
            self.tokenizer,
            self.session.config,
            max_new_tokens,
            truncate,
            special=special,
        )
