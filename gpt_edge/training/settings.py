"""The sections of a recipe: frozen values that validate themselves. A ValueError names the key,
its value and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.data.documents import ENCODING_ERRORS
from gpt_edge.system.threads import MAX_THREADS
from gpt_edge.tokenizer.spec import END_OF_TEXT

PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "muon")
PARALLELS = ("ddp", "fsdp")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class DataSection:
    """Text files in UTF-8: paths or globs relative to the recipe; plain, JSON Lines (.jsonl,
    .ndjson), both also gzip.
    """

    train: tuple[str, ...]
    valid: tuple[str, ...] = ()  # none: the last of every `held_out` documents of the training text
    # between documents of a plain text, with the line breaks around it
    separator: str = END_OF_TEXT
    field: str = "text"  # the key of a document in a line of JSON
    held_out: int = 20
    # "replace" reads bytes that are not UTF-8 as U+FFFD, and counts them
    encoding_errors: str = "strict"

    def __post_init__(self) -> None:
        _expect("train", self.train, bool(self.train), "at least one path")
        _expect(
            "separator", self.separator, bool(self.separator.strip()), "a string that is not blank"
        )
        _expect("held_out", self.held_out, self.held_out >= 2, "at least 2")
        is_known = self.encoding_errors in ENCODING_ERRORS
        _expect(
            "encoding_errors",
            self.encoding_errors,
            is_known,
            f"one of {', '.join(ENCODING_ERRORS)}",
        )


@dataclass(frozen=True, slots=True)
class TokenizerSection:
    """The byte-level BPE: learned from the training text, or read from a file. 257 tokens are the
    bytes and the end token, and need no learning.
    """

    vocab_size: int = 0  # with the end token; 0 takes that of the [model] preset
    # vocab_size tokens of another model, relative to the recipe, or "gpt2" of tiktoken; "" learns
    # one
    file: str = ""

    def __post_init__(self) -> None:
        is_size = self.vocab_size == 0 or 257 <= self.vocab_size <= 1 << 20
        _expect("vocab_size", self.vocab_size, is_size, "from 257 to 1048576")


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """How to learn. Rates are for AdamW; `matrix_learning_rate` is for the hidden matrices under
    Muon.
    """

    steps: int
    batch_tokens: int  # tokens in one optimizer step, over all processes
    learning_rate: float
    row_tokens: int  # length of a training row; longer rows cost more for each token
    # a checkpoint of the same shape and vocabulary to start from, relative to the recipe; "" starts
    # from random weights
    start: str = ""
    # tokens that one process computes at once; gradients add up; 0: all of its batch
    micro_batch_tokens: int = 0
    long_rows_from: int = 0  # step from which rows are n_ctx long; 0 is never
    warmup_steps: int = 100
    # step up to which the rate stays at its peak; 0 starts the cosine after the warm-up
    constant_until: int = 0
    final_learning_rate: float = 0.1  # fraction of the peak at which the cosine ends
    optimizer: str = "adamw"
    matrix_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    dropout: float = 0.1  # embeddings and residuals
    attention_dropout: float = 0.0  # of the attention weights: no fused kernel on CPUs supports it
    # decay of a moving average of the weights, which is then evaluated and saved; 0 is off
    ema: float = 0.0
    precision: str = "float32"
    compile: bool = False
    # a third more work, for the memory of one layer instead of all
    activation_checkpointing: bool = False
    # under torchrun: "ddp" copies the model, "fsdp" shards weights, gradients and moments
    parallel: str = "ddp"
    device: str = "auto"  # "auto" takes a GPU if there is one
    threads: int = 0  # 0 leaves torch's choice
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "row_tokens"):
            _expect(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in (
            "warmup_steps",
            "constant_until",
            "long_rows_from",
            "micro_batch_tokens",
            "threads",
            "seed",
        ):
            _expect(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _expect("threads", self.threads, self.threads <= MAX_THREADS, f"at most {MAX_THREADS}")
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm"):
            _expect(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("beta1", "beta2", "dropout", "attention_dropout", "ema"):
            _expect(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        _expect(
            "final_learning_rate",
            self.final_learning_rate,
            0 <= self.final_learning_rate <= 1,
            "from 0 to 1",
        )
        _expect("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _expect(
            "precision",
            self.precision,
            self.precision in PRECISIONS,
            f"one of {', '.join(PRECISIONS)}",
        )
        _expect(
            "optimizer",
            self.optimizer,
            self.optimizer in OPTIMIZERS,
            f"one of {', '.join(OPTIMIZERS)}",
        )
        _expect(
            "parallel", self.parallel, self.parallel in PARALLELS, f"one of {', '.join(PARALLELS)}"
        )
        _expect("device", self.device, self.device in DEVICES, f"one of {', '.join(DEVICES)}")
        is_ready = self.parallel == "ddp" or self.optimizer == "adamw"
        _expect(
            "optimizer",
            self.optimizer,
            is_ready,
            'adamw: parallel = "fsdp" shards the matrices that Muon needs whole',
        )
        fits = self.batch_tokens % self.row_tokens == 0
        _expect(
            "batch_tokens", self.batch_tokens, fits, f"a multiple of row_tokens, {self.row_tokens}"
        )
        fits = self.micro_batch_tokens % self.row_tokens == 0
        _expect(
            "micro_batch_tokens",
            self.micro_batch_tokens,
            fits,
            f"a multiple of row_tokens, {self.row_tokens}",
        )


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """When to evaluate on the validation text, and when to stop early."""

    every_steps: int = 200
    patience: int = 5  # stop after so many evaluations without a lower loss
    # documents of an evaluation during training; 0: all. The last evaluation takes all.
    documents: int = 0

    def __post_init__(self) -> None:
        _expect("every_steps", self.every_steps, self.every_steps >= 1, "at least 1")
        _expect("patience", self.patience, self.patience >= 1, "at least 1")
        _expect("documents", self.documents, self.documents >= 0, "at least 0")


@dataclass(frozen=True, slots=True)
class OutputSection:
    """The folder of the run: checkpoint/, state.safetensors, metrics.jsonl, loss.png. Relative to
    the current folder.
    """

    folder: str
    plot: bool = True  # the losses as a picture; needs matplotlib
    tensorboard: bool = False  # the figures as TensorBoard scalars in tensorboard/

    def __post_init__(self) -> None:
        _expect("folder", self.folder, bool(self.folder.strip()), "the name of a folder")


def _expect(name: str, value: object, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
