from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.errors import GPTEdgeWarning, TokenizerError, TrainingError
from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.training.pretrain import prepare as module
from gpt_edge.training.pretrain.prepare import PreparedCorpus, prepare
from gpt_edge.training.recipe import read_recipe

MakeRecipe = Callable[..., Path]


class Passes:
    """Which passes over the text were made, and how much each read."""

    def __init__(self) -> None:
        self.n_bytes: dict[str, int] = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[Callable[[int], None]]:
        def count(n: int) -> None:
            self.n_bytes[what] = self.n_bytes.get(what, 0) + n

        yield count


def cut(*arguments: object) -> object:
    raise KeyboardInterrupt


def prepared(
    recipe: Path, passes: Passes | None = None, changes: tuple[str, ...] = ()
) -> PreparedCorpus:
    found = read_recipe(recipe, changes)
    Path(found.output.folder).mkdir(parents=True, exist_ok=True)
    return prepare(found, Path(found.output.folder), passes or Passes())


def text_of(corpus: PreparedCorpus) -> str:
    ids = [id for document in corpus.validation_documents() for id in document[1:-1].tolist()]
    return corpus.encoder.decode(ids)


def test_a_text_is_learned_from_and_tokenized_once(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    passes = Passes()
    first = prepared(recipe, passes)
    assert set(passes.n_bytes) == {
        "learning the vocabulary",
        "tokenizing train",
        "tokenizing valid",
    }
    assert first.train.n_documents == 120
    assert first.valid.n_documents == len(first.validation_documents()) == 12
    text = "".join(
        part.strip("\n")
        for part in (recipe.parent / "valid.txt").read_text().split("<|endoftext|>")
    )
    assert text_of(first) == text
    assert first.n_bytes(first.validation_documents()) == first.valid.n_bytes == len(text.encode())
    again = Passes()
    second = prepared(recipe, again)
    assert not again.n_bytes
    assert second.tokenizer == first.tokenizer
    assert np.array_equal(second.train[0], first.train[0])


def test_what_was_not_finished_goes_on_while_the_text_is_the_same(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()

    tokenize = module.tokenize
    monkeypatch.setattr(module, "tokenize", cut)
    with pytest.raises(KeyboardInterrupt):
        prepared(recipe)
    monkeypatch.setattr(module, "tokenize", tokenize)
    vocabulary = recipe.parent / "runs" / "recipe" / "tokenizer.tiktoken"
    before = vocabulary.read_bytes()
    passes = Passes()
    prepared(recipe, passes)
    assert "learning the vocabulary" not in passes.n_bytes
    assert vocabulary.read_bytes() == before


@pytest.mark.parametrize("change", ["text", "recipe"])
def test_incomplete_shards_of_another_text_are_built_again(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    recipe = make_recipe()
    with monkeypatch.context() as patch:
        patch.setattr(module, "tokenize", cut)
        with pytest.raises(KeyboardInterrupt):
            prepared(recipe)
    if change == "text":
        with (recipe.parent / "train.txt").open("a") as file:
            file.write("zebra zebra zebra zebra zebra zebra zebra<|endoftext|>")
    else:
        make_recipe(vocab_size=290)
    passes = Passes()
    found = prepared(recipe, passes)
    assert "learning the vocabulary" in passes.n_bytes
    assert found.train.n_documents == 121 if change == "text" else found.encoder.vocab_size == 290


def test_without_a_validation_text_every_nth_document_is_held_out(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    path = recipe.parent / "short.toml"
    path.write_text(recipe.read_text().replace('valid = "valid.txt"\n', "held_out = 8\n"))
    found = prepared(path)
    assert (found.train.n_documents, found.valid.n_documents) == (105, 15)
    assert " saw a " in text_of(found)


def test_several_files_and_globs(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    for name in ("one.jsonl", "two.jsonl"):
        (recipe.parent / name).write_text('{"story": "A cat sat."}\n' * 5)
    found = prepared(recipe, changes=('data.train=["train.txt", "*.jsonl"]', "data.field=story"))
    assert found.train.n_documents == 130


def test_a_vocabulary_of_bytes_learns_nothing(make_recipe: MakeRecipe) -> None:
    passes = Passes()
    found = prepared(make_recipe(vocab_size=257), passes)
    assert "learning the vocabulary" not in passes.n_bytes
    assert found.train[0][:12].tolist() == [256, *b"Lily had a "]


def test_a_vocabulary_can_come_from_a_file(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    content = format_ranks([*(bytes([value]) for value in range(256)), b" cat", b"at", b" c"])
    (recipe.parent / "mine.tiktoken").write_bytes(content)
    found = prepared(recipe, changes=("tokenizer.file=mine.tiktoken", "tokenizer.vocab_size=260"))
    assert found.tokenizer.content == content
    with pytest.raises(
        TokenizerError, match=r"mine.tiktoken holds 259 tokens, expected 299"
    ) as caught:
        prepared(make_recipe("other"), changes=("tokenizer.file=mine.tiktoken",))
    assert "vocab_size = 260" in (caught.value.hint or "")


def test_a_vocabulary_whose_end_token_is_not_the_last_is_refused(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    words = ["<|endoftext|>", *sorted(unicode_to_byte())]
    (recipe.parent / "hf").mkdir()
    (recipe.parent / "hf" / "vocab.json").write_text(
        json.dumps({word: id for id, word in enumerate(words)})
    )
    (recipe.parent / "hf" / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(
        TokenizerError, match="has its end token at 0; training needs it at the end, at 256"
    ):
        prepared(recipe, changes=("tokenizer.file=hf", "tokenizer.vocab_size=257"))


def test_a_text_of_nothing_is_named_before_a_vocabulary_is_learned(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    (recipe.parent / "train.txt").write_text("\n")
    with pytest.raises(TrainingError, match=r"train\.txt holds no text"):
        prepared(recipe)


def test_a_vocabulary_can_be_another_models(make_recipe: MakeRecipe, shared_data: Path) -> None:
    for number, file in enumerate(
        (shared_data / "gpt2-vocab", shared_data / "gpt2-vocab" / "encoder.json")
    ):
        recipe = make_recipe(f"run{number}")
        found = prepared(recipe, changes=(f"tokenizer.file={file}", "tokenizer.vocab_size=50257"))
        assert found.encoder.encode("Once upon a time") == [7454, 2402, 257, 640]
    with pytest.raises(
        TokenizerError, match="is a tokenizer of the kind gpt1; training needs a byte-level one"
    ):
        prepared(make_recipe("words"), changes=(f"tokenizer.file={shared_data / 'gpt1-vocab'}",))


def test_a_vocabulary_is_learned_from_a_part_of_a_huge_text(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    for name, word in (("a", "zebra"), ("b", "quagga")):
        (recipe.parent / f"{name}.txt").write_text(f"the {word} ran and ran.<|endoftext|>" * 60_000)
    monkeypatch.setattr(module, "LEARN_BYTES", 1 << 20)
    passes = Passes()
    found = prepared(recipe, passes, ('data.train=["a.txt", "b.txt"]', "tokenizer.vocab_size=275"))
    assert (
        passes.n_bytes["learning the vocabulary"]
        <= 6 << 20
        < passes.n_bytes["tokenizing train"] * 3
    )
    assert all(len(found.encoder.encode(word)) == 1 for word in (" zebra", " quagga"))


def test_a_text_that_went_away_is_named(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    os.unlink(recipe.parent / "valid.txt")
    with pytest.raises(TrainingError, match=r"cannot read the text .*valid.txt: No such file"):
        prepared(recipe)


def test_a_single_document_leaves_nothing_to_hold_out(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    (recipe.parent / "one.txt").write_text("a long story without any separator")
    with pytest.raises(TrainingError, match=r"one.txt holds no text to validate with") as caught:
        prepared(
            recipe, changes=("data.train=one.txt", "data.valid=[]", "tokenizer.vocab_size=257")
        )
    assert "separator" in (caught.value.hint or "")


def test_a_book_without_separators_is_cut_at_blank_lines(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    paragraphs = [f"Chapter {n}.\nThe rain of {n} fell on the town." for n in range(400)]
    (recipe.parent / "book.txt").write_text("\n\n".join(paragraphs) + "\n")
    changes = ("data.train=book.txt", "data.valid=[]", "tokenizer.vocab_size=257")
    with pytest.warns(GPTEdgeWarning, match=r"book.txt holds fewer than 20 documents: each is cut"):
        first = prepared(recipe, changes=changes)
    counts = (first.train.n_documents, first.valid.n_documents)
    assert counts[0] // 19 == counts[1] >= 3
    parts = [first.encoder.decode(ids[1:-1].tolist()) for ids in first.validation_documents()]
    assert all(part.startswith("Chapter ") and part.endswith("town.") for part in parts)
    again = prepared(recipe, changes=changes)  # built: nothing is read, nothing is said
    assert again.valid.n_documents == counts[1]
