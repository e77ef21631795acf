"""What people bring, as a user brings it: the command line from a checkpoint to text, ids or
labels, beside transformers' values. One test for each kind of situation; the details of each are in
test_saturation, test_tokenizers_of_checkpoints, test_generation_config,
test_transformers_classifiers, test_importers_names, test_importers_trainers and test_near_misses.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from transformers import GPT2Tokenizer, GPT2TokenizerFast, PreTrainedModel

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.cli import main
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS
from gpt_edge.runtime import ort_session
from gpt_edge.runtime.session import Session
from tests.support.transformers_models import random_transformers, save_vocabulary

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::gpt_edge.errors.GPTEdgeWarning"),
]
IDS = torch.tensor([[5, 17, 3, 44, 90, 2, 2, 61, 8, 33]])
END = "<|endoftext|>"
TOLERANCE = 1e-4  # max |difference| of logits: order of sums


class Command:
    """The command line in this process; `out` and `err` are those of the last call."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out, self.err = "", ""

    def __call__(self, *words: object) -> int:
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def ids(self, *words: object) -> list[int]:
        assert self("tokenize", *words) == 0, self.err
        return list(map(int, self.out.split()))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def save_both(folder: Path, model: PreTrainedModel, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tokenizer_of(folder: Path, cls: Any = GPT2TokenizerFast, **settings: Any) -> Any:
    folder.mkdir(exist_ok=True)
    save_vocabulary(folder)
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    return cls.from_pretrained(folder, **roles, **settings)


@torch.no_grad()
def greedy(model: PreTrainedModel, ids: list[int], count: int) -> list[int]:
    prompt = torch.tensor([ids])
    plain = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(prompt)  # else a 0 in the prompt counts as padding
    made = model.generate(prompt, attention_mask=mask, max_new_tokens=count, **plain)
    new: list[int] = made[0][len(ids) :].tolist()
    return new


@torch.no_grad()
def assert_same_logits(path: Path, model: PreTrainedModel, **options: Any) -> None:
    found, _ = open_checkpoint(path, **options).load_model()(IDS)
    torch.testing.assert_close(found, model(IDS).logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("scheme", ["fp32", "int8", "int8-block", "int4", "int8-dynamic"])
def test_01_portable_graphs_run_on_cpus_without_vnni(
    scheme: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_transformers("GPT2", "LMHeadModel").save_pretrained(tmp_path / "hf")
    logits = []
    for saturates in (True, False):
        monkeypatch.setattr(ort_session, "products_saturate", lambda is_true=saturates: is_true)
        out = tmp_path / f"out-{saturates}"
        words = ("--graph", "portable", "--scheme", scheme, "--tokenizer", "none")
        assert command("export", tmp_path / "hf", out, *words) == 0, command.err
        session = Session(Bundle.open(out))
        logits.append(session.forward(IDS.tolist(), session.new_cache())[0])
    np.testing.assert_allclose(*logits, atol=0.05)  # rounding of the guard's other order


def test_02_special_tokens_are_special_on_request(command: Command, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "hf")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    model = random_transformers("GPT2", "LMHeadModel", vocab_size=len(tokenizer))
    save_both(tmp_path / "hf", model, tokenizer)
    out = tmp_path / "out"
    assert command("export", tmp_path / "hf", out, "--scheme", "fp32") == 0
    for prompt in (f"Citizen{END}", "<|user|>speak<|bot|>"):
        right = tokenizer(prompt).input_ids
        assert command.ids("-m", out, prompt, "--special") == right
        assert command.ids("-m", out, prompt) != right
        assert "--special makes it special" in command.err
        words = ("generate", "-m", out, prompt, "-n", 6, "--greedy")
        assert command(*words, "--special") == 0
        assert command.out == tokenizer.decode(greedy(model, right, 6)) + "\n"
        assert command(*words) == 0
        assert "--special makes it special" in command.err


@pytest.mark.parametrize("setting", ["add_prefix_space", "add_bos_token"])
def test_04_settings_beside_a_vocabulary_count(
    setting: str, command: Command, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(tmp_path / "hf", GPT2Tokenizer, **{setting: True})
    save_both(tmp_path / "hf", random_transformers("GPT2", "LMHeadModel"), tokenizer)
    (tmp_path / "hf" / "tokenizer.json").unlink(missing_ok=True)
    assert command("export", tmp_path / "hf", tmp_path / "out", "--scheme", "fp32") == 0
    assert command.ids("-m", tmp_path / "out", "hear me") == tokenizer("hear me").input_ids


@pytest.mark.parametrize("is_list", [False, True])
def test_06_generation_ends_at_any_of_the_end_tokens(
    is_list: bool, command: Command, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(tmp_path / "hf")
    model = random_transformers("GPT2", "LMHeadModel", seed=3)
    free = greedy(model, tokenizer("hear me").input_ids, 20)
    stop = next(id for id in free[4:] if id not in free[:4])
    model.generation_config.eos_token_id = [0, stop] if is_list else stop
    save_both(tmp_path / "hf", model, tokenizer)
    assert command("export", tmp_path / "hf", tmp_path / "out", "--scheme", "fp32") == 0
    words = ("generate", "-m", tmp_path / "out", "hear me", "-n", 20, "--greedy", "--json")
    assert command(*words) == 0
    said = json.loads(command.out)
    assert said["finish_reason"] == "stop"
    assert said["completion_tokens"] == free.index(stop)


def test_07_a_tokenizer_may_be_longer_than_the_embedding(command: Command, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "hf")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    rows = len(tokenizer) - 1
    model = random_transformers("GPT2", "LMHeadModel", vocab_size=rows)
    save_both(tmp_path / "hf", model, tokenizer)
    out = tmp_path / "out"
    assert command("export", tmp_path / "hf", out, "--scheme", "fp32") == 0
    assert "'<|user|>'" in command.err
    assert command("generate", "-m", out, "hear me", "-n", 5, "--greedy") == 0
    right = greedy(model, tokenizer("hear me").input_ids, 5)
    assert command.out == tokenizer.decode(right) + "\n"
    assert command("generate", "-m", out, "<|user|>", "--special") == 1
    assert "'<|user|>'" in command.err


@pytest.mark.parametrize("name", ["GPT2", "OpenAIGPT", "GPTNeo"])
def test_08_classifiers_fine_tuned_elsewhere_have_their_labels(
    name: str, command: Command, tmp_path: Path
) -> None:
    labels = {0: "neg", 1: "neu", 2: "pos"}
    model = random_transformers(
        name, "ForSequenceClassification", vocab_size=300, pad_token_id=0, id2label=labels
    )
    tokenizer = save_both(tmp_path / "hf", model, tokenizer_of(tmp_path / "hf"))
    out = tmp_path / "out"
    assert command("export", tokenizer, out, "--scheme", "fp32") == 0, command.err
    texts = ("hear me", "speak, speak. You are all resolved")
    assert command("classify", out, *texts, "--json") == 0, command.err
    for text, line in zip(texts, command.out.splitlines(), strict=True):
        ids = GPT2TokenizerFast.from_pretrained(tmp_path / "hf")(text, return_tensors="pt")
        with torch.no_grad():
            right = model(ids.input_ids).logits[0].softmax(-1)
        found = json.loads(line)
        assert list(found["probabilities"]) == list(labels.values())
        np.testing.assert_allclose(list(found["probabilities"].values()), right, atol=1e-5)
        assert found["label"] == labels[int(right.argmax())]


@pytest.mark.parametrize("extra", ["v_head.summary.weight", "multiple_choice_head.summary.weight"])
def test_09_tensors_that_do_not_matter_are_left_out(extra: str, tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    torch.save({**model.state_dict(), extra: torch.zeros(1, 64)}, tmp_path / "pytorch_model.bin")
    assert_same_logits(tmp_path, model)
    assert f"left out {extra}" in open_checkpoint(tmp_path).notes[0]


def test_09_the_old_name_of_the_head_is_read(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    tensors = model.state_dict()
    tensors["lm_head.decoder.weight"] = tensors.pop("lm_head.weight")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert_same_logits(tmp_path, model)


def test_10_a_head_stands_for_the_embedding_that_was_dropped(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    save_model(model, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    assert_same_logits(tmp_path, model)


def nanogpt(model: PreTrainedModel) -> dict[str, Any]:
    config = model.config
    tensors = {
        name: tensor.t().contiguous() if name.endswith(LINEAR_WEIGHTS) else tensor
        for name, tensor in model.state_dict().items()
    }
    arguments = {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "block_size": config.n_positions,
        "bias": True,
        "vocab_size": config.vocab_size,
        "dropout": 0.0,
    }
    return {"model": tensors, "model_args": arguments, "iter_num": 10}


def test_12_nanogpt_with_characters_goes_from_text_to_text(
    command: Command, tmp_path: Path
) -> None:
    characters = sorted(set("First Citizen: before we proceed any further, hear me speak."))
    model = random_transformers(
        "GPT2", "LMHeadModel", vocab_size=len(characters), activation_function="gelu"
    )
    places = {character: id for id, character in enumerate(characters)}
    meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": places}
    run = tmp_path / "out-shakespeare-char"
    run.mkdir()
    (run / "meta.pkl").write_bytes(pickle.dumps(meta))
    torch.save(nanogpt(model), run / "ckpt.pt")
    out = tmp_path / "out"
    assert command("export", run, out, "--scheme", "fp32") == 0, command.err
    ids = [places[character] for character in "speak"]
    assert command("generate", "-m", out, "speak", "-n", 8, "--greedy") == 0
    assert command.out == "".join(characters[id] for id in greedy(model, ids, 8)) + "\n"
    text = "hear me speak" * 3
    (tmp_path / "text.txt").write_text(text)
    assert command("eval", out, tmp_path / "text.txt", "--json") == 0, command.err
    rows = torch.tensor([[places[character] for character in text]])
    with torch.no_grad():
        nats = model(rows, labels=rows).loss.item()  # of the characters after the first
    found = json.loads(command.out)["text"]["model"]["bits_per_byte"]
    assert found == pytest.approx(nats / np.log(2), abs=1e-4)
    assert command("generate", "-m", out, "Größe") == 1
    assert "'G'" in command.err or "'ö'" in command.err


def test_14_the_files_of_other_trainers_load(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    tensors = nanogpt(model)["model"]
    (tmp_path / "heads.json").write_text('{"n_head": 4}')
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96) for i in range(2)}
    for folder, name, content in (
        ("log", "model_00010.pt", {"model": tensors, "step": 10}),
        ("mingpt", "model.pt", {**tensors, **masks}),
        ("lightning", "last.ckpt", {"state_dict": {f"model.{k}": v for k, v in tensors.items()}}),
    ):
        (tmp_path / folder).mkdir()
        torch.save(content, tmp_path / folder / name)
        for path in (tmp_path / folder, tmp_path / folder / name):
            with pytest.raises(CheckpointError, match="n_head") as caught:
                open_checkpoint(path)
            assert "--config FILE" in str(caught.value.hint)
            assert_same_logits(path, model, config=tmp_path / "heads.json")


def test_15_a_hint_never_leads_in_a_circle(command: Command, tmp_path: Path) -> None:
    """A vocabulary that is refused is not met with another one's name."""
    model = random_transformers("GPT2", "LMHeadModel")
    for name in ("spiece.model", "vocab.txt"):
        folder = tmp_path / name.partition(".")[0]
        model.save_pretrained(folder)
        (folder / name).write_bytes(b"x")
        assert command("export", folder, tmp_path / "out") == 1
        assert f"{folder / name}" in command.err
        assert "--tokenizer gpt2" not in command.err
    model.save_pretrained(tmp_path / "run" / "checkpoint-500")
    assert command("export", tmp_path / "run", tmp_path / "out") == 1
    assert f"hint: take {tmp_path / 'run' / 'checkpoint-500'}" in command.err
    assert_same_logits(tmp_path / "run" / "checkpoint-500", model)
