"""Builds forms for the parsers. Only literals are computed: sums and products of numbers stay as written."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from services.verifier.checks.math.reading.forms import (
    Congruence,
    Form,
    Number,
    Numeral,
    PlusMinus,
    Power,
    Product,
    Relation,
    Relator,
    Scientific,
    Sum,
    UnreadableAnswer,
)
from services.verifier.checks.math.reading.number import times_power_of_ten

_MINUS_ONE = Number(Fraction(-1))
_CONGRUENT = frozenset({Relator.EQUIVALENT, Relator.EQUAL})
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def negate(form: Form) -> Form:
    match form:
        case Number(value):
            return Number(-value)
        case Scientific(coefficient, exponent):
            return Scientific(-coefficient, exponent)
        case Product((Number(value), *rest)):
            return Product((Number(-value), *rest))
        case _:
            return Product((_MINUS_ONE, form))


def terms_of(form: Form) -> tuple[Form, ...]:
    """The terms of a sum, or the form itself as the only one."""
    return form.terms if isinstance(form, Sum) else (form,)


def _factors(form: Form) -> tuple[Form, ...]:
    return form.factors if isinstance(form, Product) else (form,)


def multiply(left: Form, right: Form) -> Form:
    return Product((*_factors(left), *_factors(right)))


def divide(left: Form, right: Form) -> Form:
    """left / right; a Number if both are, because a fraction is a literal."""
    if isinstance(right, Number):
        if right.value == 0:
            raise UnreadableAnswer("a division by zero")
        if isinstance(left, Number):
            return Number(left.value / right.value)
        return multiply(Number(1 / right.value), left)
    return multiply(left, Power(right, _MINUS_ONE))


def scale(form: Form, factor: Fraction | int) -> Form:
    """factor · form, for values in thousands, or in other units."""
    return Number(form.value * factor) if isinstance(form, Number) else multiply(Number(Fraction(factor)), form)


def scientific(digits: str, exponent: str) -> Form:
    """digits · 10^exponent; `digits` may have a decimal point. Raises UnreadableAnswer."""
    whole, _, decimals = digits.partition(".")
    found = times_power_of_ten(int(whole + decimals), exponent, len(decimals))
    if found is None:
        raise UnreadableAnswer("an exponent too long to compare")
    return found


def in_base(digits: str, base: Form) -> Form:
    """The numeral 101_2. Raises UnreadableAnswer for digits or bases that do not exist."""
    if not isinstance(base, Number) or not 2 <= base.value <= 36 or base.value.denominator != 1:
        raise UnreadableAnswer("a base that is no integer from 2 to 36")
    allowed = _DIGITS[: int(base.value)]
    if not digits or any(digit not in allowed for digit in digits.casefold()):
        raise UnreadableAnswer(f"{digits!r} has digits beyond its base")
    return Numeral(digits.casefold().lstrip("0") or "0", int(base.value))


def to_congruence(before: Form, modulus: Form) -> Congruence:
    """x = 3 (mod 7), or 3 (mod 7) alone. Raises UnreadableAnswer for other relations."""
    if not isinstance(before, Relation):
        return Congruence(None, before, modulus)
    if not set(before.relators) <= _CONGRUENT:
        raise UnreadableAnswer("a modulus behind what is no congruence")
    return Congruence(before.sides[0], before.sides[-1], modulus)


def share_modulus(items: Sequence[Form]) -> tuple[Form, ...]:
    """x = 1, 3 (mod 8): the modulus belongs to all before it, and the name to all behind it."""
    if not any(isinstance(item, Congruence | Relation) for item in items):
        return tuple(items)
    found, modulus = list(items), None
    for at in reversed(range(len(found))):
        item = found[at]
        if isinstance(item, Congruence):
            modulus = item.modulus
        elif isinstance(item, Relation) and Relator.EQUIVALENT in item.relators:
            found[at] = _to_equation(item) if modulus is None else to_congruence(item, modulus)
        elif modulus is not None and isinstance(item, Number | PlusMinus):
            found[at] = Congruence(None, item, modulus)
    left = None
    for at, item in enumerate(found):
        if isinstance(item, Congruence):
            found[at] = item = replace(item, left=item.left or left)
            left = item.left
    return tuple(found)


def _to_equation(relation: Relation) -> Relation:
    """Without a modulus, the sign says that both sides are identical."""
    relators = (Relator.EQUAL if relator is Relator.EQUIVALENT else relator for relator in relation.relators)
    return replace(relation, relators=tuple(relators))
