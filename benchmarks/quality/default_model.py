"""Loss per token and bits per byte of one checkpoint through torch fp32, ONNX fp32 and every
scheme, as a Markdown table.

    python benchmarks/quality/default_model.py runs/tinystories/checkpoint \\
        ../shared/data/tinystories/valid.txt.gz

The protocol is that of gpt_edge/evaluate/: each document on its own, windows that overlap by half.
Mean KL, the share of equal best tokens and the perplexity ratio are against torch fp32, over the
first documents alone (--kl-documents).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.evaluate import score_documents
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import build_tokenizer, find_tokenizer
from gpt_edge.training.corpus.batches import encode_documents, read_documents
from gpt_edge.training.validation import score_in_torch
from gpt_edge.verify import parity


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--separator", default="<|endoftext|>")
    arguments.add_argument("--schemes", default="fp32,int8,int4,int8-dynamic")
    arguments.add_argument("--kl-documents", type=int, default=40)
    given = arguments.parse_args()
    checkpoint = open_checkpoint(given.checkpoint)
    source = find_tokenizer(given.checkpoint)
    assert source is not None
    texts = read_documents(given.text, given.separator)
    documents = encode_documents(texts, build_tokenizer(source))
    n_bytes = sum(len(text.encode()) for text in texts)
    model = checkpoint.load_model()
    probes = [
        parity.Probe(str(i), ids[:-1][: checkpoint.config.n_ctx])
        for i, ids in enumerate(documents[: given.kl_documents])
    ]
    with torch.inference_mode():
        wanted = [model(torch.from_numpy(probe.ids)[None])[0][0].numpy() for probe in probes]
    score = score_in_torch(model, documents, n_bytes, checkpoint.config.n_ctx, "float32")
    print(
        f"{len(texts)} documents, {score.n_tokens} tokens, {n_bytes} bytes; KL over "
        f"{sum(map(len, wanted))} rows\n"
    )
    print(
        "| engine | size MB | loss/token | bits/byte | ppl ratio | mean KL | p99.9 KL | same top |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(f"| torch fp32 | | {score.loss:.5f} | {score.bits_per_byte:.5f} | 1 | | | |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for scheme in given.schemes.split(","):
            print(f"{scheme}...", file=sys.stderr)
            bundle, _ = export_bundle(given.checkpoint, Path(folder) / scheme, scheme=scheme)
            print(row(bundle, documents, n_bytes, score.loss, probes, wanted), flush=True)


def row(
    bundle: Bundle,
    documents: list[np.ndarray],
    n_bytes: int,
    loss: float,
    probes: list[parity.Probe],
    wanted: list[parity.FloatArray],
) -> str:
    """One line of the table."""
    session = Session(bundle)
    found = score_documents(session, documents, n_bytes)
    agreement = parity.compare(
        probes, wanted, [parity.probe_logits(session, probe) for probe in probes]
    )
    return (
        f"| ONNX {bundle.scheme} | {bundle.n_bytes / 1e6:.2f} | {found.loss:.5f} | "
        f"{found.bits_per_byte:.5f} | "
        f"{math.exp(found.loss - loss):.5f} | {agreement.mean_kl:.2e} | {agreement.p999_kl:.2e} | "
        f"{agreement.top1:.2%} |"
    )


if __name__ == "__main__":
    main()
