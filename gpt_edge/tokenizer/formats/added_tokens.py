"""Added tokens: which ids they have, and which of them a text spells when.

Source: transformers, tokenization_utils_fast.py; AddedToken of Hugging Face's tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.gpt1_file import UNKNOWN
from gpt_edge.tokenizer.formats.hf_settings import AddedToken, FolderSettings, added_token
from gpt_edge.tokenizer.spec import END_OF_TEXT, MAX_VOCAB_SIZE
from gpt_edge.tokenizer.special_tokens import NEVER, TokenRules


def parse_added_tokens(value: object, where: str) -> dict[str, AddedToken]:
    """Return the tokens of `added_tokens` by text. Raises TokenizerError for one without a text or
    an id.
    """
    added: dict[str, AddedToken] = {}
    for entry in value if isinstance(value, list) else []:
        token = added_token(entry, entry.get("id") if isinstance(entry, dict) else None, where)
        added[token.text] = token
    return added


def merge_added(own: Mapping[str, AddedToken], settings: FolderSettings) -> dict[str, AddedToken]:
    """The added tokens of a tokenizer.json and those that the files beside it add to them."""
    return {**settings.added, **own}


def added_ids(
    vocab: Mapping[str, int], added: Mapping[str, AddedToken], where: str
) -> dict[str, int]:
    """The id of each added token; those without one get the next free ids, as in transformers.

    Raises TokenizerError for a token with two ids.
    """
    known = [token.id for token in added.values() if token.id is not None]
    next_id = max([*vocab.values(), *known], default=-1) + 1
    ids: dict[str, int] = {}
    for text, token in added.items():
        id = vocab.get(text) if token.id is None else token.id
        if id is None:
            id = next_id
            next_id += 1
        if vocab.get(text, id) != id:
            raise TokenizerError(
                f"{where}: token {text!r:.60} has id {vocab[text]} in the vocabulary and {id} as "
                "an added token"
            )
        ids[text] = id
    return ids


def unused_tokens(ids: Iterable[int]) -> dict[str, int]:
    """Names for ids that have no token: a spec gives every id one. No text may spell them."""
    return {f"<|unused_{id}|>": id for id in ids}


def unused_between(vocab: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    """Names for the ids that added tokens leave out beyond the vocabulary, as rows of an embedding
    that was made larger than its tokens need.
    """
    taken = {*vocab.values(), *added.values()}
    largest = max(added.values(), default=0)
    if largest >= MAX_VOCAB_SIZE:  # which its spec refuses
        return {}
    return unused_tokens(id for id in range(max(vocab.values()), largest) if id not in taken)


def rules_of(
    special_tokens: Mapping[str, int], added: Mapping[str, AddedToken], is_explicit: bool
) -> TokenRules:
    """The rules of tokens that a text does not spell on request alone."""
    rules = {text: added[text].rules for text in special_tokens if text in added}
    if is_explicit:
        rules |= {
            text: (NEVER,)
            for text in special_tokens
            if text not in added and text not in (END_OF_TEXT, UNKNOWN)
        }
    return tuple((text, words) for text, words in rules.items() if words)
