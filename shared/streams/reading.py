"""Reads the bodies of entries; a body that cannot be read becomes an Unreadable and raises nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from shared.errors import InvalidInput, first_reason
from shared.streams.group import Entry, parse_attempt

Item = TypeVar("Item")
_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of a task, tree or dead letter that is broken or from another release.

    `id` and `attempt` come from the entry's other fields; "" and -1 where these are missing.
    """

    id: str
    attempt: int
    reason: str
    body: str = ""
    """How what cannot be read begins."""

    @property
    def complaint(self) -> str:
        """The reason, and in what."""
        return f"{self.reason}, in {self.body}"


def read(entry: Entry, field: bytes, reader: Callable[[bytes], Item]) -> Item | Unreadable:
    """The item in `field` of the entry."""
    value = entry.fields.get(field, b"")
    try:
        return reader(value)
    except ValidationError as error:
        reason = first_reason(error)
    except InvalidInput as error:
        reason = str(error)
    name = entry.fields.get(b"id", b"").decode(errors="replace")
    attempt = parse_attempt(entry.fields.get(b"attempt", b""))
    return Unreadable(name, attempt, reason[:300], repr(value[:_SHOWN_BYTES]))
