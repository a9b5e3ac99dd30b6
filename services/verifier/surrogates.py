"""JSON that is no text or out of range somewhere: halves of surrogate pairs, integers of thousands of digits."""

import json
from typing import Any

_MAX_DIGITS = 1_000
NOT_TEXT = "it holds half of a surrogate pair, which no text has; replace it, for example by U+FFFD"


def load_json(data: bytes) -> Any:
    """The value of a JSON document, of which single texts and numbers may be no texts and numbers elsewhere.

    Raises ValueError or RecursionError.
    """
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    return json.loads(text, parse_int=_read_integer)


def _read_integer(digits: str) -> float:
    return int(digits) if len(digits) < _MAX_DIGITS else float(digits)


def is_text(value: Any) -> bool:
    """Whether UTF-8 can carry every string in a JSON value."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def make_text(text: str) -> str:
    """`text` with a question mark for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
