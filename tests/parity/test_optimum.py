"""Optimum reads our portable bundles, and we read what Optimum exports: the same greedy tokens
either way.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.cli import main
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.runtime.session import Session
from gpt_edge.verify import parity

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
onnxruntime_models = pytest.importorskip("optimum.onnxruntime")

PROMPT = torch.tensor([[5, 77, 200, 12, 9]])
N_NEW = 64


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A random GPT-2 as transformers saves it, and the 64 tokens that transformers continues the
    prompt with.
    """
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=258,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    folder = tmp_path_factory.mktemp("hf") / "gpt2"
    model.save_pretrained(folder)
    alphabet = {
        name: id for id, name in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    }
    words = tokenizers.Tokenizer(
        tokenizers.models.BPE({**alphabet, "he": 256, "ll": 257}, [("h", "e"), ("l", "l")])
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    transformers.GPT2TokenizerFast(
        tokenizer_object=words, unk_token=None, bos_token=None, eos_token=None
    ).save_pretrained(folder)
    tokens = model.generate(PROMPT, max_new_tokens=N_NEW, do_sample=False, pad_token_id=0)[
        0, PROMPT.shape[1] :
    ]
    return folder, tokens.tolist()


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_a_portable_bundle_loads_in_optimum(
    gpt2: tuple[Path, list[int]], scheme: str, tmp_path: Path
) -> None:
    source, wanted = gpt2
    bundle, _ = export_bundle(
        source, tmp_path / "out", graph="portable", scheme=scheme, tokenizer="none"
    )
    ours = parity.greedy_tokens(Session(bundle), PROMPT[0].numpy(), N_NEW)
    model = onnxruntime_models.ORTModelForCausalLM.from_pretrained(bundle.path)
    theirs = model.generate(PROMPT, max_new_tokens=N_NEW, do_sample=False, pad_token_id=0)[
        0, PROMPT.shape[1] :
    ]
    assert theirs.tolist() == ours
    if scheme == "fp32":
        assert ours == wanted


def test_a_folder_that_optimum_exported_runs_in_our_generate(
    gpt2: tuple[Path, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from optimum.exporters.onnx import main_export

    source, wanted = gpt2
    main_export(
        str(source), tmp_path / "optimum", task="text-generation-with-past", do_validation=False
    )
    bundle = Bundle.open(tmp_path / "optimum")
    assert (bundle.graph, bundle.scheme, bundle.is_optimum_export) == ("portable", "fp32", True)
    assert parity.greedy_tokens(Session(bundle), PROMPT[0].numpy(), N_NEW) == wanted
    # The command takes it as it is, tokenizer and all.
    words = transformers.AutoTokenizer.from_pretrained(source)
    ids = words("hello there", return_tensors="pt").input_ids
    model = transformers.GPT2LMHeadModel.from_pretrained(source)
    tokens = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[
        0, ids.shape[1] :
    ]
    assert main(["generate", "hello there", "-m", str(tmp_path / "optimum"), "-n", "8"]) == 0
    assert (
        capsys.readouterr().out == words.decode(tokens, clean_up_tokenization_spaces=False) + "\n"
    )
