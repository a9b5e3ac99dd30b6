"""Reads numbers and what belongs to them: bases, mixed fractions, powers of ten, and 10C3."""

from collections.abc import Callable
from fractions import Fraction

from services.verifier.checks.math.reading.arithmetic import in_base, multiply, scientific
from services.verifier.checks.math.reading.cursor import TokenCursor
from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, UnreadableAnswer
from services.verifier.checks.math.reading.number import MAX_DIGITS
from services.verifier.checks.math.reading.tokens import Token, TokenKind

_TEN = Number(Fraction(10))


def read_number(
    cursor: TokenCursor, token: Token, read_group: Callable[[], Form], read_fraction: Callable[[], Form]
) -> Form:
    """The number that begins with `token`, which is read already. Raises UnreadableAnswer."""
    if len(token.text) > MAX_DIGITS:
        raise UnreadableAnswer("a number too long to compare")
    number = Number(Fraction(token.text))
    if cursor.accept("_"):
        return in_base(token.text, read_group())
    following = cursor.peek()
    if following.text == "\\frac" and token.text.isdigit():
        cursor.next()
        part = read_fraction()
        if not isinstance(part, Number) or part.value < 0:
            return multiply(number, part)
        return Number(number.value + part.value)
    if following.kind is TokenKind.NUMBER:
        return Number(number.value + _fraction_behind(cursor, token))
    if following.text == "C" and not following.after_space and _is_integer(cursor.peek(1)):
        cursor.at += 2
        return Apply("binom", (number, Number(Fraction(cursor.peek(-1).text))))
    return _times_power_of_ten(cursor, number, token.text, read_group)


def _fraction_behind(cursor: TokenCursor, whole: Token) -> Fraction:
    """The 1/3 of 2 1/3: whole numbers, and a fraction below one. Raises UnreadableAnswer for `1 2`."""
    over, slash, under = (cursor.peek(ahead) for ahead in range(3))
    is_fraction = all(part.text.isdigit() for part in (whole, over, under)) and slash.text == "/"
    is_short = is_fraction and len(over.text) <= len(under.text) <= MAX_DIGITS
    if not is_short or not over.after_space or not 0 < int(over.text) < int(under.text):
        raise UnreadableAnswer("two numbers side by side")
    cursor.at += 3
    if cursor.is_at("^", "!"):
        raise UnreadableAnswer("a power of a part of a number")
    return Fraction(int(over.text), int(under.text))


def _is_integer(token: Token) -> bool:
    return token.kind is TokenKind.NUMBER and token.text.isdigit() and not token.after_space


def _times_power_of_ten(cursor: TokenCursor, number: Number, digits: str, read_group: Callable[[], Form]) -> Form:
    r"""The number, times a power of ten that follows it: 1.6 \times 10^{-19}, 5e-7."""
    e = cursor.peek()
    if e.kind is TokenKind.WORD and e.text in ("e", "E") and not e.after_space:
        sign = 1 if cursor.peek(1).text in ("-", "+") else 0
        if _is_integer(exponent := cursor.peek(1 + sign)):
            cursor.at += 2 + sign
            return scientific(digits, (cursor.peek(-2).text if sign else "") + exponent.text)
    if cursor.is_at("\\times", "\\cdot", "*") and cursor.peek(1).text == "10" and cursor.peek(2).text == "^":
        cursor.at += 3
        exponent_form = read_group()
        if isinstance(exponent_form, Number) and exponent_form.value.denominator == 1:
            return scientific(digits, str(exponent_form.value))
        return multiply(number, Power(_TEN, exponent_form))
    return number
