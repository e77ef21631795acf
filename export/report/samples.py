"""The samples of a report: what a version generates after each prompt, and where it diverges from
fp32.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import EvaluationError
from gpt_edge.export.report.data import Sample
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import Tokenizer

DEFAULT_PROMPTS = ("Once upon a time", "The answer to the question is", "In the morning")
N_SAMPLE = 64  # tokens
N_ID_PROMPT, PROMPT_SEED = 8, 20190214  # random ids, where there is no tokenizer

Prompt = tuple[str, IntArray]  # text, ids [T]
Continuation = tuple[list[int], list[float]]  # greedy tokens, and the logit margin of each choice


def prompts_of(
    prompts: Sequence[str], tokenizer: Tokenizer | None, config: GPTConfig
) -> list[Prompt]:
    """The prompts with their ids. A long prompt loses its beginning, so that half of the context is
    left to generate into.

    Raises EvaluationError for prompts without a tokenizer, and for a prompt without tokens.
    """
    room = max(1, config.n_ctx // 2)
    if tokenizer is None:
        if prompts:
            raise EvaluationError(
                "the bundle has no tokenizer: prompts cannot be read", hint="leave out --prompt"
            )
        rng = np.random.default_rng(PROMPT_SEED)
        random_ids = [
            rng.integers(0, config.vocab_size, min(N_ID_PROMPT, room)) for _ in DEFAULT_PROMPTS
        ]
        return [(" ".join(map(str, ids)), ids) for ids in random_ids]
    pairs = []
    for prompt in prompts or DEFAULT_PROMPTS:
        ids = np.array(tokenizer.encode(prompt)[-room:], np.int64)
        if not ids.size:
            raise EvaluationError(
                f"the prompt {prompt!r:.60} has no token", hint="give another with --prompt"
            )
        pairs.append((prompt, ids))
    return pairs


def sample_of(
    prompt: str, ids: Sequence[int], expected: Continuation | None, tokenizer: Tokenizer | None
) -> Sample:
    """Compare a continuation with the reference's. expected: None without a reference."""
    pieces = pieces_of(ids, tokenizer)
    if expected is None:
        return Sample(prompt, tuple(ids), pieces, (False,) * len(ids))
    tokens, margins = expected
    differs = [True] * len(ids)
    for run in difflib.SequenceMatcher(
        None, tokens, list(ids), autojunk=False
    ).get_matching_blocks():
        differs[run.b : run.b + run.size] = [False] * run.size
    n_same = next(
        (i for i, pair in enumerate(zip(tokens, ids, strict=False)) if pair[0] != pair[1]), None
    )
    if n_same is None and len(tokens) != len(ids):
        n_same = min(len(tokens), len(ids))
    margin = margins[n_same] if n_same is not None and n_same < len(margins) else None
    return Sample(prompt, tuple(ids), pieces, tuple(differs), n_same, margin)


def continue_prompt(
    session: Session, prompt: IntArray, tokenizer: Tokenizer | None
) -> Continuation:
    """Greedy tokens after ids [T] up to the end token or N_SAMPLE tokens, and the logit margin of
    each choice, the end token's included.
    """
    end = tokenizer.end_token if tokenizer else None
    n_new = min(N_SAMPLE, session.config.n_ctx - prompt.size)
    cache = session.new_cache(capacity=prompt.size + n_new)
    logits = session.forward(prompt[None], cache)[0, 0]
    tokens: list[int] = []
    margins: list[float] = []
    for step in range(n_new):
        best = np.partition(logits, -2)[-2:] if logits.size > 1 else np.zeros(2)
        margins.append(float(best[1] - best[0]))
        token = int(logits.argmax())
        if token == end:
            break
        tokens.append(token)
        if step + 1 < n_new:
            logits = session.decode([token], cache)[0]
    return tokens, margins


def pieces_of(ids: Sequence[int], tokenizer: Tokenizer | None) -> tuple[str, ...]:
    """The text that each token adds."""
    if tokenizer is None:
        return tuple(f"{id} " for id in ids)
    detokenizer = tokenizer.detokenizer()
    texts = [detokenizer.push(int(id)) for id in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return tuple(texts)
