"""`generate` and `tokenize`: what they print, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.cli.support import console
from tests.support.runner import COMMAND, done, run

PROMPT = "the rain"


def written(folder: Path, **options: object) -> str:
    """What the library writes."""
    return gpt_edge.load(folder).complete(PROMPT, gpt_edge.SamplingParams(**options)).text  # type: ignore[arg-type]


def test_generate_prints_the_continuation_and_nothing_else(tiny_edge: Path) -> None:
    result = done("generate", PROMPT, "-m", tiny_edge, "-n", "12")
    assert result.out == written(tiny_edge, max_new_tokens=12) + "\n"


def test_echo_prints_the_prompt_before_it(tiny_edge: Path) -> None:
    result = done("generate", PROMPT, "-m", tiny_edge, "-n", "12", "--echo")
    assert result.out == PROMPT + written(tiny_edge, max_new_tokens=12) + "\n"


@pytest.mark.parametrize("arguments", [[], ["-"]])
@pytest.mark.parametrize("line_end", ["", "\n", "\r\n"])
def test_standard_input_is_the_prompt_without_its_last_line_end(
    arguments: list[str], line_end: str, tiny_edge: Path
) -> None:
    result = done(
        "generate", *arguments, "-m", tiny_edge, "-n", "12", stdin=(PROMPT + line_end).encode()
    )
    assert result.out == written(tiny_edge, max_new_tokens=12) + "\n"


def test_greedy_unless_temperature_or_top_k_is_given(tiny_edge: Path) -> None:
    greedy = written(tiny_edge, max_new_tokens=20)
    for options in ([], ["--seed", "3"], ["--temperature", "0"]):
        result = done("generate", PROMPT, "-m", tiny_edge, "-n", "20", "--json", *options)
        assert (result.json["text"], result.json["seed"]) == (greedy, None)
    for options, params in (
        (["--temperature", "2"], {"temperature": 2.0}),
        (["--top-k", "9"], {"top_k": 9}),
        (["--top-k", "9", "--temperature", "0.5"], {"top_k": 9, "temperature": 0.5}),
    ):
        result = done(
            "generate", PROMPT, "-m", tiny_edge, "-n", "20", "--json", "--seed", "5", *options
        )
        assert (
            result.json["text"] == written(tiny_edge, max_new_tokens=20, seed=5, **params) != greedy
        )


def test_json_is_one_object_with_text_figures_and_why_it_ended(tiny_edge: Path) -> None:
    values = done("generate", PROMPT, "-m", tiny_edge, "-n", "9", "--json").json
    assert values["model"] == "tiny-edge"
    assert values["finish_reason"] == "length"
    assert (values["prompt_tokens"], values["completion_tokens"], values["dropped_tokens"]) == (
        6,
        9,
        0,
    )
    assert values["seconds"] >= values["prefill_seconds"] > 0
    assert values["tokens_per_second"] > 0


def test_stop_strings_end_the_text_before_them(tiny_edge: Path) -> None:
    whole = written(tiny_edge, max_new_tokens=30)
    stop = whole[7:9]
    result = done(
        "generate", PROMPT, "-m", tiny_edge, "-n", "30", "--stop", "never", "--stop", stop, "--json"
    )
    assert result.json["text"] == whole[: whole.index(stop)]
    assert result.json["finish_reason"] == "stop"


def test_truncate_left_keeps_the_end_of_a_long_prompt(tiny_edge: Path) -> None:
    values = done(
        "generate", "x" * 500 + PROMPT, "-m", tiny_edge, "-n", "8", "--truncate", "left", "--json"
    ).json
    assert values["prompt_tokens"] == 56
    assert values["dropped_tokens"] == 506 - 56


def test_on_a_terminal_control_characters_are_escaped_and_elsewhere_kept(tiny_edge: Path) -> None:
    """The prompt is echoed, so it can bring any character."""
    prompt = "a\x1b[31mb\x07\x9bc\td"
    command = [*COMMAND, "generate", prompt, "-m", str(tiny_edge), "-n", "1", "--echo"]
    controller, terminal = pty.openpty()
    subprocess.run(command, stdout=terminal, stdin=subprocess.DEVNULL, check=True)
    os.close(terminal)
    shown = os.read(controller, 4096).decode()
    os.close(controller)
    assert shown.startswith("a\\x1b[31mb\\x07\\x9bc\td")
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}
    piped = subprocess.run(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
    ).stdout
    assert piped.startswith(prompt.encode())


def test_visible_leaves_no_control_character_and_no_half_of_a_character() -> None:
    everything = "".join(map(chr, range(0x3000))) + "\ud800\udfff"
    assert not set(console.visible(everything)) & {
        *map(chr, range(32)),
        *map(chr, range(127, 160)),
        "\u2028",
        "\ud800",
    }
    assert console.visible("a\nb\tc é 猫", keep="\n\t") == "a\nb\tc é 猫"
    assert console.visible("a\nb\x1b") == "a\\x0ab\\x1b"


def test_tokenize_prints_ids_and_decode_brings_the_text_back(tiny_edge: Path) -> None:
    text = "the “rain” and 猫\n<|endoftext|>\x00"
    ids = done("tokenize", text, "-m", tiny_edge).out
    assert [int(id) for id in ids.split()] == gpt_edge.load(tiny_edge).tokenizer.encode(text)
    assert done("tokenize", "--decode", ids.strip(), "-m", tiny_edge).out == text + "\n"
    assert done("tokenize", "--decode", "-", "-m", tiny_edge, stdin=ids.encode()).out == text + "\n"
    assert done("tokenize", "-m", tiny_edge, stdin=text.encode()).out == ids


def test_tokenize_json_has_ids_pieces_and_counts(tiny_edge: Path) -> None:
    values = done("tokenize", "the é", "-m", tiny_edge, "--json").json
    assert values == {
        "ids": [116, 257, 32, 195, 169],
        "tokens": ["t", "he", " ", "\\xc3", "\\xa9"],
        "n_tokens": 5,
        "n_bytes": 6,
    }
    assert (
        json.loads(done("tokenize", "116 257", "--decode", "-m", tiny_edge, "--json").out)["text"]
        == "the"
    )


@pytest.mark.parametrize("ids", ["1 x", "-1", "99999", "1.5", "٣"])
def test_decode_refuses_what_is_no_id_of_this_vocabulary(ids: str, tiny_edge: Path) -> None:
    result = run("tokenize", "--decode", "-m", tiny_edge, stdin=ids.encode())
    assert (result.code, result.out, len(result.errors)) == (2, "", 1)
