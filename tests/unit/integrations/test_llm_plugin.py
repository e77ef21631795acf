"""The plugin in the real `llm`: models, options, streaming, conversations, schemas, errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.bundle.reader import RENAMED
from gpt_edge.errors import GPTEdgeWarning
from tests.support.tiny_model import bundle_path

llm = pytest.importorskip("llm")

from gpt_edge.integrations import llm_plugin  # noqa: E402

NAME = f"gpt-edge/{DEFAULT_BUNDLE}"
RENAMED_NAMES = [f"gpt-edge/{name}" for name in RENAMED]
PROMPT = "Once upon a time"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Registered as llm registers them, with a folder of the user's own."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    own = tmp_path / "gpt-edge"
    own.mkdir()
    (own / "tiny").symlink_to(bundle_path(), target_is_directory=True)
    (own / "notes").mkdir()
    (own / "broken").mkdir()
    (own / "broken" / "manifest.json").write_text("{")
    found: dict[str, Any] = {}

    def register(model: Any) -> None:
        found[model.model_id] = model

    llm_plugin.register_models(register)
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    return llm_plugin.EdgeModel(DEFAULT_BUNDLE, llm_plugin.BUILTIN / DEFAULT_BUNDLE)


def test_bundles_that_generate_text_are_models(models: dict[str, Any]) -> None:
    assert sorted(models) == sorted(["gpt-edge/tiny", NAME, *RENAMED_NAMES])
    assert models["gpt-edge/tiny"].prompt("the end", max_new_tokens=3).text()


def test_a_name_of_before_is_listed_with_its_heir_and_warns(models: dict[str, Any]) -> None:
    (old,) = RENAMED_NAMES
    assert str(models[old]).endswith(f"{old} (now {NAME})")
    with pytest.warns(GPTEdgeWarning, match="no longer built in"):
        text = models[old].prompt(PROMPT, max_new_tokens=3, temperature=0).text()
    assert text == models[NAME].prompt(PROMPT, max_new_tokens=3, temperature=0).text()


def test_the_entry_point_names_the_plugin() -> None:
    import tomllib

    from tests.conftest import REPO

    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["llm"] == {"gpt-edge": llm_plugin.__name__}


def test_the_text_is_that_of_the_api_whole_or_in_pieces(model: Any) -> None:
    expected = gpt_edge.load().complete(
        PROMPT, max_new_tokens=12, temperature=0.8, top_k=40, seed=7
    )
    options = {"max_new_tokens": 12, "temperature": 0.8, "top_k": 40, "seed": 7}
    response = model.prompt(PROMPT, **options)
    pieces = list(response)
    assert len(pieces) > 3
    assert "".join(pieces) == expected.text
    assert (response.usage().input, response.usage().output) == (4, 12)
    assert response.response_json["finish_reason"] == "length"
    whole = model.prompt(PROMPT, stream=False, **options)
    assert list(whole) == [expected.text]


def test_without_options_the_models_own_defaults_sample(model: Any) -> None:
    response = model.prompt(PROMPT, seed=3, max_new_tokens=8)
    expected = gpt_edge.load()
    params = expected.generation_defaults
    assert response.text() == expected.complete(PROMPT, params, seed=3, max_new_tokens=8).text
    greedy = model.prompt(PROMPT, temperature=0, max_new_tokens=8)
    assert greedy.text() == expected.complete(PROMPT, max_new_tokens=8).text


def test_a_conversation_is_one_text_that_goes_on(model: Any) -> None:
    options = {"temperature": 0, "max_new_tokens": 6}
    conversation = model.conversation()
    first = conversation.prompt(PROMPT, **options).text()
    second = conversation.prompt(" Then", **options).text()
    expected = gpt_edge.load().complete(f"{PROMPT}{first} Then", max_new_tokens=6)
    assert second == expected.text


def test_a_schema_and_a_pattern_are_followed(model: Any) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["age"],
        "additionalProperties": False,
    }
    response = model.prompt("A child: ", schema=schema, temperature=0)
    assert 1 <= json.loads(response.text())["age"] <= 9
    assert response.response_json["is_constraint_met"] is True
    assert re.fullmatch("[a-c]{3}", model.prompt(PROMPT, regex="[a-c]{3}").text())
    with pytest.raises(llm.ModelError, match="exclude each other"):
        model.prompt(PROMPT, schema=schema, regex="a").text()


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (PROMPT, {"top_p": 3.0}, "top_p must be a number above 0, at most 1, got 3.0"),
        ("word " * 2000, {}, "shorten it"),
    ],
)
def test_an_error_is_one_line_for_the_user(
    model: Any, prompt: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(llm.ModelError) as caught:
        model.prompt(prompt, **options).text()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
