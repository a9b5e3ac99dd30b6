"""The exact rational values of forms, unless they are too long."""

import math
from fractions import Fraction

from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, Product, Sum

_MAX_BITS = 20_000
_MAX_FACTORIAL = 1_500


def exact_value(form: Form) -> Fraction | None:
    """The value; None if it is not rational, too long, or not computed here."""
    match form:
        case Number(value):
            return value
        case Sum(terms):
            return _fold(terms, Fraction(0), is_sum=True)
        case Product(factors):
            return _fold(factors, Fraction(1), is_sum=False)
        case Power(base, exponent):
            return _power(exact_value(base), exact_value(exponent))
        case Apply(name, arguments):
            return _apply(name, [exact_value(argument) for argument in arguments])
        case _:
            return None


def _fold(parts: tuple[Form, ...], start: Fraction, *, is_sum: bool) -> Fraction | None:
    total = start
    for part in parts:
        value = exact_value(part)
        if value is None:
            return None
        total = total + value if is_sum else total * value
        if _bits(total) > _MAX_BITS:
            return None
    return total


def _power(base: Fraction | None, exponent: Fraction | None) -> Fraction | None:
    if base is None or exponent is None:
        return None
    root = exponent.denominator
    if root != 1:
        if root > 64 or base < 0:
            return None
        base = _root(base, root)
        if base is None:
            return None
    power = exponent.numerator
    if (base == 0 and power <= 0) or abs(power) * _bits(base) > _MAX_BITS:
        return None
    return base**power


def _root(value: Fraction, degree: int) -> Fraction | None:
    over, under = _integer_root(value.numerator, degree), _integer_root(value.denominator, degree)
    return Fraction(over, under) if over is not None and under is not None else None


def _integer_root(value: int, degree: int) -> int | None:
    if value < 2:
        return value
    root = 1 << (value.bit_length() // degree + 1)  # above the root, from where Newton's steps fall
    while (lower := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
        root = lower
    return root if root**degree == value else None


def _apply(name: str, arguments: list[Fraction | None]) -> Fraction | None:
    values = [value for value in arguments if value is not None]
    if len(values) != len(arguments):
        return None
    match name, values:
        case "abs", [value]:
            return abs(value)
        case "floor", [value]:
            return Fraction(math.floor(value))
        case "ceil", [value]:
            return Fraction(math.ceil(value))
        case "factorial", [value] if value.denominator == 1 and 0 <= value <= _MAX_FACTORIAL:
            return Fraction(math.factorial(int(value)))
        case "double factorial", [value] if value.denominator == 1 and 0 <= value <= _MAX_FACTORIAL:
            return Fraction(math.prod(range(int(value), 0, -2)))
        case "binom", [n, k] if n.denominator == k.denominator == 1 and 0 <= k <= n <= _MAX_FACTORIAL:
            return Fraction(math.comb(int(n), int(k)))
        case _:
            return None


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()
