"""Learn a byte-level BPE vocabulary from text. The `tokenizers` library learns; the result is a
tiktoken rank file.

Source: Sennrich, Haddow and Birch 2016 (BPE); Radford et al. 2019, section 2.2 (byte-level, split
by a pattern first). Writes no file: the caller gets the content.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpt_edge.errors import TrainingError, require
from gpt_edge.tokenizer.formats.bpe_files import decode_token, unicode_to_byte
from gpt_edge.tokenizer.formats.rank_file import N_BYTES, format_ranks


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """Return the rank file of a byte-level BPE with GPT-2's split pattern, learned from `texts`.

    vocab_size: tokens of the model, with the end token `<|endoftext|>`, which is not in the file
    and has the id `vocab_size - 1`, the number of ranks. The file holds a line `base64(token) rank`
    per token, the 256 bytes first, then the merged tokens in the order they were learned. The same
    texts give the same file. Each text is split on its own: no token spans two texts.
    Raises ValueError if vocab_size < 257, TrainingError when the texts are too short for that many
    tokens.
    """
    if vocab_size < N_BYTES + 1:
        raise ValueError(
            f"vocab_size must be at least {N_BYTES + 1} (256 bytes and the end token), got "
            f"{vocab_size}"
        )
    tokens = learn_tokens(texts, vocab_size - 1)
    if len(tokens) < vocab_size - 1:
        raise TrainingError(
            f"the texts give {len(tokens) + 1} tokens, vocab_size is {vocab_size}",
            hint=f"give more text, or a vocab_size of at most {len(tokens) + 1}",
        )
    return format_ranks(tokens)


def learn_tokens(texts: Iterable[str], n_tokens: int) -> list[bytes]:
    """Return at most `n_tokens` tokens: the 256 bytes by value, then the merged ones in the order
    they were learned.
    """
    tokenizers = require("tokenizers", "train")
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=True
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_tokens,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    byte_of = unicode_to_byte()
    by_id = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    learned = [decode_token(token, byte_of) for token, _ in by_id]
    # The library numbers the alphabet in the order of its code points; rank files put the bytes in
    # the order of value.
    return [bytes([value]) for value in range(N_BYTES)] + [
        token for token in learned if len(token) > 1
    ]
