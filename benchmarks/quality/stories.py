"""The stories that a bundle writes with its own defaults, for reading, and what can be counted in
them, as Markdown.

    python benchmarks/quality/stories.py BUNDLE --out stories.md

Sampled: one story for each seed from 1 on, with the bundle's generation defaults. Distinct-n is the
share of different n-grams of words among all of them, over all stories together (Li et al. 2016).
Greedy: one text for each of eight prompts. A text loops if a sentence of four words or more comes
three times in it. "ends" counts texts that reach the end token within --max-new-tokens.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import gpt_edge
from gpt_edge.bundle.bundle import Bundle

PROMPT = "Once upon a time"
PROMPTS = (
    PROMPT,
    "The little dog",
    "Tom and Lily went to the park",
    "One day, a girl named Sue",
    "There was a big red ball",
    "The old man",
    "It was raining",
    "Mom said",
)
SHORTEST_SENTENCE = 4  # words: "he said" and "Tom smiled" may come back
LOOP = 3  # times


def distinct(texts: Sequence[str], n: int) -> float:
    """The share of different n-grams of words among all n-grams of `texts`."""
    grams = []
    for text in texts:
        words = re.findall(r"[\w']+", text.lower())
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def most_repeated(text: str) -> int:
    """How often the sentence comes that comes most often; sentences of few words do not count."""
    sentences = [re.findall(r"[\w']+", part.lower()) for part in re.split(r"[.!?]", text)]
    counts = Counter(tuple(one) for one in sentences if len(one) >= SHORTEST_SENTENCE)
    return max(counts.values(), default=0)


def main() -> None:
    """Write the texts, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", help="folder or name; by default the built-in one")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file of the texts")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int, default=400)
    options = parser.parse_args()
    limit = options.max_new_tokens
    bundle = Bundle.open(options.bundle)
    name = bundle.manifest.name
    with gpt_edge.load(bundle.path) as model:
        defaults = model.generation_defaults
        seeds = range(1, options.seeds + 1)
        sampled = [model.complete(PROMPT, defaults, seed=s, max_new_tokens=limit) for s in seeds]
        greedy = [model.complete(prompt, max_new_tokens=limit) for prompt in PROMPTS]
    stories = [PROMPT + done.text for done in sampled]
    texts = [prompt + done.text for prompt, done in zip(PROMPTS, greedy, strict=True)]
    shares = ", ".join(f"distinct-{n} {distinct(stories, n):.3f}" for n in (1, 2, 3))
    n_ends = [sum(one.finish_reason == "stop" for one in of) for of in (sampled, greedy)]
    n_loops = [sum(most_repeated(text) >= LOOP for text in of) for of in (stories, texts)]
    figures = (
        f"{name}, {len(stories)} sampled: {n_ends[0]} end, {n_loops[0]} loop, {shares}; "
        f"{len(texts)} greedy: {n_ends[1]} end, {n_loops[1]} loop"
    )
    print(figures)
    parts = [f"# {name}", figures]
    for seed, story in zip(seeds, stories, strict=True):
        parts += [f"## Seed {seed}", story.strip()]
    for prompt, text in zip(PROMPTS, texts, strict=True):
        parts += [f"## Greedy: {prompt}", text.strip()]
    options.out.write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
