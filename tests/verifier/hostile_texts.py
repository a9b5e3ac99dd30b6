"""Texts that make a pattern or parser slow, made from its own fragments: long runs, nestings, near misses."""

import re
from collections.abc import Iterator, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_OF_CATEGORY = {op.CATEGORY_DIGIT: "1", op.CATEGORY_SPACE: " ", op.CATEGORY_WORD: "a"}
_COMMON = (" ", "\n", "a", "1")
_MAX_FRAGMENTS = 12
NEAR_MISS = "\x00"


def fragments_of(pattern: re.Pattern[Any]) -> tuple[str, ...]:
    """The literals of a pattern, a character of each of its classes, and common ones."""
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    found = dict.fromkeys(_COMMON)
    found.update(dict.fromkeys(_read(parser.parse(source, pattern.flags & ~re.UNICODE & ~re.DEBUG))))
    return tuple(sorted(filter(None, found), key=len)[:_MAX_FRAGMENTS])


def _read(nodes: Any) -> Iterator[str]:
    literal = ""
    for code, value in nodes:
        if code is op.LITERAL:
            literal += chr(value)
            continue
        if literal:
            yield literal
            literal = ""
        yield from _read_node(code, value)
    if literal:
        yield literal


def _read_node(code: Any, value: Any) -> Iterator[str]:
    if code is op.IN:
        yield from filter(None, map(_character_of, value[:4]))
    elif code is op.NOT_LITERAL or code is op.ANY:
        yield "x"
    elif code is op.BRANCH:
        for branch in value[1]:
            yield from _read(branch)
    elif code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        yield from _read(value[2])
    elif code in (op.ASSERT, op.ASSERT_NOT):
        yield from _read(value[1])
    elif code is op.SUBPATTERN:
        yield from _read(value[3])
    elif code is op.ATOMIC_GROUP:
        yield from _read(value)


def _character_of(item: Any) -> str:
    code, value = item
    if code is op.LITERAL:
        return chr(value)
    if code is op.RANGE:
        return chr(value[0])
    return _OF_CATEGORY.get(value, "")


def families(fragments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what comes once, what is repeated behind it) for texts that end in a near miss."""
    for run in fragments:
        for before in ("", *fragments):
            yield before, run
    for first in fragments:
        for second in fragments:
            if first != second:
                yield "", first + second


def text_of(family: tuple[str, str], length: int, after: str = NEAR_MISS) -> str:
    """The family's member of about this length."""
    before, run = family
    return before + run * (length // len(run)) + after
