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
    printed, expected = printed.rstrip(), expected.rstrip()
    if printed.count(b"\n") != expected.count(b"\n"):  # before the split: a program may print millions of lines
        return False
    return all(map(_lines_match, printed.split(b"\n"), expected.split(b"\n")))


def _lines_match(printed: bytes, expected: bytes) -> bool:
    printed, expected = printed.rstrip(), expected.rstrip()
    if printed == expected:
        return True
    if b"." not in expected and b"e" not in expected.lower():
        return False
    theirs = _WORDS.split(expected)
    ours = _WORDS.split(printed, maxsplit=len(theirs))  # one more than it needs
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
