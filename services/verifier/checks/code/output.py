"""Compares a program's output with the expected output."""

import re
from decimal import Decimal
from enum import StrEnum
from itertools import zip_longest

_NUMBER = re.compile(rb"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d{1,3})?")
_LINE = re.compile(rb"[^\n]*+(?:\n|\Z)")
_WORD = re.compile(rb"\S++")
_WORD_OR_SPACE = re.compile(rb"[ \t]++|[^ \t]++")
_MAX_DIGITS = 400
_RELATIVE = Decimal("1e-6")
_FINEST = Decimal("1e-9")


class Whitespace(StrEnum):
    """What white space counts when outputs are compared."""

    LINES = "lines"
    """All but that at the end of lines, and empty lines at the end."""
    WORDS = "words"
    """None: only the words count."""
    EXACT = "exact"
    """All: every byte."""


def outputs_match(
    printed: bytes, expected: bytes, whitespace: Whitespace = Whitespace.LINES, tolerance: float | None = None
) -> bool:
    """Compares line by line, or word by word.

    If an expected word has a decimal point or an exponent, a printed number matches it within half of its last
    written digit, but at least within 1e-9 and at most within 1e-6 of its value. With a `tolerance`, numbers match
    within that, absolute, and relative above 1; integers as well.
    """
    if whitespace is Whitespace.EXACT:
        return printed == expected
    if whitespace is Whitespace.WORDS:
        return _pieces_match(_WORD, printed, expected, tolerance)
    printed, expected = printed.rstrip(), expected.rstrip()
    if printed.count(b"\n") != expected.count(b"\n"):
        return False
    lines = zip(_LINE.finditer(printed), _LINE.finditer(expected), strict=True)
    return all(_lines_match(ours[0], theirs[0], tolerance) for ours, theirs in lines)


def _lines_match(printed: bytes, expected: bytes, tolerance: float | None) -> bool:
    printed, expected = printed.rstrip(), expected.rstrip()
    if printed == expected:
        return True
    if tolerance is None and b"." not in expected and b"e" not in expected.lower():
        return False
    return _pieces_match(_WORD_OR_SPACE, printed, expected, tolerance)


def _pieces_match(piece: re.Pattern[bytes], printed: bytes, expected: bytes, tolerance: float | None) -> bool:
    """Compares piece by piece: to split what a program may print would hold up all other threads."""
    pairs = zip_longest(piece.finditer(printed), piece.finditer(expected))
    return all(ours and theirs and _words_match(ours[0], theirs[0], tolerance) for ours, theirs in pairs)


def _words_match(printed: bytes, expected: bytes, tolerance: float | None) -> bool:
    if printed == expected:
        return True
    is_number = _is_number(expected) and (tolerance is not None or b"." in expected or b"e" in expected.lower())
    if not is_number or not _is_number(printed):
        return False
    value, gold = Decimal(printed.decode()), Decimal(expected.decode())
    if tolerance is not None:
        return abs(value - gold) <= Decimal(tolerance) * max(Decimal(1), abs(gold))
    exponent = gold.as_tuple().exponent
    half_place = Decimal(5).scaleb(int(exponent) - 1)
    return abs(value - gold) <= min(max(half_place, _FINEST * abs(gold)), _RELATIVE * max(Decimal(1), abs(gold)))


def _is_number(word: bytes) -> bool:
    return len(word) <= _MAX_DIGITS and _NUMBER.fullmatch(word) is not None
