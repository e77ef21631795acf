"""The samples of a report: what a version writes after each prompt, and where it leaves what
fp32 writes.
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


def prompts_of(given: Sequence[str], words: Tokenizer | None, config: GPTConfig) -> list[Prompt]:
    """The prompts with their ids, the end of one that is long: half of the context is left to write
    in.

    Raises EvaluationError for prompts without a tokenizer, and for one of no token.
    """
    room, rng = max(1, config.n_ctx // 2), np.random.default_rng(PROMPT_SEED)
    if words is None:
        if given:
            raise EvaluationError(
                "the bundle has no tokenizer: prompts cannot be read", hint="leave out --prompt"
            )
        found = [
            rng.integers(0, config.vocab_size, min(N_ID_PROMPT, room)) for _ in DEFAULT_PROMPTS
        ]
        return [(" ".join(map(str, ids)), ids) for ids in found]
    pairs = []
    for prompt in given or DEFAULT_PROMPTS:
        ids = np.array(words.encode(prompt)[-room:], np.int64)
        if not ids.size:
            raise EvaluationError(
                f"the prompt {prompt!r:.60} has no token", hint="give another with --prompt"
            )
        pairs.append((prompt, ids))
    return pairs


def sample_of(
    prompt: str, ids: Sequence[int], wanted: Continuation | None, words: Tokenizer | None
) -> Sample:
    """A continuation held against the reference's; wanted: None where there is no reference."""
    pieces = pieces_of(ids, words)
    if wanted is None:
        return Sample(prompt, tuple(ids), pieces, (False,) * len(ids))
    tokens, margins = wanted
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


def continue_prompt(session: Session, prompt: IntArray, words: Tokenizer | None) -> Continuation:
    """Greedy tokens after ids [T] until the end token or N_SAMPLE, and the margin of each choice,
    the last one's too.
    """
    end = words.end_token if words else None
    n_new = min(N_SAMPLE, session.config.n_ctx - prompt.size)
    cache = session.new_cache(capacity=prompt.size + n_new)
    logits, tokens, margins = session.forward(prompt[None], cache)[0, 0], list[int](), list[float]()
    for step in range(n_new):
        best = np.partition(logits, -2)[-2:] if logits.size > 1 else np.zeros(2)
        margins.append(float(best[1] - best[0]))
        if (token := int(logits.argmax())) == end:
            break
        tokens.append(token)
        if step + 1 < n_new:
            logits = session.decode([token], cache)[0]
    return tokens, margins


def pieces_of(ids: Sequence[int], words: Tokenizer | None) -> tuple[str, ...]:
    """The text that each token adds."""
    if words is None:
        return tuple(f"{id} " for id in ids)
    detokenizer = words.detokenizer()
    texts = [detokenizer.push(int(id)) for id in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return tuple(texts)
