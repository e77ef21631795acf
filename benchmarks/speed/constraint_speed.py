"""What a constraint costs a token: the time to mask GPT-2's 50,257 logits, by form of the text.

    python benchmarks/speed/constraint_speed.py [TOKENIZER]

TOKENIZER: a folder or file with GPT-2's vocabulary, or `gpt2` for tiktoken's. No model runs: a text
of the form is read token by token, and what is timed is all that a constraint adds to each: reading
the token, the next mask, the masked row of logits, and the question whether the text is complete.
The first pass, in which llguidance compiles, is shown beside the passes after it.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.bench.machine import cpu_name
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.processor import ConstraintProcessor
from gpt_edge.generate.constraints.vocabulary import vocabulary_of
from gpt_edge.tokenizer import Tokenizer, build_tokenizer, tokenizer_from

N_PASSES = 50

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
        "kind": {"enum": ["cat", "dog", "bird"]},
    },
    "required": ["name", "age", "tags", "kind"],
    "additionalProperties": False,
}
PERSON_TEXT = json.dumps(
    {
        "name": "Fluffy the second of her name, who lives in the old house by the river",
        "age": 17,
        "tags": ["small", "white", "loves fish", "afraid of dogs"],
        "kind": "cat",
    }
)
SUM = """start: sum
sum: term (("+" | "-") term)*
term: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,6}(\\.[0-9]{1,3})?/
"""
WORDS = "Once upon a time there was a little cat who lived in the old house by the river"
CASES = {
    "JSON of a schema": (Constraint.json_schema(PERSON), PERSON_TEXT),
    "any JSON object": (Constraint.json_schema({"type": "object"}), PERSON_TEXT),
    "pattern, a date": (
        Constraint.regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}"),
        "2026-11-28T14:56",
    ),
    "pattern, a sentence": (
        Constraint.regex(r"[A-Z][a-z ,']{20,200}\."),
        "Once upon a time, there was a little cat who lived in the old house by the river.",
    ),
    "pattern, letters of any script": (
        Constraint.regex(r"[\w ]{20,200}"),
        WORDS,
    ),
    "pattern, words": (
        Constraint.regex(r"\w+( \w+){2,39}"),
        WORDS,
    ),
    "pattern, words of bounded length": (
        Constraint.regex(r"\w{1,40}( \w{1,40}){3,60}"),
        WORDS,
    ),
    "pattern, words with and without spaces": (
        Constraint.regex(r"(\w+ ?){3,40}"),
        WORDS,
    ),
    "pattern, words of Latin letters": (
        Constraint.regex(r"[A-Za-z]+([ ,]+[A-Za-z]+){2,39}"),
        WORDS,
    ),
    "choice of three": (Constraint.choice([" yes", " no", " I don't know"]), " I don't know"),
    "grammar of sums": (Constraint.grammar(SUM), "12+(345.5-6)+78-(9+10-(11+12))"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "gpt2"
    tokenizer = build_tokenizer(tokenizer_from(name))
    started = time.thread_time()
    vocabulary_of(tokenizer)
    print(f"{cpu_name()}; vocabulary of {tokenizer.vocab_size} tokens")
    print(f"vocabulary, once for each model: {time.thread_time() - started:.2f} s\n")
    print("| form | tokens | compiling ms | first pass, largest µs | median µs | p99 µs | max µs |")
    print("|---|---|---|---|---|---|---|")
    logits = np.random.default_rng(0).normal(size=tokenizer.vocab_size).astype(np.float32)
    for form, (constraint, text) in CASES.items():
        print(f"| {form} | {row_of(constraint, text, tokenizer, logits)} |")


def row_of(constraint: Constraint, text: str, tokenizer: Tokenizer, logits: FloatArray) -> str:
    ids = tokenizer.encode(text)
    started = time.thread_time()
    ConstraintProcessor(constraint, tokenizer, 0, [50256])
    compiling = time.thread_time() - started
    first = one_pass(constraint, ids, tokenizer, logits)
    times = np.array(
        [
            seconds
            for _ in range(N_PASSES)
            for seconds in one_pass(constraint, ids, tokenizer, logits)
        ]
    )
    median, p99, largest = (1e6 * np.quantile(times, level) for level in (0.5, 0.99, 1))
    return (
        f"{len(ids)} | {1e3 * compiling:.1f} | {1e6 * max(first):.0f} | {median:.0f} | {p99:.0f} | "
        f"{largest:.0f}"
    )


def one_pass(
    constraint: Constraint, ids: list[int], tokenizer: Tokenizer, logits: FloatArray
) -> list[float]:
    """Seconds of each token."""
    processor = ConstraintProcessor(constraint, tokenizer, 0, [50256])
    times = []
    history: list[int] = []
    for id in ids:
        started = time.thread_time()
        row = processor(history, logits)
        seconds = time.thread_time() - started
        assert row[id] > -np.inf, (tokenizer.decode(history), id)
        history.append(id)
        started = time.thread_time()
        processor.is_over(history)
        times.append(seconds + time.thread_time() - started)
    assert processor.is_met(history)
    return times


if __name__ == "__main__":
    main()
