"""From a Constraint to a grammar of llguidance, checked.

Needs the extra `constraints`. Source: guidance-ai/llguidance, docs/syntax.md and
docs/json_schema.md.
"""

from __future__ import annotations

import json
import re
from typing import Any

from gpt_edge.errors import require
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.python_regex import to_rust_syntax
from gpt_edge.generate.constraints.slices import slices_of

# A mask is then every token that fits, whatever the text's usual tokens are: one rule for all
# tokenizers, and the model's own probabilities decide.
_EVERY_TOKEN = '%llguidance {"no_forcing": true}\n'
_META = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")  # signs that mean something in a pattern
_WHITE_SPACE = ("whitespace_pattern", "whitespace_flexible")


def library() -> Any:
    """llguidance. Raises MissingDependencyError without the extra."""
    return require("llguidance", "constraints")


def grammar_of(constraint: Constraint, before: str = "") -> str:
    """What a matcher of llguidance is made from. before: text that comes first, of a prompt whose
    last tokens are chosen again.
    """
    start = "start: @body" if not before else f"start: {_quoted(before)} @body"
    top = {"lark_grammar": _EVERY_TOKEN + start}
    body = {"name": "body", **_body(constraint)}
    return json.dumps({"grammars": [top, body]}, ensure_ascii=False)


def _body(constraint: Constraint) -> dict[str, Any]:
    value = constraint.value
    if constraint.kind == "choice":
        # as one pattern: as alternatives of a grammar, 2,000 would be too many
        return _pattern("|".join(_META.sub(r"\\\g<0>", option) for option in value))
    assert isinstance(value, str)
    if constraint.kind == "regex":
        return _pattern(to_rust_syntax(value))
    if constraint.kind == "grammar":
        return {"lark_grammar": value}
    schema = json.loads(value)
    guidance = schema.get("x-guidance", {})
    if isinstance(guidance, dict) and not any(name in guidance for name in _WHITE_SPACE):
        schema["x-guidance"] = {**guidance, "whitespace_pattern": "[ ]?"}
    return {"json_schema": schema}


def _pattern(rust: str) -> dict[str, Any]:
    # "//" would be a comment
    return {"lark_grammar": f"start: /(?:{library().regex_to_lark(rust, '')})/"}


def repeated_classes(constraint: Constraint) -> tuple[str, ...]:
    """The slices that a constraint wants of its vocabulary."""
    if constraint.kind != "regex":
        return ()
    assert isinstance(constraint.value, str)
    return slices_of(to_rust_syntax(constraint.value))


def check_constraint(constraint: Constraint) -> None:
    """Raise ValueError for a schema, expression or grammar that llguidance refuses, with its
    reason.
    """
    message: str = library().LLMatcher.validate_grammar(grammar_of(constraint))
    if message and not message.startswith("WARNING"):
        raise refusal(constraint, message)


def refusal(constraint: Constraint, message: str) -> ValueError:
    """The error of a constraint that llguidance refuses with `message`."""
    # of several lines, the last that says "error" names the reason
    errors = re.findall(r"error: (.+)", message)
    first = message.strip().splitlines()[0].rpartition("(in regex): ")[2]
    reason = errors[-1] if errors else first
    shown = "" if constraint.kind in ("json_schema", "grammar") else f" {constraint.value!r:.60}"
    return ValueError(f"{constraint.kind}{shown} is refused by llguidance: {reason:.200}")


def _quoted(text: str) -> str:
    """A string of Lark, which is one of JSON."""
    return json.dumps(text, ensure_ascii=False)
