"""What a reader gives: rows with their place, and what could not be read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that could not be read, and why."""

    reason: str


Placed: TypeAlias = tuple[str, Row | BrokenRow]
"""`file:line` or `set row N`, and the row."""


@dataclass(frozen=True, slots=True)
class RowStream:
    """The rows of one source, read as they are asked for."""

    name: str
    """Short, for ids: gsm8k of hf:openai/gsm8k:main#train."""
    rows: Iterator[Placed]
    total: int | None = None
    """How many rows there are, where that is known."""


def place(value: Any, where: str) -> Placed:
    """A row, if the value is one; the elements of a list are columns called 0, 1, and so on."""
    if isinstance(value, dict):
        return where, value
    if isinstance(value, list) and value:
        return where, {str(number): one for number, one in enumerate(value)}
    return where, BrokenRow(f"is no object with columns, but {type(value).__name__}")
