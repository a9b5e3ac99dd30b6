"""Compares what a program printed with what it should have printed."""

import re
from decimal import Decimal

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_WORDS = re.compile(rb"([ \t]+)")
_MAX_DIGITS = 400
_RELATIVE = Decimal("1e-6")
_FINEST = Decimal("1e-9")


def outputs_match(printed: bytes, expected: bytes) -> bool:
    """Line by line; ends of lines and empty lines at the end do not count.

    Two words also agree when the expected one is written with a decimal point or exponent and the printed one is the
    same number: within half of the last place written, at most 1e-6 and at least 1e-9 of it.
    """
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_line(printed: bytes, expected: bytes) -> bool:
    if printed == expected:
        return True
    if b"." not in expected and b"e" not in expected.lower():
        return False
    ours, theirs = _WORDS.split(printed), _WORDS.split(expected)
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(printed: bytes, expected: bytes) -> bool:
    if printed == expected:
        return True
    if not _is_decimal(expected) or len(printed) > _MAX_DIGITS or not _NUMBER.fullmatch(printed):
        return False
    value, gold = Decimal(printed.decode()), Decimal(expected.decode())
    exponent = gold.as_tuple().exponent
    half_place = Decimal(5).scaleb(int(exponent) - 1)
    tolerance = min(max(half_place, _FINEST * abs(gold)), _RELATIVE * max(Decimal(1), abs(gold)))
    return abs(value - gold) <= tolerance


def _is_decimal(word: bytes) -> bool:
    has_point = b"." in word or b"e" in word.lower()
    return has_point and len(word) <= _MAX_DIGITS and _NUMBER.fullmatch(word) is not None
