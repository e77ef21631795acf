"""Twenty prompts whose texts are compared between Python and C++."""

from __future__ import annotations

from pathlib import Path

import gpt_edge
from gpt_edge.generate.params import SamplingParams
from tests.support.cpp_library import CppLibrary

PROMPTS = (
    *("Once upon a time", "The little dog", "Tom and Lily went", "One day, a big red", "She said"),
    *(
        "It was raining and",
        "In the forest there was",
        "Mom smiled. ",
        '"Hello',
        "A cat sat on the",
    ),
    *("The sun", "He was very sad because", "They played with", "The ball", "Ben had a toy"),
    *("Every night", "Look, ", "The bird flew to", "Why do you", "Once there was a king who"),
)


def check_texts(
    python: gpt_edge.Generator, folder: Path, cpp: CppLibrary, **options: object
) -> None:
    """Twenty prompts, greedy and sampled."""
    with cpp.open(folder, **options) as model:  # type: ignore[arg-type]
        for seed, prompt in enumerate(PROMPTS):
            for settings in ({}, {"top_k": 40, "temperature": 0.8, "seed": seed}):
                given = {"max_new_tokens": 40, **settings}
                expected = python.complete(prompt, SamplingParams(**given))  # type: ignore[arg-type]
                done = model.generate(prompt, **given)
                assert (done.ids, done.text) == (expected.ids, expected.text), prompt
