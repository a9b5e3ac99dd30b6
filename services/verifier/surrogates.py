"""JSON whose strings may hold halves of surrogate pairs, which Python takes and UTF-8 cannot carry."""

import json
from typing import Any

NOT_TEXT = "it holds half of a surrogate pair, which no text has; replace it, for example by U+FFFD"


def load_json(data: bytes) -> Any:
    """The value of a JSON document. Raises ValueError or RecursionError."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


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
