"""TextGenerator: a session and its tokenizer. Streams ids or text, returns a whole text, and keeps
what was read.

Checks its arguments before any work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from gpt_edge.arguments import check_callable, check_is_a, check_path
from gpt_edge.arrays import IntArray
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.generate.chat_template import ChatTemplate
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.context import ContextPolicy
from gpt_edge.generate.defaults import params_from_defaults
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.generate.prompt import Prompt, Truncate, encode_prompt, prompt_of_ids
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.generate.settings import (
    CallOptions,
    GenerationSettings,
    Speculation,
    TextSettings,
    shows_settings,
    split_settings,
)
from gpt_edge.generate.speculation import DraftModel, PromptLookup, check_same_tokens
from gpt_edge.generate.state_file import read_state, write_state
from gpt_edge.generate.stream import Speculate, TextStream, TokenStream
from gpt_edge.generate.token_healing import heal
from gpt_edge.runtime.session import Session
from gpt_edge.system.closable import Closable
from gpt_edge.tokenizer.spec import Tokenizer

if TYPE_CHECKING:
    from gpt_edge.generate.async_stream import AsyncTextStream


class TextGenerator(Closable):
    """Generates one text at a time with one model; see Generator."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        bundle_defaults: GenerationDefaults | None = None,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        """bundle_defaults: as the bundle's manifest has them. Generation ends at their end tokens
        and at the tokenizer's. prefix_cache: see `load`.
        """
        check_is_a("prefix_cache", prefix_cache, PrefixCache)
        self.prefix_cache = prefix_cache
        self.session = session
        self.tokenizer = tokenizer
        self.bundle_defaults = bundle_defaults
        end_tokens = [tokenizer.end_token] if tokenizer.end_token is not None else []
        if bundle_defaults is not None:
            end_tokens += bundle_defaults.eos_token_id
        self.end_tokens = frozenset(end_tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{repr(self.session).removeprefix('<Session')}"

    def close(self) -> None:
        """Let go of the model, as a with-block does at its end; using it then is a ValueError."""
        self.session.close()

    @property
    def generation_defaults(self) -> SamplingParams:
        """The sampling that the model's maker chose; greedy where the bundle says nothing. Applied
        only by a caller who passes it: `SamplingParams()` stays greedy.
        """
        return params_from_defaults(self.bundle_defaults, self.session.config.vocab_size)

    @shows_settings(GenerationSettings)
    def generate_ids(
        self,
        ids: Sequence[int] | IntArray,
        params: SamplingParams | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> TokenStream:
        """Continue `ids`, one id at a time, without the end token that ends it. This layer knows no
        text, so no stop strings.

        All else as for `stream`. Raises ValueError for no ids, ids out of range or stop strings;
        ContextLengthError for more than the context.
        """
        params, options = split_settings(params, settings, GenerationSettings)
        if params.stop or params.token_healing:
            what = "stop strings need" if params.stop else "token_healing needs"
            raise ValueError(f"{what} text: use stream or complete")
        config = self.session.config
        prompt = prompt_of_ids(
            ids, config, params.max_new_tokens, options.context, options.keep_first
        )
        return self._tokens(prompt, params, options)

    @shows_settings(TextSettings)
    def stream(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        **settings: Unpack[TextSettings],
    ) -> TextStream:
        """Continue `prompt`, text piece by text piece; the default is greedy.

        settings: fields of SamplingParams by name, in place of those of `params`.

        An empty prompt generates unconditionally, after an end token, as GPT-2 was trained.
        truncate: "left" cuts the start of a prompt that leaves no room for max_new_tokens, see
        `encode_prompt`.
        special: special tokens in the prompt become their ids, such as `<|endoftext|>`; else they
        are plain text, which is safe for text of strangers.
        cancel: set it, from any thread, and the stream ends before its next token.
        processors: logits processors of your own, see `logits.py`.
        context: what happens when the text outgrows the context. "error" refuses such a prompt and
        ends a text there; "truncate-left" is truncate="left"; "window" goes on: the first
        `keep_first` tokens stay, the oldest behind them are dropped until half of the room is free,
        and the rest is read again, as learned positions cannot be shifted.
        sequence: what the model has read before, see `load_state`; only what follows the start that
        the prompt shares with it is read, and it holds the whole text afterwards.
        prefix_cache: in place of the generator's own; False uses none.
        speculate: "lookup" guesses that the text goes on as it did before, a Generator guesses what
        that smaller model chooses; the text stays the same, and `Completion.speculation` says how
        many guesses were right. With onnxruntime's own operators a row that was read together with
        others may differ in its last bits, so a near tie may end otherwise.
        Raises ContextLengthError, before any work, for a prompt that does not fit.
        """
        params, options = split_settings(params, settings)
        encoded = self.encode_prompt(
            prompt,
            params.max_new_tokens,
            options.truncate,
            special=options.special,
            context=options.context,
            keep_first=options.keep_first,
        )
        return self.stream_encoded(encoded, params, options)

    def stream_encoded(
        self, prompt: Prompt, params: SamplingParams, options: CallOptions
    ) -> TextStream:
        """`stream` for a prompt that `encode_prompt` made."""
        prompt = heal(prompt, params, self.tokenizer)
        tokens = self._tokens(prompt, params, options)
        return TextStream(tokens, params, self.tokenizer, prompt)

    @shows_settings(TextSettings)
    def complete(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        **settings: Unpack[TextSettings],
    ) -> Completion:
        """Continue `prompt` and return the whole result; see `stream`.

        on_text: called with each piece of the text as it comes; what it raises ends the generation.
        """
        stream = self.stream(prompt, params, **settings)
        if on_text is not None:
            check_callable("on_text", on_text)
        for piece in stream:
            if on_text is not None:
                on_text(piece)
        return stream.completion

    @shows_settings(TextSettings)
    def astream(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        **settings: Unpack[TextSettings],
    ) -> AsyncTextStream:
        """Continue `prompt` for `async for`; see `stream`. The model runs in worker threads."""
        # asyncio takes 80 ms, which a program without it does not want
        from gpt_edge.generate.async_stream import AsyncTextStream

        return AsyncTextStream(self.stream(prompt, params, **settings))

    def _tokens(self, prompt: Prompt, params: SamplingParams, options: CallOptions) -> TokenStream:
        return TokenStream(
            self.session,
            prompt,
            params,
            self.tokenizer,
            options.cancel,
            self.end_tokens,
            options.processors,
            self._proposers(options.speculate),
            self._sequence(options.sequence, options.prefix_cache),
        )

    def new_sequence(
        self, prefix_cache: PrefixCache | Literal[False] | None = None
    ) -> ReadSequence:
        """A text of which nothing was read yet, for `stream(sequence=…)`."""
        if prefix_cache is None:
            prefix_cache = self.prefix_cache
        if prefix_cache is not False:
            check_is_a("prefix_cache", prefix_cache, PrefixCache)
        return ReadSequence(self.session, None if prefix_cache is False else prefix_cache)

    def _sequence(
        self, sequence: ReadSequence | None, prefix_cache: PrefixCache | Literal[False] | None
    ) -> ReadSequence:
        """The caller's, or a new one. Raises ValueError for one of another model."""
        if sequence is None:
            return self.new_sequence(prefix_cache)
        check_is_a("sequence", sequence, ReadSequence)
        if sequence.session is not self.session:
            raise ValueError("the sequence was read by another model, or another load of it")
        return sequence

    def chat_template(self) -> ChatTemplate | None:
        """The chat template that the model's checkpoint brought, for `Conversation`; None without
        one. Raises MissingDependencyError without the extra `chat`.
        """
        bundle = self.session.bundle
        text = bundle.read_chat_template()
        roles = (bundle.manifest.tokenizer or {}).get("roles", {})
        return None if text is None else ChatTemplate(text, roles)

    def save_state(
        self, path: str | os.PathLike[str], source: TextStream | TokenStream | ReadSequence
    ) -> None:
        """Put what was read for a generation, its keys and values, into a file; a state that is
        there is replaced. Not while the generation makes its next token.

        The file's layout is that of safetensors. `load_state` resumes it, in another process too.
        Raises ValueError if nothing was read, OutputError.
        """
        sequence: Any = getattr(source, "sequence", source)
        check_path("path", path)
        write_state(Path(path), self._sequence(sequence, None))

    def load_state(self, path: str | os.PathLike[str]) -> ReadSequence:
        """What `save_state` put there, for `stream(sequence=…)`; its `ids` are the tokens that were
        read. Continues with the same bits; keys and values saved as float32 are rounded for a
        model that keeps float16, and the other way round they are converted.

        Raises StateError for a file that is corrupt, or of another model, format or version.
        """
        check_path("path", path)
        return read_state(Path(path), self.session)[0]

    def _proposers(self, speculate: Speculation) -> Speculate | None:
        """What makes the proposer of one generation. Raises ValueError for another word, or a draft
        with another tokenizer.
        """
        if speculate is None:
            return None
        if speculate == "lookup":
            return lambda choice: PromptLookup()
        if not isinstance(speculate, TextGenerator):
            raise ValueError(f"speculate must be 'lookup' or a Generator, got {speculate!r:.80}")
        check_same_tokens(speculate.tokenizer, self.tokenizer)
        session = speculate.session
        return lambda choice: DraftModel(session, choice.guesser, self.tokenizer.vocab_size)

    def encode_prompt(
        self,
        prompt: str,
        max_new_tokens: int,
        truncate: Truncate | None = None,
        *,
        special: bool = False,
        context: ContextPolicy = "error",
        keep_first: int = 0,
    ) -> Prompt:
        """Ids of `prompt`, at least one and at most a context full; see `prompt.encode_prompt`."""
        return encode_prompt(
            prompt,
            self.tokenizer,
            self.session.config,
            max_new_tokens,
            truncate,
            special=special,
            context=context,
            keep_first=keep_first,
        )
