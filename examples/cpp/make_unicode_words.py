"""Write parts/unicode_words.hpp: what GPT-1's tokenizer asks of Unicode, exactly as Python answers.

python make_unicode_words.py > parts/unicode_words.hpp
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable

EVERY = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic
CLASSES = {
    "ACCENT": lambda category: category == "Mn",
    "PUNCTUATION": lambda category: category.startswith("P"),
    "CONTROL": lambda category: category.startswith("C"),
    "BLANK": lambda category: category == "Zs",
}
WIDTH = 100


def ranges_of(is_in: Callable[[int], int]) -> list[tuple[int, int, int]]:
    """First and last code point of each run for which the answer is the same and not 0, and it."""
    ranges: list[tuple[int, int, int]] = []
    for code in EVERY:
        answer = int(is_in(code))
        if not answer:
            continue
        if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == answer:
            ranges[-1] = ranges[-1][0], code, answer
        else:
            ranges.append((code, code, answer))
    return ranges


def replaced(change: Callable[[str], str]) -> list[str]:
    """An entry for each character that the change changes."""
    changed = ((code, change(chr(code))) for code in EVERY if code not in HANGUL)
    return [
        f"{{0x{code:X}, {{{', '.join(f'0x{ord(one):X}' for one in text)}}}}},"
        for code, text in changed
        if text != chr(code)
    ]


def table(declaration: str, entries: Iterable[str]) -> list[str]:
    """Lines of a constant."""
    lines = ["", f"inline constexpr {declaration}[] = {{"]
    line = "   "
    for entry in entries:
        if len(line) + 1 + len(entry) > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {entry}"
    return [*lines, line, "};"]


def header() -> str:
    """The content of the file."""
    lines = [
        f"// Unicode {unicodedata.unidata_version} as Python has it: lower case, canonical",
        "// decompositions but those of Hangul, combining classes, and categories.",
        "// Written by make_unicode_words.py; do not edit.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        '#include "unicode_classes.hpp"',
        "",
        "namespace gpt_edge::detail {",
        "",
        "struct CodeMapping {",
        "    std::uint32_t from, to[4];  // 0 after the last",
        "};",
        "",
        "struct CombiningRange {",
        "    std::uint32_t first, last, combining;",
        "};",
    ]
    lines += table("CodeMapping LOWER_CASE", replaced(str.lower))
    lines += table(
        "CodeMapping DECOMPOSED", replaced(lambda one: unicodedata.normalize("NFD", one))
    )
    combining = ranges_of(lambda code: unicodedata.combining(chr(code)))
    rows = (f"{{0x{first:X}, 0x{last:X}, {answer}}}," for first, last, answer in combining)
    lines += table("CombiningRange COMBINING", rows)
    for name, is_in in CLASSES.items():
        found = ranges_of(lambda code, is_in=is_in: is_in(unicodedata.category(chr(code))))
        rows = (f"{{0x{first:X}, 0x{last:X}}}," for first, last, _ in found)
        lines += table(f"CodeRange {name}", rows)
    return "\n".join(itertools.chain(lines, ["", "}  // namespace gpt_edge::detail"]))


if __name__ == "__main__":
    print(header())
