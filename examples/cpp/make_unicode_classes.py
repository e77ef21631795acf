"""Write parts/unicode_classes.hpp: the classes of characters that split patterns ask for, exactly
as tiktoken's regular expressions have them.

    python make_unicode_classes.py > parts/unicode_classes.hpp
"""

from __future__ import annotations

import tiktoken

CLASSES = {
    "LETTER": r"\p{L}",
    "UPPER": r"[\p{Lu}\p{Lt}]",
    "LOWER": r"\p{Ll}",
    "NUMBER": r"\p{N}",
    "MARK": r"\p{M}",
    "SPACE": r"\s",
}
PER_LINE = 5  # ranges


def ranges_of(pattern: str) -> list[tuple[int, int]]:
    """First and last code point of each run of characters that the pattern matches."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    # what a pattern does not match is left out of the ids, and an id is a byte here
    encoding = tiktoken.Encoding(
        "classes",
        pat_str=f"{pattern}+",
        mergeable_ranks={bytes([value]): value for value in range(256)},
        special_tokens={},
    )
    ranges: list[tuple[int, int]] = []
    for start in range(0, len(every), 1 << 12):  # a long match is slow
        for character in encoding.decode(
            encoding.encode_ordinary("".join(every[start:][: 1 << 12]))
        ):
            code = ord(character)
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1] = ranges[-1][0], code
            else:
                ranges.append((code, code))
    return ranges


def header() -> str:
    """The content of the file."""
    lines = [
        "// Classes of characters, as runs from the first to the last code point.",
        "// Written by make_unicode_classes.py; do not edit.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        "namespace gpt_edge::detail {",
        "",
        "struct CodeRange {",
        "    std::uint32_t first, last;",
        "};",
    ]
    for name, pattern in CLASSES.items():
        lines += ["", f"inline constexpr CodeRange {name}[] = {{  // {pattern}"]
        texts = [f"{{0x{first:X}, 0x{last:X}}}," for first, last in ranges_of(pattern)]
        lines += [
            "    " + " ".join(texts[start : start + PER_LINE])
            for start in range(0, len(texts), PER_LINE)
        ]
        lines.append("};")
    return "\n".join([*lines, "", "}  // namespace gpt_edge::detail"])


if __name__ == "__main__":
    print(header())
