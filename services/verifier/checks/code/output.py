"""Compares a program's output with the expected output."""

import re
from decimal import Decimal

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_WORDS = re.compile(rb"([ \t]+)")
_MAX_DIGITS = 400
_RELATIVE = Decimal("1e-6")
_FINEST = Decimal("1e-9")


def outputs_match(printed: bytes, expected: bytes) -> bool:
    """Compares line by line; white space at the end of lines and empty lines at the end do not count.

    If an expected word has a decimal point or an exponent, a printed number matches it within half of its last
    written digit, but at least within 1e-9 and at most within 1e-6 of its value.
    """
    ours, theirs = _split_lines(printed), _split_lines(expected)
    return len(ours) == len(theirs) and all(map(_lines_match, ours, theirs))


def _split_lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _lines_match(printed: bytes, expected: bytes) -> bool:
    if printed == expected:
        return True
    if b"." not in expected and b"e" not in expected.lower():
        return False
    ours, theirs = _WORDS.split(printed), _WORDS.split(expected)
    return len(ours) == len(theirs) and all(map(_words_match, ours, theirs))


def _words_match(printed: bytes, expected: bytes) -> bool:
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
