"""What a named format is: which columns a set has, and how a row of it becomes a problem."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from services.learner.data.reading.rows import Row

Messages: TypeAlias = tuple[dict[str, str], ...]
_PICTURE = re.compile(r"(?:decoded_)?(?:image|video|audio)s?(?:_\d+)?", re.IGNORECASE)


class Unusable(Exception):
    """A row that cannot be a problem; the text says why, the same for rows of the same fault."""


@dataclass(frozen=True, slots=True)
class ConvertedRow:
    """A problem of a row, before its prompt is written for a model."""

    prompt: str | Messages
    kind: str
    answer_key: dict[str, Any]
    columns: Row = field(default_factory=dict)
    """Kept beside the problem: level, subject, where it is from."""
    id: str = ""
    """The row's own, where it has one that must stay."""

    @property
    def text(self) -> str:
        """What the user says."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n\n".join(message["content"] for message in self.prompt if message["role"] == "user")

    @property
    def whole_text(self) -> str:
        """What all messages say."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(one["content"] for one in self.prompt)


@dataclass(frozen=True, slots=True)
class Format:
    """A named map of columns to problems."""

    name: str
    sets: str
    """Public sets that have it, for the table of formats."""
    columns: str
    """The columns that are read, for the table of formats."""
    fits: Callable[[Row], bool]
    convert: Callable[[Row], ConvertedRow]
    is_written: bool = False
    """Whether its prompts are written already: nothing is put behind them."""
    note: str = ""
    """What is done to its rows that one would not expect."""


def first_of(row: Row, *names: str) -> Any:
    """The first of these columns that has a value."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def text_of(row: Row, *names: str) -> str:
    """The text in the first of these columns that has one; Unusable where none has."""
    value = first_of(row, *names)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"no text in {' or '.join(names)}")
    return value.strip()


def gold_of(value: Any) -> str:
    """A gold as text: numbers without a needless .0; of a list, its only element."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return gold_of(value[0])
    if isinstance(value, bool) or value is None:
        raise Unusable("no gold" if value is None else "the gold is true or false, no answer")
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise Unusable("the gold is no finite number")
        return str(int(value)) if value == int(value) else repr(value)
    if not isinstance(value, str):
        raise Unusable(f"the gold is a {type(value).__name__}, no text or number")
    if not value.strip():
        raise Unusable("no gold")
    return value.strip()


def json_of(value: Any, name: str) -> Any:
    """What a column holds as JSON text, or as it stands."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name} is no JSON") from error


def kept(row: Row, *names: str) -> Row:
    """These columns, where they have a plain value."""
    return {name: row[name] for name in names if isinstance(row.get(name), str | int | float) and row[name] != ""}


def refuse_pictures(row: Row) -> None:
    """Unusable for a row that shows more than text, without which its problem cannot be solved."""
    shown = next(
        (name for name, value in row.items() if _PICTURE.fullmatch(name) and value not in (None, "", [])), None
    )
    if shown:
        raise Unusable(f"shows a picture or a sound ({shown}), and models read text")


def _content_of(content: Any, name: str) -> Any:
    """The text of a message whose content is a list of parts."""
    if not isinstance(content, list | tuple) or not all(isinstance(part, dict) for part in content):
        return content
    others = sorted({str(part.get("type")) for part in content if not isinstance(part.get("text"), str)})
    if others:
        raise Unusable(f"a message of {name} shows more than text ({', '.join(others)}), and models read text")
    return "\n".join(part["text"] for part in content)


def messages_of(value: Any, name: str = "prompt") -> Messages:
    """Chat messages up to where the answer begins. Unusable for what is none."""
    found = json_of(value, name)
    if not isinstance(found, list | tuple) or not found:
        raise Unusable(f"{name} holds no messages")
    messages = []
    for one in found:
        if not isinstance(one, dict):
            raise Unusable(f"{name} holds no messages")
        role, content = one.get("role", one.get("from")), one.get("content", one.get("value"))
        content = _content_of(content, name)
        role = {"human": "user", "gpt": "assistant"}.get(str(role), role)
        if not isinstance(role, str) or not isinstance(content, str):
            raise Unusable(f"a message of {name} has no role or no text")
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] == "assistant":
        messages.pop()  # the answer that a set for fine-tuning shows
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise Unusable(f"{name} has no message of the user")
    return tuple(messages)
