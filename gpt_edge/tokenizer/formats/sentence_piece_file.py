"""A SentencePiece model and the files beside it as the source of a bundle's tokenizer.

Unlike T5Tokenizer nothing is put after a text, as these models' makers advise for prompts
(add_special_tokens=False): the token that it would add ends a text.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.added_tokens import added_ids, rules_of
from gpt_edge.tokenizer.formats.hf_classes import begins_texts
from gpt_edge.tokenizer.formats.hf_settings import FolderSettings
from gpt_edge.tokenizer.sentence_piece import open_model
from gpt_edge.tokenizer.spec import TokenizerSource, TokenizerSpec

FILE = "tokenizer.model"
FILES = ("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model", FILE)


def source_from_sentence_piece(
    content: bytes, settings: FolderSettings, where: str
) -> TokenizerSource:
    """Return the tokenizer of a SentencePiece model. Raises TokenizerError for one that the library
    refuses, MissingDependencyError without it.
    """
    model = open_model(content, where)
    pieces = {model.id_to_piece(id): id for id in range(model.get_piece_size())}
    ids = added_ids(pieces, settings.added, where)
    special_tokens = {
        piece: id for piece, id in pieces.items() if model.is_control(id) or model.is_unknown(id)
    }
    special_tokens |= ids
    end = settings.roles.get("eos_token", settings.end)
    end_token = next((id for text, id in special_tokens.items() if end in (text, id)), None)
    if end_token is None and model.eos_id() >= 0:
        end_token = model.eos_id()
    begin = settings.roles.get("bos_token", "<s>")
    begins = begins_texts(settings)
    if begins and begin not in special_tokens:
        raise TokenizerError(
            f"{where}: every text begins with {begin!r:.40}, and there is no such token",
            hint="set add_bos_token to false in tokenizer_config.json if the model was trained "
            "without it",
        )
    kept = {role: text for role, text in settings.roles.items() if text in special_tokens}
    try:
        spec = TokenizerSpec(
            "sentencepiece",
            FILE,
            max([*pieces.values(), *special_tokens.values()]) + 1,
            end_token,
            tuple(special_tokens.items()),
            prefix=(special_tokens[begin],) if begins else (),
            token_rules=rules_of(special_tokens, settings.added, is_explicit=False),
            roles=tuple(kept.items()),
            lowercase=settings.do_lower_case,
        )
    except ValueError as error:
        raise TokenizerError(f"{where}: {error}") from error
    return TokenizerSource(spec, content, where)


def is_sentence_piece(path: Path) -> bool:
    """Whether a file is named as SentencePiece's models are."""
    return path.name in FILES or path.suffix == ".spm"
