"""What a checkpoint brings besides its weights reaches the bundle: special tokens, characters,
tokens without a row, end tokens of config.json, a chat template. Right is what transformers does.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import CheckpointError, GPTEdgeWarning, TokenizerError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.export.transformers.folder import export_transformers
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.nanogpt import with_activation
from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte
from tests.support.runner import run

MERGES = [("h", "e"), ("a", "r"), ("Ġ", "m"), ("Ġm", "e")]
NAMES = ["<|endoftext|>", *sorted(unicode_to_byte()), *(left + right for left, right in MERGES)]
ROWS = len(NAMES) + 2  # of every model, so that they share a trace
CHARACTERS = sorted(set("First Citizen: hear me speak.\n"))
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|bot|>"
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32}
ASK: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}


def tiny_gpt2(vocab_size: int, **config: Any) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(3)
    values = {"bos_token_id": 0, "eos_token_id": 0, **TINY, **config}
    made = transformers.GPT2Config(vocab_size=vocab_size, **values)
    model = transformers.GPT2LMHeadModel(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3) if parameter.dim() > 1 else parameter.add_(0.1)
    return model


def write_vocabulary(folder: Path, **roles: Any) -> transformers.PreTrainedTokenizerFast:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: id for id, name in enumerate(NAMES)}))
    lines = "".join(f"{left} {right}\n" for left, right in MERGES)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder, **roles)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with two special tokens of its own and a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "hf"
    theirs = write_vocabulary(folder, additional_special_tokens=["<|user|>", "<|bot|>"])
    assert len(theirs) == ROWS
    tiny_gpt2(ROWS).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def test_special_tokens_and_the_chat_template_reach_the_bundle(chat: Path, tmp_path: Path) -> None:
    theirs = transformers.GPT2TokenizerFast.from_pretrained(chat)
    model = transformers.GPT2LMHeadModel.from_pretrained(chat)
    export_bundle(chat, tmp_path / "fp32", scheme="fp32")
    assert Bundle.open(tmp_path / "fp32").read_chat_template() == TEMPLATE
    shown = run("inspect", tmp_path / "fp32").out
    assert f"{len(TEMPLATE)} characters, 1 lines" in shown
    ours = gpt_edge.load(tmp_path / "fp32")
    for prompt in ("hear<|endoftext|>", "<|user|>hear me<|bot|>"):
        ids = theirs(prompt).input_ids
        assert ours.tokenizer.encode(prompt, special=True) == ids
        given = torch.tensor([ids])
        mask = torch.ones_like(given)  # else theirs takes the end token in a prompt for padding
        answer = model.generate(
            given, attention_mask=mask, max_new_tokens=6, eos_token_id=None, **ASK
        )
        text = theirs.decode(answer[0][len(ids) :])
        params = gpt_edge.SamplingParams(max_new_tokens=6, ignore_end_token=True)
        assert ours.complete(prompt, params, special=True).text == text
        assert ours.complete(prompt, params).prompt_tokens > len(ids)


@pytest.mark.slow
def test_a_bundles_quantization_and_a_transformers_folder_keep_them(
    chat: Path, tmp_path: Path
) -> None:
    theirs = transformers.GPT2TokenizerFast.from_pretrained(chat)
    bundle, _ = export_bundle(chat, tmp_path / "fp32", scheme="fp32")
    quantize_bundle(bundle, tmp_path / "int8", scheme="int8")
    assert Bundle.open(tmp_path / "int8").read_chat_template() == TEMPLATE
    export_transformers(chat, tmp_path / "hf")
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == TEMPLATE
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert again("<|user|>hear").input_ids == theirs("<|user|>hear").input_ids


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{% for m in %}", "chat_template, line 1 is not Jinja"),
        (7, "chat_template is int, expected a text"),
        ("x" * 70_000, "has 70000 bytes, at most 65536"),
        ("\ud800", "half a surrogate pair"),
    ],
)
def test_a_chat_template_that_is_none_is_refused_by_name(
    value: object, message: str, chat: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    for path in chat.iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).symlink_to(path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").unlink()
    text = json.dumps({**config, "chat_template": value})
    (folder / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        export_bundle(folder, tmp_path / "out", scheme="fp32")
    named = [{"name": "default", "template": "{% generation %}a{% endgeneration %}"}]
    for templates, stored in ((named, named[0]["template"]), ([*named, {}][1:] * 2, None)):
        text = json.dumps({**config, "chat_template": templates})
        (folder / "tokenizer_config.json").write_text(text)
        bundle, _ = export_bundle(folder, tmp_path / "out", scheme="fp32", force=True)
        assert bundle.read_chat_template() == stored


def test_tokens_without_a_row_are_neither_read_nor_generated(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    more = {"additional_special_tokens": ["<a>", "<b>"]}
    theirs = write_vocabulary(folder, pad_token="<pad>", eos_token="</s>", **more)
    rows = ROWS
    assert len(theirs) == rows + 2
    model = tiny_gpt2(rows)
    model.save_pretrained(folder)
    theirs.save_pretrained(folder)
    with pytest.warns(GPTEdgeWarning, match=r"the last 2, such as '<a>', '<b>', can be neither"):
        export_bundle(folder, tmp_path / "out", scheme="fp32")
    ours = gpt_edge.load(tmp_path / "out")
    assert (ours.tokenizer.vocab_size, ours.tokenizer.end_token) == (rows, len(NAMES))
    ids = theirs("hear me", return_tensors="pt").input_ids
    answer = model.generate(ids, max_new_tokens=5, eos_token_id=None, **ASK)[0][ids.shape[1] :]
    params = gpt_edge.SamplingParams(max_new_tokens=5, ignore_end_token=True)
    assert ours.complete("hear me", params).ids == tuple(answer.tolist())
    with pytest.raises(TokenizerError, match=f"needs the token '<a>' \\(id {rows}\\)"):
        ours.complete("hear<a>", special=True)
    refused = run("generate", "hear<a>", "--special", "-m", tmp_path / "out")
    assert (refused.code, len(refused.errors)) == (1, 1)


@pytest.mark.parametrize("is_list", [False, True])
def test_the_end_tokens_of_config_json_end_a_generation(is_list: bool, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    theirs = write_vocabulary(folder, additional_special_tokens=["<|user|>", "<|bot|>"])
    model = tiny_gpt2(ROWS)
    ids = theirs("hear me", return_tensors="pt").input_ids
    n_prompt = ids.shape[1]
    free = model.generate(ids, max_new_tokens=9, eos_token_id=None, **ASK)[0][n_prompt:].tolist()
    end = free[3]
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["eos_token_id"] = [0, end] if is_list else end
    (folder / "config.json").write_text(json.dumps(config))
    again = transformers.GPT2LMHeadModel.from_pretrained(folder)
    expected = again.generate(ids, max_new_tokens=9, **ASK)[0][n_prompt:].tolist()
    export_bundle(folder, tmp_path / "out", scheme="fp32")
    done = gpt_edge.load(tmp_path / "out").complete("hear me")
    assert (done.finish_reason, [*done.ids, end]) == ("stop", expected)


def write_nanogpt(folder: Path, meta: object) -> transformers.GPT2LMHeadModel:
    """nanoGPT's files with the weights of a GPT-2 of transformers."""
    folder.mkdir(parents=True)
    model = tiny_gpt2(len(CHARACTERS), activation_function="gelu")
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    state = {
        f"_orig_mod.{name}": tensor.t().contiguous() if name.endswith(linear) else tensor
        for name, tensor in model.state_dict().items()
    }
    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "bias": True}
    arguments |= {"vocab_size": len(CHARACTERS), "dropout": 0.0}
    torch.save({"model": state, "model_args": arguments, "iter_num": 1}, folder / "ckpt.pt")
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return model


def test_nanogpt_with_characters_reads_and_writes_text(tmp_path: Path) -> None:
    stoi = {character: id for id, character in enumerate(CHARACTERS)}
    meta = {"vocab_size": len(stoi), "itos": dict(enumerate(CHARACTERS)), "stoi": stoi}
    model = write_nanogpt(tmp_path / "out-char", meta)
    bundle, _ = export_bundle(tmp_path / "out-char", tmp_path / "bundle", scheme="fp32")
    ids = torch.tensor([[stoi[character] for character in "speak"]])
    answer = model.generate(ids, max_new_tokens=8, eos_token_id=None, **ASK)[0][5:].tolist()
    ours = gpt_edge.load(bundle.path)
    params = gpt_edge.SamplingParams(max_new_tokens=8)
    assert ours.complete("speak", params).text == "".join(CHARACTERS[id] for id in answer)
    with pytest.raises(TokenizerError, match=r"holds 'z' .*|'q' \(U\+0071\)"):
        ours.complete("q")
    text = tmp_path / "text.txt"
    text.write_text("First Citizen: hear me speak.")
    against = run("eval", bundle.path, text, "--against", tmp_path / "out-char", "--json").json
    with torch.no_grad():
        whole = torch.tensor([[stoi[character] for character in text.read_text()]])
        losses = torch.nn.functional.cross_entropy(model(whole).logits[0, :-1], whole[0, 1:])
    assert against["text"]["model"]["bits_per_byte"] == pytest.approx(
        float(losses) / torch.log(torch.tensor(2.0)).item(), abs=1e-4
    )
    (tmp_path / "out-char" / "meta.pkl").unlink()  # then the bundle's tokenizer serves both
    again = run("eval", bundle.path, text, "--against", tmp_path / "out-char", "--json").json
    assert again["text"] == against["text"]


def test_only_nanogpts_activation_can_be_given(chat: Path, tmp_path: Path) -> None:
    write_nanogpt(tmp_path / "old", {})
    old = open_checkpoint(tmp_path / "old")
    assert with_activation(old, None).config.activation == "gelu"
    assert with_activation(old, "gelu_tanh").config.activation == "gelu_tanh"
    with pytest.raises(CheckpointError, match="says its activation itself: gelu_tanh"):
        export_bundle(chat, tmp_path / "out", scheme="fp32", activation="gelu")


@pytest.mark.slow
def test_the_activation_of_an_old_nanogpt_is_given(tmp_path: Path) -> None:
    write_nanogpt(tmp_path / "old", {})
    source, out = tmp_path / "old", tmp_path / "tanh"
    asked = ("--scheme", "fp32", "--tokenizer", "none")
    assert run("export", source, out, *asked, "--activation", "gelu_tanh").code == 0
    bundle = Bundle.open(out)
    assert bundle.config.activation == "gelu_tanh"
    assert not verify_bundle(bundle, source).faults
    refused = run("export", source, tmp_path / "none", "--scheme", "fp32")
    assert refused.code == 1
    assert "meta.pkl holds nothing, expected stoi and itos" in refused.err
