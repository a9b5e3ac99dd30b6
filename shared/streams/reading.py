"""Reads entries; what cannot be read is told, with the feeding that it belongs to, and never raises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from shared.errors import InvalidInput, first_reason
from shared.streams.group import Entry, attempt_of

Item = TypeVar("Item")
_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a task, tree or letter should be: another release wrote it, or it is broken.

    `id` and `attempt` are as the entry says beside it; "" and -1 where it does not.
    """

    id: str
    attempt: int
    reason: str


def read(entry: Entry, field: bytes, reader: Callable[[bytes], Item]) -> Item | Unreadable:
    """What the entry carries in `field`."""
    value = entry.fields.get(field, b"")
    try:
        return reader(value)
    except ValidationError as error:
        reason = first_reason(error)
    except InvalidInput as error:
        reason = str(error)
    name = entry.fields.get(b"id", b"").decode(errors="replace")
    attempt = attempt_of(entry.fields.get(b"attempt", b""))
    return Unreadable(name, attempt, f"{reason[:300]}, in {value[:_SHOWN_BYTES]!r}")
