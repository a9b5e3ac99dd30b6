"""The bytes of each token of a Hugging Face `tokenizer.json`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_MAX_TOKENS = 1 << 24
"""Many times the largest vocabulary in use; what is made of a table takes memory by its highest id."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def bytes_of_tokens(tokenizer_json: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The bytes of every token by its id, special and added tokens included; ids that no token has are empty.

    ValueError, LookupError, TypeError or AttributeError for what is no tokenizer.
    """
    model = tokenizer_json["model"]
    to_bytes = _byte_rule(tokenizer_json)
    token_of_id = {token_id: to_bytes(token) for token, token_id in _vocabulary(model)}
    for added in tokenizer_json.get("added_tokens") or ():
        token_of_id[added["id"]] = added["content"].encode()
    for token_id in token_of_id:
        if not 0 <= token_id < _MAX_TOKENS:
            raise ValueError(f"token id {token_id} lies outside [0, {_MAX_TOKENS})")
    return tuple(token_of_id.get(token_id, b"") for token_id in range(max(token_of_id, default=-1) + 1))


def ids_containing(bytes_of_token: Sequence[bytes], words: Sequence[str]) -> frozenset[int]:
    """The tokens whose text contains one of `words`, in any case."""
    wanted = [word.lower().encode() for word in words]
    return frozenset(
        token_id for token_id, token in enumerate(bytes_of_token) if any(word in token.lower() for word in wanted)
    )


def _vocabulary(model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    vocab = model["vocab"]
    if isinstance(vocab, Mapping):
        yield from vocab.items()
    else:  # Unigram: a list of (piece, score), the id its index
        yield from ((piece, token_id) for token_id, (piece, _) in enumerate(vocab))


def _byte_rule(tokenizer_json: Mapping[str, Any]) -> Callable[[str], bytes]:
    """How this tokenizer spells bytes: byte-level letters, or text with stand-ins and `<0xNN>` tokens."""
    parts = [*_parts(tokenizer_json.get("decoder")), *_parts(tokenizer_json.get("pre_tokenizer"))]
    if any(part["type"] == "ByteLevel" for part in parts):
        byte_of_letter = _byte_level_alphabet()
        return lambda token: _decode_letters(token, byte_of_letter)
    replacements = dict(_replacements(parts))
    return lambda token: _decode_text(token, replacements)


def _parts(component: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if component is None:
        return
    yield component
    for key in ("decoders", "pretokenizers"):
        for part in component.get(key) or ():
            yield from _parts(part)


def _replacements(parts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for part in parts:
        match part:
            case {"type": "Metaspace", "replacement": str(stand_in)}:
                yield stand_in, " "
            case {"type": "Replace", "pattern": {"String": str(stand_in)}, "content": str(text)}:
                yield stand_in, text
            case {"type": "WordPiece", "prefix": str(prefix)}:
                yield prefix, ""
            case {"type": "BPEDecoder", "suffix": str(suffix)}:
                yield suffix, " "


def _decode_text(token: str, replacements: Mapping[str, str]) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(byte[1], 16)])
    for stand_in, text in replacements.items():
        token = token.replace(stand_in, text)
    return token.encode()


def _decode_letters(token: str, byte_of_letter: Mapping[str, int]) -> bytes:
    try:
        return bytes(byte_of_letter[letter] for letter in token)
    except KeyError:  # an added token, written as plain text
        return token.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """The byte of each letter: a byte that prints in Latin-1 is its own letter, the others follow from U+0100 on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(printing))
    return {chr(byte): byte for byte in printing} | {chr(0x100 + nth): byte for nth, byte in enumerate(hidden)}
