"""Cuts the JSON text of a batch into the texts of its items, so that each is read alone and spoils no other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shared.errors import InvalidInput

_MARK = re.compile(rb'["{}\[\]]')
_OPENING, _QUOTE, _BACKSLASH = frozenset(b"{["), ord('"'), ord("\\")
# After so many steps a cutter pauses; a step is a mark, or an ordinary item, which takes no longer than 16 marks.
_STEP = 1_024
_MARKS_OF_ITEM = 16
_MAX_ORDINARY = 1 << 14


def _match_item(depth: int) -> re.Pattern[bytes]:
    """What stands between the end of an item, or the list's start, and the end of the next item, of bounded depth.

    It finds what the marks would, and never goes back: its work is linear.
    """
    string = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    flat = rb'[^"{}\[\]]*+(?:' + string + rb'[^"{}\[\]]*+)*+'
    inside = flat
    for _ in range(depth):
        inside = flat + rb"(?:[{\[]" + inside + rb"[}\]]" + flat + rb")*+"
    return re.compile(rb"[ \t\r\n]*+(,?+)[ \t\r\n]*+(\{" + inside + rb"\})", re.DOTALL)


_ORDINARY_ITEM = _match_item(4)


@dataclass(frozen=True, slots=True)
class CutItem:
    """The JSON text of an item; `nested`: start and end of each object or list that is a value of its fields, None if
    nobody has looked, because the text is short."""

    text: bytes
    nested: tuple[tuple[int, int], ...] | None

    @property
    def outline(self) -> bytes:
        """The text with `{}` for what is nested: however deep or long that is, this can be read."""
        nested = tuple(_find_nested(self.text)) if self.nested is None else self.nested
        starts = (0, *(end for _, end in nested))
        ends = (*(start for start, _ in nested), len(self.text))
        return b"{}".join(self.text[start:end] for start, end in zip(starts, ends, strict=True))


@dataclass(frozen=True, slots=True)
class CutBatch:
    """The texts of the items, and of the batch with an empty list in their place."""

    frame: bytes
    items: tuple[CutItem, ...]


def cut_batch(body: bytes, max_items: int) -> Iterator[CutBatch | None]:
    """Cuts a body; the last value is the result, and None comes after every millisecond or so of work before it.

    InvalidInput for an element of `items` that is no object, and for too many. Whether the texts are JSON is for who
    reads them to find.
    """
    cutter = _Cutter(body, max_items)
    num_steps = 0
    while not cutter.is_done:
        num_steps += _MARKS_OF_ITEM if cutter.take_ordinary_item() else cutter.take_mark()
        if num_steps >= _STEP:
            num_steps = 0
            yield None
    yield cutter.result()


def _marks(text: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of every string, and of every bracket outside of strings."""
    at = 0
    while mark := _find_mark(text, at):
        yield mark
        at = mark[1]


def _find_mark(text: bytes, at: int) -> tuple[int, int] | None:
    """Start and end of the next one."""
    found = _MARK.search(text, at)
    if found is None:
        return None
    start, end = found.span()
    return start, _find_end_of_string(text, end) if text[start] == _QUOTE else end


def _find_nested(text: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each object or list that is a value of the fields of an item."""
    depth = begin = 0
    for start, end in _marks(text):
        if text[start] in _OPENING:
            depth += 1
            begin = start if depth == 2 else begin
        elif text[start] != _QUOTE:
            depth -= 1
            if depth == 1:
                yield begin, end


def _find_end_of_string(text: bytes, at: int) -> int:
    """The position behind the closing quote of the string whose characters begin at `at`."""
    while (quote := text.find(b'"', at)) >= 0:
        before = quote
        while before > at and text[before - 1] == _BACKSLASH:
            before -= 1
        at = quote + 1
        if (quote - before) % 2 == 0:
            return at
    return len(text)


class _Cutter:
    """Follows the marks of a body, given in order. In `{"items": [{"id": …}]}` an item's fields are at depth 3."""

    def __init__(self, body: bytes, max_items: int) -> None:
        self._body = body
        self._max_items = max_items
        self._depth = 0
        self._last_string = (0, 0)
        self._list_start: int | None = None
        self._list_end: int | None = None
        self._items: list[CutItem] = []
        self._nested: list[int] = []
        self._from = 0  # of the item, or of the gap before it
        self._at = 0
        self.is_done = False

    @property
    def _is_in_list(self) -> bool:
        return self._list_start is not None and self._list_end is None

    def take_ordinary_item(self) -> bool:
        """Takes the next item at once, if one comes next, and is short and not deep."""
        if self._depth != 2 or not self._is_in_list:
            return False
        found = _ORDINARY_ITEM.match(self._body, self._at, self._at + _MAX_ORDINARY)
        if found is None or bool(found[1]) != bool(self._items):
            return False
        self._from, self._at = found.span(2)
        self._end_item(self._at, None)
        return True

    def take_mark(self) -> int:
        """Takes the next mark; returns how many that were."""
        mark = _find_mark(self._body, self._at)
        if mark is None:
            self.is_done = True
            return 0
        self._at = mark[1]
        self._take(*mark)
        return 1

    def _take(self, start: int, end: int) -> None:
        mark = self._body[start]
        in_list = self._is_in_list
        if in_list and self._depth == 2:
            self._take_between_items(mark, start)
        if mark == _QUOTE:
            self._last_string = (start, end)
        elif mark in _OPENING:
            if self._depth == 1 and self._begins_items(mark, start):
                self._list_start = self._from = end
            elif in_list and self._depth == 3:
                self._nested.append(start - self._from)
            self._depth += 1
        else:
            self._depth -= 1
            if in_list and self._depth == 3:
                self._nested.append(end - self._from)
            elif in_list and self._depth == 2:
                self._end_item(end, tuple(zip(self._nested[::2], self._nested[1::2], strict=True)))

    def _begins_items(self, mark: int, at: int) -> bool:
        start, end = self._last_string
        if mark != ord("[") or self._body[start:end] != b'"items"' or self._body[end:at].strip() != b":":
            return False
        if self._list_start is not None:
            raise InvalidInput("the batch has `items` twice; send one list")
        return True

    def _take_between_items(self, mark: int, start: int) -> None:
        """A new item or the list's end; between two items stands a comma and nothing else."""
        is_end = mark == ord("]")
        wanted = b"," if self._items and not is_end else b""
        if (mark != ord("{") and not is_end) or self._body[self._from : start].strip() != wanted:
            raise InvalidInput(f"items[{len(self._items)}] is no object with id, kind, response and answer_key")
        self._from = start
        if is_end:
            self._list_end = start

    def _end_item(self, end: int, nested: tuple[tuple[int, int], ...] | None) -> None:
        if len(self._items) == self._max_items:
            raise InvalidInput(f"the batch has more than {self._max_items} items; send several batches")
        self._items.append(CutItem(self._body[self._from : end], nested))
        self._nested.clear()
        self._from = end

    def result(self) -> CutBatch:
        if self._list_end is None:  # it has no such list, or ends within it, which reading the frame shows
            return CutBatch(self._body if self._list_start is None else b"", ())
        return CutBatch(self._body[: self._list_start] + self._body[self._list_end :], tuple(self._items))
