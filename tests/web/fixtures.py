"""What Python computes for the tests of the JavaScript library; nothing here is typed in."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.philox import Philox
from gpt_edge.generate.processors import build_processors
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.stop_strings import StopMatcher
from gpt_edge.runtime.encoder import Pooling
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.tokenizer.spec import TokenizerSource, TokenizerSpec
from gpt_edge.web.site import write_bundle
from tests.hostile.attacks import spoiled
from tests.support.graph_attacks import foreign_graphs, weights_elsewhere
from tests.support.tiny_model import GOLDEN

TEXTS = (
    "",
    "Once upon a time, there was a little dog.",
    "It's they'll we've I'D don't 'sour' 'ſ",
    "  two  spaces \t\n\n and\r\n lines  \n",
    "né café 漢字 かな 한국어 🙂👩‍👩‍👧 e\u0301 ﬁ Ⅷ ½ ٣",
    "\u0085next\u00a0line\ufeffbom\u2028sep\u3000wide",
    "1234567 12.5 3rd x2 _under_ --dash-- (a)[b]{c}",
    "HTTPServer camelCase ÀÉÎ İstanbul ΑΣ ς",
    "<|endoftext|> a <|endoftext|><|endoftext|> b",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x1f\x7f control",
)
SAMPLING: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8},
    {"temperature": 0.8, "top_k": 7},
    {"top_k": 1},
    {"temperature": 1e-300},
    {"temperature": 1.7, "top_p": 0.9},
    {"top_p": 0.3},
    {"min_p": 0.05},
    {"typical_p": 0.5},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 1.0, "top_k": 10**9},
)
PENALTIES: tuple[dict[str, Any], ...] = (
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.7, "frequency_penalty": -0.3},
    {"no_repeat_ngram_size": 2},
    {"logit_bias": {3: 2.5, 5: float("-inf"), 0: -1.1}},
    {"min_new_tokens": 40},
    {"min_new_tokens": 9, "stop_token_ids": [4, 9]},
    {"bad_words": ["the", "  dog", [7, 3], [11]]},
)


def philox() -> list[dict[str, Any]]:
    seeds = (0, 1, 7, 2**32, 2**53 + 1, 2**64 - 1)
    return [
        {"seed": str(seed), "numbers": [str(n) for n in itertools.islice(Philox(seed), 13)]}
        for seed in seeds
    ]


def sampler(tokenizer: Any) -> list[dict[str, Any]]:
    """Choices on random rows of several widths, with and without penalties."""
    rng = np.random.default_rng(5)
    cases = []
    for number, settings in enumerate((*SAMPLING, *PENALTIES) * 2):
        choices = {**settings, "seed": 1000 + number}
        if number % 2 and settings in PENALTIES:
            choices["temperature"] = 0.9
        size = tokenizer.vocab_size
        rows = [(rng.standard_normal(size) * 3).astype(np.float32) for _ in range(8)]
        if number % 3 == 0:
            rows = [np.round(row) for row in rows]  # ties
        histories = [rng.integers(0, size, 4 + 3 * n).tolist() for n in range(len(rows))]
        if "bad_words" in settings:  # its tokens are the likeliest
            histories = [[*history[:-1], 7] for history in histories]
            for row in rows:
                row[[3, 11]] = 9
        cases.append(_choices(choices, rows, histories, tokenizer))
    return cases


def _choices(
    settings: dict[str, Any], rows: list[Any], histories: list[list[int]], tokenizer: Any
) -> dict[str, Any]:
    n_prompt = 3
    params = SamplingParams(**settings)
    end_tokens = sorted({tokenizer.end_token, *params.stop_token_ids})
    processors = build_processors(params, n_prompt, tokenizer, end_tokens)
    own = Sampler(params, processors)
    ids = [own.sample(row, history) for row, history in zip(rows, histories, strict=True)]
    if "logit_bias" in settings:  # JSON has no infinity
        bias = {id: max(value, -1e38) for id, value in settings["logit_bias"].items()}
        settings = {**settings, "logit_bias": bias}
    return {
        "params": settings,
        "rows": [base64.b64encode(row.tobytes()).decode() for row in rows],
        "histories": histories,
        "n_prompt": n_prompt,
        "end_tokens": end_tokens,
        "ids": ids,
    }


def stops() -> list[dict[str, Any]]:
    choose = random.Random(3)
    cases = []
    for _ in range(200):
        texts = ["".join(choose.choices("ab🙂", k=choose.randint(1, 4))) for _ in range(2)]
        pieces = ["".join(choose.choices("ab🙂c", k=choose.randint(0, 5))) for _ in range(6)]
        matcher = StopMatcher(texts)
        outputs = [matcher.push(piece) for piece in pieces]
        case = {"stops": texts, "pieces": pieces, "outputs": outputs, "rest": matcher.flush()}
        cases.append({**case, "is_found": matcher.is_found})
    return cases


def tokenizers(bundle: Bundle) -> list[dict[str, Any]]:
    """The built-in vocabulary with each split pattern, its ids in another order, one of characters,
    and one of GPT-1's kind.
    """
    spec = TokenizerSpec.from_dict(bundle.manifest.tokenizer or {})
    content = (bundle.path / spec.file).read_bytes()
    sources = [
        TokenizerSource(dataclasses.replace(spec, pattern=pattern), content, pattern)
        for pattern in ("gpt2", "cl100k", "o200k")
    ]
    spaced = dataclasses.replace(
        spec,
        add_prefix_space=True,
        prefix=(2047,),
        token_rules=(("<|endoftext|>", ("always", "rstrip")),),
    )
    sources.append(TokenizerSource(spaced, content, "spaced"))
    lines = content.decode().split("\n")[:-1]
    ids = list(range(len(lines)))
    random.Random(1).shuffle(ids)
    third = "".join(f"{line} {id}\n" for line, id in zip(lines, ids, strict=True)).encode()
    sources.append(TokenizerSource(spec, third, "third column"))
    return [_tokenizer(source, TEXTS) for source in [*sources, _gpt1()]]


def vocabulary(bundle: Bundle) -> dict[str, Any]:
    """The built-in tokenizer's file and what is said of it."""
    spec = bundle.manifest.tokenizer or {}
    content = (bundle.path / spec["file"]).read_bytes()
    return {"spec": spec, "content": base64.b64encode(content).decode()}


def _gpt1() -> TokenizerSource:
    """Letters, their ends of words, and a few merges."""
    letters = "abcdefghijklmnopqrstuvwxyz.,'<|>漢"
    merges = [("t", "h"), ("th", "e</w>"), ("a", "n"), ("an", "d</w>"), ("o", "n"), ("i", "n")]
    tokens = ["<unk>", *letters, *(f"{one}</w>" for one in letters), *map("".join, merges)]
    vocab = {token: id for id, token in enumerate(tokens)}
    content = format_gpt1_file(vocab, merges, {"<end>": len(vocab)})
    spec = TokenizerSpec(
        "gpt1", "tokenizer.json", len(vocab) + 1, special_tokens=(("<end>", len(vocab)),)
    )
    return TokenizerSource(spec, content, "gpt1")


def _tokenizer(source: TokenizerSource, texts: tuple[str, ...]) -> dict[str, Any]:
    tokenizer = build_tokenizer(source)
    encoded = []
    for text, special in itertools.product(texts, (False, True)):
        ids = tokenizer.encode(text, special=special)
        entry = {"text": text, "special": special, "ids": ids, "decoded": tokenizer.decode(ids)}
        encoded.append(entry)
    choose = random.Random(9)
    streams = []
    for _ in range(20):
        ids = [choose.randrange(tokenizer.vocab_size) for _ in range(30)]
        detokenizer = tokenizer.detokenizer()
        pieces = [detokenizer.push(id) for id in ids]
        streams.append({"ids": ids, "pieces": pieces, "rest": detokenizer.flush()})
    return {
        "name": source.origin,
        "spec": source.spec.to_dict(),
        "content": base64.b64encode(source.content).decode(),
        "texts": encoded,
        "streams": streams,
    }


def texts(bundle: Path, prompts: tuple[str, ...], n: int) -> dict[str, Any]:
    """Greedy and sampled texts of a bundle."""
    model = gpt_edge.load(bundle)
    choices: list[dict[str, Any]] = [
        {"max_new_tokens": n},
        {"max_new_tokens": n, "temperature": 0.8, "top_k": 40, "seed": 7},
        {"max_new_tokens": n, "top_p": 0.9, "seed": 11, "stop": ["\n", "the "]},
        {"max_new_tokens": n, "bad_words": ["a", "the"], "stop_token_ids": [5, 6]},
        {"max_new_tokens": n, "min_p": 0.05, "seed": 3, "repetition_penalty": 1.2},
    ]
    rows = []
    for prompt, params in itertools.product(prompts, choices):
        done = model.complete(prompt, SamplingParams(**params))
        row = {"prompt": prompt, "params": params, "ids": done.ids, "text": done.text}
        rows.append({**row, "finish_reason": done.finish_reason})
    return {"bundle": str(bundle), "texts": rows}


def with_task(source: Path, folder: Path, task: TaskSpec) -> Path:
    """A copy of a classifier that says to be of another kind: its head reads whichever rows."""
    shutil.copytree(source, folder)
    manifest = dataclasses.replace(Bundle.open(source).manifest, task=task)
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return folder


def token_labels(folder: Path) -> dict[str, Any]:
    """What a bundle that labels tokens says, its places as JavaScript counts them."""
    examples = ["A cafe\u0301 in São Paulo 🙂 and 漢字.", "one"]
    found = gpt_edge.Classifier.load(folder).tag(examples)
    rows = []
    for text, of_text in zip(examples, found, strict=True):
        units = [len(text[:at].encode("utf-16-le")) // 2 for at in range(len(text) + 1)]
        rows.append(
            [
                {**dataclasses.asdict(one), "start": units[one.start], "end": units[one.end]}
                for one in of_text
            ]
        )
    return {"bundle": str(folder), "texts": examples, "rows": rows}


def vectors(bundle: Path, poolings: tuple[Pooling, ...]) -> dict[str, Any]:
    """Vectors by each pooling, with length 1 and as they are."""
    examples = ["the end of the day", "a b"]
    embedder = gpt_edge.Embedder.load(bundle)
    cases = [
        {
            "options": {"pooling": pooling, "normalize": normalize},
            "rows": embedder.embed(examples, pooling=pooling, normalize=normalize).tolist(),
        }
        for pooling, normalize in itertools.product(poolings, (True, False))
    ]
    return {"bundle": str(bundle), "texts": examples, "cases": cases}


def labels(bundle: Path) -> dict[str, Any]:
    examples = ["I loved every minute.", "Never again.", "It was long, but the end is fine."]
    found = gpt_edge.Classifier.load(bundle).predict(examples)
    shares = [row.tolist() for row in found.probabilities]
    return {
        "bundle": str(bundle),
        "texts": examples,
        "labels": found.labels,
        "probabilities": shares,
    }


def spoiled_bundles(folder: Path) -> list[dict[str, str]]:
    """Bundles whose graphs nobody may run, each with a right checksum."""
    attacks = [*foreign_graphs(), *weights_elsewhere(with_files=False)]
    return [
        {"name": str(attack), "bundle": str(spoiled(attack, folder / str(number)))}
        for number, attack in enumerate(attacks)
    ]


def arranged_bundles(folder: Path) -> list[dict[str, str]]:
    """One bundle of each scheme, as a site holds it."""
    found = []
    for path in sorted(path for path in GOLDEN.glob("native-*") if path.is_dir()):
        write_bundle(Bundle.open(path), folder / path.name)
        found.append({"name": path.name, "bundle": str(folder / path.name)})
    return found
