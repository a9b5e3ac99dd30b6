"""LiveCodeBench's private tests: JSON text, pickled, compressed, in base64. Nothing of it is unpickled.

A pickle is a program. Of its language, what writes one text is read here, and everything else refused.
"""

import base64
import binascii
import struct
import zlib

MAX_TEXT_BYTES = 8 << 20
"""Of the JSON; a plain key could not be longer either."""

# How long the arguments of the instructions are that say nothing about the text: of protocol, frame and memo.
_SKIPPED = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}
# How the length of a text is written.
_TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
_STOP = b"."


def unpack_tests(packed: str) -> str:
    """The JSON text. Raises ValueError, with the remedy, for what is something else or too long."""
    try:
        compressed = base64.b64decode(packed, validate=True)
        decompressor = zlib.decompressobj()
        pickled = decompressor.decompress(compressed, MAX_TEXT_BYTES + 64)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"private tests {packed[:20]!r}… are no base64 of zlib ({error}); give plain tests") from None
    if len(pickled) > MAX_TEXT_BYTES or decompressor.unconsumed_tail:
        raise ValueError(f"private tests unpack to more than {MAX_TEXT_BYTES} bytes; keep fewer of them")
    if not decompressor.eof:
        raise ValueError(f"private tests {packed[:20]!r}… are cut off; give them whole")
    return _read_pickled_text(pickled)


def _read_pickled_text(data: bytes) -> str:
    """The one text that a pickle holds."""
    text: bytes | None = None
    position = 0
    try:
        while (instruction := data[position : position + 1]) != _STOP:
            position += 1
            if instruction in _SKIPPED:
                position += _SKIPPED[instruction]
            elif instruction in _TEXTS and text is None:
                (length,) = struct.unpack_from(_TEXTS[instruction], data, position)
                position += struct.calcsize(_TEXTS[instruction])
                text = data[position : position + length]
                position += length
            else:
                raise ValueError(f"it has {instruction!r} at {position - 1}")
        if text is None:
            raise ValueError("it holds none")
        return text.decode("utf-8", "surrogatepass")
    except (struct.error, ValueError) as error:
        raise ValueError(f"private tests are no pickled text ({error}); give plain tests") from None
