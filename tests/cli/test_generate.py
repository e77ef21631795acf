"""`generate` and `tokenize`: what they print, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.cli.support import console
from tests.support.bundle_factory import write_with_defaults
from tests.support.runner import done, run
from tests.support.terminal import run_on_terminal

PROMPT = "the rain"
SAMPLED = {"max_new_tokens": 20, "seed": 5}


def written(folder: Path, **options: object) -> str:
    """What the library writes."""
    return gpt_edge.load(folder).complete(PROMPT, gpt_edge.SamplingParams(**options)).text  # type: ignore[arg-type]


def test_generate_prints_the_continuation_and_nothing_else(tiny_edge: Path) -> None:
    result = done("generate", PROMPT, "-m", tiny_edge, "-n", "12")
    assert result.out == written(tiny_edge, max_new_tokens=12) + "\n"


def test_the_models_defaults_are_used_where_no_sampling_option_is_given(tmp_path: Path) -> None:
    defaults = GenerationDefaults(do_sample=True, temperature=0.9, top_k=7)
    path = write_with_defaults(tmp_path / "bundle", defaults).path
    sampled = SAMPLED | {"temperature": 0.9, "top_k": 7}
    ask = ("generate", PROMPT, "-m", path, "-n", "20")
    result = run(*ask, "--seed", "5")
    assert (result.code, result.out) == (0, written(path, **sampled) + "\n")
    assert result.err == "sampling: top_k 7, temperature 0.9, seed 5\n"
    result = run(*ask, "--seed", "5", "--json")
    assert (result.err, result.json["text"]) == ("", written(path, **sampled))
    assert [result.json[name] for name in ("top_k", "temperature", "seed")] == [7, 0.9, 5]
    result = run(*ask)  # a seed that it draws, and names
    assert result.err.startswith("sampling: top_k 7, temperature 0.9, seed ")
    again = run(*ask, "--seed", result.err.split()[-1])
    assert (again.out, again.err) == (result.out, result.err)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--greedy"], {}),
        (["--temperature", "0"], {}),
        (["--top-k", "9"], {"top_k": 9}),
        (["--temperature", "2"], {"temperature": 2.0}),
    ],
)
def test_an_explicit_option_overrides_all_defaults(
    options: list[str], expected: dict[str, object], tmp_path: Path
) -> None:
    defaults = GenerationDefaults(do_sample=True, temperature=0.9, top_k=7, top_p=0.5)
    path = write_with_defaults(tmp_path / "bundle", defaults).path
    if expected:
        options = [*options, "--seed", "5"]
        expected = SAMPLED | expected
    result = run("generate", PROMPT, "-m", path, "-n", "20", *options)
    assert (result.code, result.err) == (0, "")
    assert result.out == written(path, **{"max_new_tokens": 20, **expected}) + "\n"


def test_all_defaults_apply_but_what_an_option_sets(tmp_path: Path) -> None:
    defaults = GenerationDefaults(
        do_sample=True, temperature=2.0, top_k=0, top_p=0.9, min_p=0.001, repetition_penalty=1.3
    )
    path = write_with_defaults(tmp_path / "bundle", defaults).path
    own = {"temperature": 2.0, "top_k": 277, "top_p": 0.9, "min_p": 0.001, "seed": 5}
    for options, penalty in (([], 1.3), (["--repetition-penalty", "1.9"], 1.9)):
        result = run("generate", PROMPT, "-m", path, "-n", "20", "--seed", "5", *options)
        assert result.out == (
            written(path, max_new_tokens=20, **own, repetition_penalty=penalty) + "\n"
        )
        assert result.err == "sampling: top_k 277, temperature 2, top_p 0.9, min_p 0.001, seed 5\n"


def test_a_seed_without_sampling_is_one_line(tiny_edge: Path) -> None:
    result = run("generate", PROMPT, "-m", tiny_edge, "-n", "3", "--greedy", "--seed", "5")
    assert (result.code, result.err) == (
        0,
        "warning: --seed has no effect: nothing is sampled\n",
    )


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (
            ["--temperature", "0", "--top-k", "5", "--min-p", "0.1"],
            [f"{name} has no effect: --temperature 0 is greedy" for name in ("--top-k", "--min-p")],
        ),
        (
            ["--temperature", "2", "--top-k", "1", "--seed", "3"],
            [
                f"{name} has no effect: --top-k 1 leaves one token"
                for name in ("--temperature", "--seed")
            ],
        ),
        (
            ["--min-new-tokens", "9"],
            ["--min-new-tokens beyond 3 has no effect: --max-new-tokens ends the text there"],
        ),
        (["--raw", "--json"], ["--raw has no effect: --json escapes control characters itself"]),
        (["--min-new-tokens", "3", "--echo", "--top-k", "2"], []),
    ],
)
def test_an_option_without_effect_is_one_line(
    options: list[str], warnings: list[str], tiny_edge: Path
) -> None:
    result = run("generate", PROMPT, "-m", tiny_edge, "-n", "3", *options)
    assert result.code == 0
    assert result.err.splitlines() == [f"warning: {line}" for line in warnings]


def test_greedy_contradicts_the_sampling_options(tiny_edge: Path) -> None:
    for options in (["--top-k", "3"], ["--temperature", "0.5"], ["--min-p", "0.5"]):
        result = run("generate", PROMPT, "-m", tiny_edge, "--greedy", *options)
        assert result.code == 2
        assert "--greedy goes with no option that samples" in result.err


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


def test_greedy_unless_an_option_samples(tiny_edge: Path) -> None:
    greedy = written(tiny_edge, max_new_tokens=20)
    for options in ([], ["--temperature", "0"]):
        result = done("generate", PROMPT, "-m", tiny_edge, "-n", "20", "--json", *options)
        assert (result.json["text"], result.json["seed"]) == (greedy, None)
    for options, params in (
        (["--temperature", "2"], {"temperature": 2.0}),
        (["--top-k", "9"], {"top_k": 9}),
        (["--top-k", "9", "--temperature", "0.5"], {"top_k": 9, "temperature": 0.5}),
        (["--top-p", "0.9"], {"top_p": 0.9}),
        (["--min-p", "0.01"], {"min_p": 0.01}),
        (["--typical-p", "0.9"], {"typical_p": 0.9}),
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
    options = ["generate", prompt, "-m", tiny_edge, "-n", "1", "--echo"]
    code, shown = run_on_terminal(*options)
    assert code == 0
    assert shown.startswith("a\\x1b[31mb\\x07\\x9bc\td")
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}
    assert done(*options).out.startswith(prompt)


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
    said = run("tokenize", text, "-m", tiny_edge)
    ids = said.out
    assert said.code == 0
    assert said.err == (
        "the text spells the special token '<|endoftext|>', which is read as plain text; --special "
        "makes it special\n"
    )
    assert [int(id) for id in ids.split()] == gpt_edge.load(tiny_edge).tokenizer.encode(text)
    assert done("tokenize", "--decode", ids.strip(), "-m", tiny_edge).out == text + "\n"
    assert done("tokenize", "--decode", "-", "-m", tiny_edge, stdin=ids.encode()).out == text + "\n"
    assert run("tokenize", "-m", tiny_edge, stdin=text.encode()).out == ids


def test_special_tokens_of_a_prompt_are_plain_text_unless_asked_for(tiny_edge: Path) -> None:
    model = gpt_edge.load(tiny_edge)
    end = model.tokenizer.end_token
    assert (
        done("tokenize", "--special", "the<|endoftext|>", "-m", tiny_edge).out == f"116 257 {end}\n"
    )
    prompt = "the<|endoftext|>"
    plain = run("generate", prompt, "-n", 3, "--json", "-m", tiny_edge)
    assert plain.err.count("\n") == 1
    assert "spells the special token" in plain.err
    special = done("generate", prompt, "--special", "-n", 3, "--json", "-m", tiny_edge)
    assert special.json["prompt_tokens"] == 3
    assert plain.json["prompt_tokens"] == len(model.tokenizer.encode(prompt))
    params = gpt_edge.SamplingParams(max_new_tokens=3)
    expected = model.complete(prompt, params, special=True)
    assert (
        special.json["text"] == expected.text == "".join(model.stream(prompt, params, special=True))
    )
    assert [one.text for one in model.generate_batch([prompt], params, special=True)] == [
        expected.text
    ]
    refused = run("tokenize", "--special", "--decode", "1", "-m", tiny_edge)
    assert refused.code == 2
    assert "--special is for text" in refused.err


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


def test_a_prompt_cache_is_made_reused_and_refreshed(tiny_edge: Path, tmp_path: Path) -> None:
    cache = tmp_path / "story.state"
    ask = ("generate", "-m", tiny_edge, "-n", "6", "--prompt-cache", cache)
    for prompt, reused in ((PROMPT, 0), (PROMPT, 5), (f"{PROMPT} and", 6), ("xyz", 0), ("xyz", 2)):
        result = run(*ask, prompt)
        assert (result.code, result.out) == (0, plain(tiny_edge, prompt))
        n_tokens = len(gpt_edge.load(tiny_edge).tokenizer.encode(prompt))
        assert result.err == f"prompt cache: {reused} of {n_tokens} tokens reused\n"
    assert run(*ask, "xyz", "--json").json["cached_tokens"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["story.state"]


def plain(folder: Path, prompt: str) -> str:
    params = gpt_edge.SamplingParams(max_new_tokens=6)
    return gpt_edge.load(folder).complete(prompt, params).text + "\n"


def test_a_prompt_cache_that_is_none_is_refused_and_kept(tiny_edge: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Anna, this is a letter and no state.")
    result = run("generate", PROMPT, "-m", tiny_edge, "--prompt-cache", letter)
    assert (result.code, result.out) == (1, "")
    assert "letter.txt is no state of gpt-edge" in result.err
    assert letter.read_text().startswith("Dear Anna")


def test_a_window_goes_beyond_the_context(tiny_edge: Path) -> None:
    ask = ("generate", PROMPT, "-m", tiny_edge, "-n", "150", "--json")
    model = gpt_edge.load(tiny_edge)
    for options, more in (
        (("--context", "window", "--keep-first", "3"), {"context": "window", "keep_first": 3}),
        (("--context", "error"), {}),
    ):
        expected = model.complete(PROMPT, max_new_tokens=150, **more)  # type: ignore[arg-type]
        told = done(*ask, *options).json
        assert (told["text"], told["finish_reason"]) == (expected.text, expected.finish_reason)
    refused = run(*ask, "--keep-first", "3")
    assert (refused.code, refused.out) == (2, "")
    assert "keep_first needs the context 'window'" in refused.err
