"""A mebibyte of text made to be slow, of each family of `tests/unit/tokenizer/test_worst_case.py`:

    python -m tests.hostile.long_prompts GPT2 GPT1

GPT2 and GPT1 are their vocabularies: a name or a folder, as for `--tokenizer`. Times are of the
processor, the best of several; growth is what 16 times as much text takes, 16 being linear.
"""

from __future__ import annotations

import argparse

from gpt_edge.tokenizer import build_tokenizer, tokenizer_from
from tests.unit.tokenizer.test_worst_case import FAMILIES, KIB, MIB, encode_seconds, fill

ALLOWED_SECONDS, ALLOWED_GROWTH = 2.0, 24.0
TOO_QUICK = 0.005  # seconds: what takes less is too little to compare with


def main() -> int:
    """Read the options, run, print; 1 if a family is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gpt2", metavar="GPT2")
    parser.add_argument("gpt1", metavar="GPT1")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    n_slow = 0
    print(
        "| tokenizer | family | 64 KiB, ms | 1 MiB, s | growth | good |\n|---|---|---|---|---|---|"
    )
    for title, name in (("GPT-2", options.gpt2), ("GPT-1", options.gpt1)):
        tokenizer = build_tokenizer(tokenizer_from(name))
        is_exact = title == "GPT-2"  # GPT-1's lowers and spaces a text
        for family in FAMILIES:
            part, whole = (
                encode_seconds(tokenizer, fill(family, size), options.repeats, is_exact)
                for size in (64 * KIB, MIB)
            )
            growth = whole / max(part, TOO_QUICK)
            is_good = whole <= ALLOWED_SECONDS and growth <= ALLOWED_GROWTH
            n_slow += not is_good
            cells = [title, family, f"{part * 1000:.1f}", f"{whole:.2f}", f"{growth:.1f}"]
            print(f"| {' | '.join([*cells, 'yes' if is_good else 'NO'])} |", flush=True)
    return 1 if n_slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
