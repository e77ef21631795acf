"""How the texts of a task become one sequence of ids or several. `tasks.py` says what tasks there
are. Knows nothing of text, tensors or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt_edge.tasks import EMBEDDING, FINETUNED, N_TEXTS, TaskSpec


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One example as the model reads it.

    sequences: ids, each beginning with start and ending with extract. One; for similarity two, the
    texts in both orders; for multiple choice one per answer; for embedding one per text.
    n_truncated: tokens of the texts that
    no sequence holds, because n_ctx is too short.
    """

    sequences: tuple[tuple[int, ...], ...]
    n_truncated: int


def encode_texts(
    spec: TaskSpec, encode: Callable[[str], list[int]], texts: Sequence[str], n_ctx: int
) -> TaskInput:
    """`transform` of texts, each made ids by `encode`."""
    return transform(spec, [encode(text) for text in texts], n_ctx)


def transform(
    spec: TaskSpec, texts: Sequence[Sequence[int]], n_ctx: int, *, keep_end: bool = False
) -> TaskInput:
    """Return the sequences of one example, none longer than `n_ctx`.

    texts: ids of the text (classification), of premise and hypothesis, of the two texts, of the
    context and then of each answer, or of each text (embedding). What does not fit is cut and
    counted: a single text loses its end; of a pair the longer text loses its end until both fit;
    for multiple choice an answer keeps at most half of the room, and the context keeps its end, the
    same in every sequence, so that the answers differ in nothing else. keep_end: texts and answers
    lose their beginnings instead, which is not what fine-tuning does. Raises ValueError for another
    number of texts, or an n_ctx with no room for one token of each text of a sequence.
    """
    _check_texts(spec.kind, len(texts))
    if spec.kind not in FINETUNED:
        kept_ids = tuple(_cut(texts[0], n_ctx, keep_end))
        n_cut = len(texts[0]) - len(kept_ids)
        return TaskInput((_without_padding(kept_ids, spec.pad),), n_cut)
    n_parts = 1 if spec.kind in ("classification", EMBEDDING) else 2
    room = n_ctx - 1 - n_parts  # start, and a delimiter or extract after each text
    if room < n_parts:
        raise ValueError(f"{spec.kind} wants n_ctx of at least {2 * n_parts + 1}, got {n_ctx}")
    match spec.kind:
        case "multiple-choice":
            kept = _cut_choices(texts, room, keep_end)
            together = [[kept[0], answer] for answer in kept[1:]]
        case "classification" | "embedding":
            kept = [_cut(text, room, keep_end) for text in texts]
            together = [[text] for text in kept]
        # has no order of its own: both orders, and their representations are added
        case "similarity":
            kept = _cut_pair(texts[0], texts[1], room, keep_end)
            together = [kept, kept[::-1]]
        case _:
            kept = _cut_pair(texts[0], texts[1], room, keep_end)
            together = [kept]
    n_truncated = sum(map(len, texts)) - sum(map(len, kept))
    return TaskInput(tuple(_sequence(spec, parts) for parts in together), n_truncated)


def _check_texts(kind: str, n_texts: int) -> None:
    if kind == "multiple-choice":
        if n_texts < 3:
            raise ValueError(
                f"multiple-choice wants a context and at least 2 answers, got {n_texts} texts"
            )
    elif kind == EMBEDDING:
        if n_texts < 1:
            raise ValueError("embedding wants at least 1 text, got none")
    elif n_texts != N_TEXTS[kind]:
        raise ValueError(
            f"{kind} wants {N_TEXTS[kind]} text{'s' * (N_TEXTS[kind] > 1)}, got {n_texts}"
        )


def _sequence(spec: TaskSpec, parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    start, delimiter, extract = spec.tokens
    ids = [start]
    for i, part in enumerate(parts):
        if i:
            ids.append(delimiter)
        ids.extend(part)
    ids.append(extract)
    return tuple(ids)


def _without_padding(ids: tuple[int, ...], pad: int | None) -> tuple[int, ...]:
    """The ids up to the last one that is no padding, at least one: what follows has no effect on
    it. A text may end with the id, as "!" is 0 in GPT-2's vocabulary, and transformers skips it.
    """
    n_kept = len(ids)
    while n_kept > 1 and ids[n_kept - 1] == pad:
        n_kept -= 1
    return ids[:n_kept]


def _cut(text: Sequence[int], n_kept: int, keep_end: bool) -> Sequence[int]:
    return text[len(text) - min(n_kept, len(text)) :] if keep_end else text[:n_kept]


def _cut_pair(
    first: Sequence[int], second: Sequence[int], room: int, keep_end: bool
) -> list[Sequence[int]]:
    """The longer of the two loses its end first; a text no longer than half of the room is never
    cut.
    """
    half = room // 2
    n_first = min(len(first), max(room - len(second), room - half))
    n_second = min(len(second), room - n_first)
    return [_cut(first, n_first, keep_end), _cut(second, n_second, keep_end)]


def _cut_choices(texts: Sequence[Sequence[int]], room: int, keep_end: bool) -> list[Sequence[int]]:
    context, answers = texts[0], texts[1:]
    longest_kept = max(room // 2, room - len(context))
    kept = [_cut(answer, longest_kept, keep_end) for answer in answers]
    n_context = min(len(context), room - max(map(len, kept)))
    return [context[len(context) - n_context :], *kept]
