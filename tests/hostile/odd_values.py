"""Odd values in the place of each value of the JSON files that importers read:

    python -m tests.hostile.odd_values [KIND ...]

Every outcome is a right load or one clear line of a GPTEdgeError. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.attempt_server import outcome_of
from tests.hostile.importers import KINDS

FILES = {
    "Hugging Face": "config.json",
    "safetensors": "config.json",
    "GPT-1 npy": "params_shapes.json",
    "TensorFlow": "hparams.json",
    "tokenizer.json": "tokenizer.json",
    "vocab and merges": "vocab.json",
}
MOST = 120  # values of a file
LONGEST = 3  # values of a list
ODD = (
    *("9" * 400, "-" + "9" * 400, "18446744073709551616", "9007199254740993", "-1", "0", "1.5"),
    *("1e400", "1e-400", "NaN", "-0.0", "null", "true", "[]", "{}", "[1]", "[[]]", '["a"]'),
    *('{"a":1}', '""', '"0"', r'"\ud800"', r'"a\u202eb"', f'"{"x" * 9000}"'),
)
HERE = "@@"
Place = tuple[Any, ...]


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Where the values of a document are, itself first: keys and numbers from the top."""
    yield place
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*place, key))
    elif isinstance(value, list):
        for index in range(min(LONGEST, len(value))):
            yield from places(value[index], (*place, index))


def replaced(value: Any, place: Place, new: object) -> Any:
    """A copy of a document with `new` at a place."""
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def run(name: str) -> Counter[str]:
    """Try all of a kind; prints those that did not end as they should."""
    kind = KINDS[name]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kind.write(folder)
        path = folder / FILES[name]
        document = json.loads(path.read_text())
        for place in list(places(document))[:MOST]:
            text = json.dumps(replaced(document, place, HERE))
            for odd in ODD:
                path.write_text(text.replace(f'"{HERE}"', odd))
                found = outcome_of(lambda: kind.read(folder))
                counts[str(found["outcome"])] += 1
                if found["outcome"] not in ("loaded", "refused"):
                    print(f"  {name} {place}, {odd[:20]}: {found}", flush=True)
    return counts


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*FILES, []])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| file | tries | refused | loaded | traceback |\n|---|---|---|---|---|")
    for name in options.kinds or FILES:
        counts = run(name)
        columns = [counts[key] for key in ("refused", "loaded", "traceback")]
        print(f"| {name} | {counts.total()} | {' | '.join(map(str, columns))} |", flush=True)


if __name__ == "__main__":
    main()
