"""Random JSON schemas and regular expressions, for constraints to follow."""

from __future__ import annotations

import random
from typing import Any

WORDS = ("name", "age", "colour", "is open", "ü", "a/b", 'quo"te', "x")
CLASSES = (
    r"\d",
    r"\w",
    r"\s",
    r"\W",
    r"\S",
    r"\D",
    ".",
    "[a-f]",
    "[^a-z]",
    r"[\w.-]",
    "[[&~]",
    "[]x]",
)
LITERALS = ("a", "Z", "7", " ", "é", r"\.", "/", '"', "-", "日", r"\x41", "ab")


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema that some JSON is valid by; most are bounded in length."""
    kinds = [_string, _number, _integer, _boolean, _null, _enum, _const]
    if depth < 2:
        kinds += [_object, _object, _array, _any_of]
    if depth == 0:
        kinds = [_object, _array, _any_of, _string, _integer]
    return rng.choice(kinds)(rng, depth)


def _string(rng: random.Random, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    form = rng.randrange(4)
    if form == 0:
        schema["pattern"] = rng.choice(["^[a-z]{1,5}$", "^\\d{2}-\\d{2}$", "^(ab|cd)+x$"])
        return schema
    if form == 1:
        schema["format"] = rng.choice(["date", "time", "uuid", "ipv4"])
        return schema
    least = rng.randrange(4)
    schema["minLength"] = least
    schema["maxLength"] = least + rng.randrange(8)
    return schema


def _number(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randrange(-50, 50)
    return {"type": "number", "minimum": least, "maximum": least + rng.randrange(100)}


def _integer(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randrange(-500, 500)
    bounds = [
        {"minimum": least, "maximum": least + rng.randrange(1000)},
        {"exclusiveMinimum": least, "maximum": least + 1 + rng.randrange(50)},
        {"minimum": 0, "maximum": 100, "multipleOf": rng.choice([2, 3, 7])},
        {},
    ]
    return {"type": "integer", **rng.choice(bounds)}


def _boolean(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "boolean"}


def _null(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "null"}


def _enum(rng: random.Random, depth: int) -> dict[str, Any]:
    values: list[Any] = [*WORDS, 3, None, True, [1, "a"], {"k": 0}]
    return {"enum": rng.sample(values, rng.randrange(1, 5))}


def _const(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"const": rng.choice([*WORDS, 12, False])}


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(WORDS, rng.randrange(1, 4))
    properties = {name: random_schema(rng, depth + 1) for name in names}
    required = [name for name in names if rng.random() < 0.7]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    least = rng.randrange(3)
    if rng.random() < 0.2:
        items = [random_schema(rng, depth + 1) for _ in range(2)]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": 2}
    return {
        "type": "array",
        "items": random_schema(rng, depth + 1),
        "minItems": least,
        "maxItems": least + rng.randrange(3),
    }


def _any_of(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [random_schema(rng, depth + 1) for _ in range(2)]}


def random_pattern(rng: random.Random, depth: int = 0) -> str:
    """A pattern that Python's `re` and llguidance both read; most are bounded in length."""
    parts = []
    for _ in range(rng.randrange(1, 4)):
        form = rng.randrange(4)
        if form == 0:
            atom = rng.choice(CLASSES)
        elif form == 1 and depth < 2:
            options = [random_pattern(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
            atom = f"(?:{'|'.join(options)})"
        else:
            atom = rng.choice(LITERALS)
            atom = f"(?:{atom})" if atom == "ab" else atom
        parts.append(atom + rng.choice(["", "", "", "?", "{1,3}", "{,2}", "{2}", "+", "*"]))
    pattern = "".join(parts)
    return f"^{pattern}$" if depth == 0 and rng.random() < 0.2 else pattern
