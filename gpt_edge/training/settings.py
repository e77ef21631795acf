"""The sections of a recipe: frozen values that check themselves. A ValueError names the key, what
was found and wanted.
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
    # "replace" takes bytes that are not UTF-8 as U+FFFD, and counts them
    encoding_errors: str = "strict"

    def __post_init__(self) -> None:
        _wanted("train", self.train, bool(self.train), "at least one path")
        _wanted(
            "separator", self.separator, bool(self.separator.strip()), "a text that is not blank"
        )
        _wanted("held_out", self.held_out, self.held_out >= 2, "at least 2")
        is_known = self.encoding_errors in ENCODING_ERRORS
        _wanted(
            "encoding_errors",
            self.encoding_errors,
            is_known,
            f"one of {', '.join(ENCODING_ERRORS)}",
        )


@dataclass(frozen=True, slots=True)
class TokenizerSection:
    """The byte-level BPE: learned from the training text, or read from a file. 257 is bytes alone,
    and learns nothing.
    """

    vocab_size: int = 0  # the end token included; 0 takes that of the [model] preset
    # vocab_size tokens of another model, relative to the recipe, or "gpt2" of tiktoken; "" learns
    # one
    file: str = ""

    def __post_init__(self) -> None:
        is_size = self.vocab_size == 0 or 257 <= self.vocab_size <= 1 << 20
        _wanted("vocab_size", self.vocab_size, is_size, "from 257 to 1048576")


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """How to learn. Rates are for AdamW; `matrix_learning_rate` is for the hidden matrices under
    Muon.
    """

    steps: int
    batch_tokens: int  # tokens in one optimiser step, over all processes
    learning_rate: float
    row_tokens: int  # length of a training row; longer rows cost more for each token
    # a checkpoint of the same shape and vocabulary to go on from, relative to the recipe; "" is
    # random
    start: str = ""
    # tokens that one process takes at once; gradients add up; 0 takes its whole share
    micro_batch_tokens: int = 0
    long_rows_from: int = 0  # step from which rows are n_ctx long; 0 is never
    warmup_steps: int = 100
    # step up to which the rate stays at its peak; 0 starts the cosine after the warm-up
    constant_until: int = 0
    final_learning_rate: float = 0.1  # share of the peak that the cosine ends at
    optimizer: str = "adamw"
    matrix_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    dropout: float = 0.1  # embeddings and residuals
    attention_dropout: float = 0.0  # of the attention weights: no fused kernel on CPUs takes it
    # decay of a moving average of the weights, which is then evaluated and kept; 0 is off
    ema: float = 0.0
    precision: str = "float32"
    compile: bool = False
    # a third more work, and the memory of one layer instead of all
    activation_checkpointing: bool = False
    # under torchrun: "ddp" copies the model, "fsdp" shards weights, gradients and moments
    parallel: str = "ddp"
    device: str = "auto"  # "auto" takes a GPU if there is one
    threads: int = 0  # 0 leaves torch's choice
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "row_tokens"):
            _wanted(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in (
            "warmup_steps",
            "constant_until",
            "long_rows_from",
            "micro_batch_tokens",
            "threads",
            "seed",
        ):
            _wanted(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        _wanted("threads", self.threads, self.threads <= MAX_THREADS, f"at most {MAX_THREADS}")
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm"):
            _wanted(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("beta1", "beta2", "dropout", "attention_dropout", "ema"):
            _wanted(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        _wanted(
            "final_learning_rate",
            self.final_learning_rate,
            0 <= self.final_learning_rate <= 1,
            "from 0 to 1",
        )
        _wanted("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _wanted(
            "precision",
            self.precision,
            self.precision in PRECISIONS,
            f"one of {', '.join(PRECISIONS)}",
        )
        _wanted(
            "optimizer",
            self.optimizer,
            self.optimizer in OPTIMIZERS,
            f"one of {', '.join(OPTIMIZERS)}",
        )
        _wanted(
            "parallel", self.parallel, self.parallel in PARALLELS, f"one of {', '.join(PARALLELS)}"
        )
        _wanted("device", self.device, self.device in DEVICES, f"one of {', '.join(DEVICES)}")
        is_ready = self.parallel == "ddp" or self.optimizer == "adamw"
        _wanted(
            "optimizer",
            self.optimizer,
            is_ready,
            'adamw, for parallel = "fsdp" cuts the matrices that Muon needs whole',
        )
        fits = self.batch_tokens % self.row_tokens == 0
        _wanted(
            "batch_tokens", self.batch_tokens, fits, f"a multiple of row_tokens, {self.row_tokens}"
        )
        fits = self.micro_batch_tokens % self.row_tokens == 0
        _wanted(
            "micro_batch_tokens",
            self.micro_batch_tokens,
            fits,
            f"a multiple of row_tokens, {self.row_tokens}",
        )


@dataclass(frozen=True, slots=True)
class EvaluationSection:
    """When to look at the validation text, and when to give up."""

    every_steps: int = 200
    patience: int = 5  # stop after so many evaluations without a lower loss
    # how many of them while training; 0 takes all. The last evaluation always takes all.
    documents: int = 0

    def __post_init__(self) -> None:
        _wanted("every_steps", self.every_steps, self.every_steps >= 1, "at least 1")
        _wanted("patience", self.patience, self.patience >= 1, "at least 1")
        _wanted("documents", self.documents, self.documents >= 0, "at least 0")


@dataclass(frozen=True, slots=True)
class OutputSection:
    """Where the run lives: checkpoint/, state.safetensors, metrics.jsonl, loss.png. Relative to the
    current folder.
    """

    folder: str
    plot: bool = True  # the losses as a picture; needs matplotlib
    tensorboard: bool = False  # the figures as TensorBoard scalars in tensorboard/

    def __post_init__(self) -> None:
        _wanted("folder", self.folder, bool(self.folder.strip()), "the name of a folder")


def _wanted(name: str, found: object, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is {found!r}, wanted {wanted}")
