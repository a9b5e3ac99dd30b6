"""Puts forms together as the parser reads them: only literals fold, sums and products of numbers stay as written."""

from fractions import Fraction

from services.verifier.checks.math.reading.forms import Based, Form, Number, Power, Product, Scientific, Sum
from services.verifier.checks.math.reading.number import scaled
from services.verifier.checks.math.reading.unreadable import TooDeep, Unreadable

_MINUS_ONE = Number(Fraction(-1))
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def negative(form: Form) -> Form:
    """-form."""
    match form:
        case Number(value):
            return Number(-value)
        case Scientific(coefficient, exponent):
            return Scientific(-coefficient, exponent)
        case Product((Number(value), *rest)):
            return Product((Number(-value), *rest))
        case _:
            return Product((_MINUS_ONE, form))


def terms(form: Form) -> tuple[Form, ...]:
    """The terms of a sum; anything else is its own only term."""
    return form.terms if isinstance(form, Sum) else (form,)


def _factors(form: Form) -> tuple[Form, ...]:
    return form.factors if isinstance(form, Product) else (form,)


def times(left: Form, right: Form) -> Form:
    """left · right."""
    return Product((*_factors(left), *_factors(right)))


def over(left: Form, right: Form) -> Form:
    """left / right: a number when both are, for a fraction is one."""
    if isinstance(right, Number):
        if right.value == 0:
            raise Unreadable("a division by zero")
        if isinstance(left, Number):
            return Number(left.value / right.value)
        return times(Number(1 / right.value), left)
    return times(left, Power(right, _MINUS_ONE))


def scaled_by(form: Form, factor: int) -> Form:
    """A value in thousands or millions."""
    return Number(form.value * factor) if isinstance(form, Number) else times(Number(Fraction(factor)), form)


def power_of_ten(digits: str, exponent: str) -> Form:
    """digits · 10^exponent, where digits may have a decimal point."""
    whole, _, decimals = digits.partition(".")
    found = scaled(int(whole + decimals), exponent, len(decimals))
    if found is None:
        raise TooDeep("an exponent too long to compare")
    return found


def based(digits: str, base: Form) -> Form:
    """Digits in a base: 101_2."""
    if not isinstance(base, Number) or not 2 <= base.value <= 36 or base.value.denominator != 1:
        raise Unreadable("a base that is no integer from 2 to 36")
    allowed = _DIGITS[: int(base.value)]
    if not digits or any(digit not in allowed for digit in digits.casefold()):
        raise Unreadable(f"{digits!r} has digits beyond its base")
    return Based(digits.casefold().lstrip("0") or "0", int(base.value))
