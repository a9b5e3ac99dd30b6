"""Forms of several values: each ± as two of them, and n = 1, 2, 3 as three."""

from fractions import Fraction
from itertools import product

from services.verifier.checks.math.comparing.assignments import is_equation, read_assignment
from services.verifier.checks.math.reading.arithmetic import negate
from services.verifier.checks.math.reading.forms import (
    Bracket,
    Congruence,
    FiniteSet,
    Form,
    Number,
    PlusMinus,
    Product,
    Relation,
    Sum,
    ValueList,
    children,
)

_MAX_SIGNS = 4  # independent ± in one point


def expand(form: Form) -> Form:
    """The form with each ± as two values, and with n = 1, 2, 3 as three values."""
    match form:
        case ValueList(items, joined_by_or):
            return _drop_name(_expand_items(items), joined_by_or)
        case FiniteSet(items):
            return FiniteSet(_expand_items(items))
        case _:
            branches = _branches(form)
            return form if len(branches) == 1 else ValueList(branches)


def _drop_name(items: tuple[Form, ...], joined_by_or: bool) -> ValueList:
    first, *rest = items
    if isinstance(first, Relation) and is_equation(first) and not any(isinstance(item, Relation) for item in rest):
        value = read_assignment(first)
        return ValueList((value.value if value and value.name else first, *rest))
    return ValueList(items, joined_by_or)


def leading_name(form: Form) -> Form | None:
    """n of n = 1, 2, 3; None for other lists."""
    match form:
        case ValueList((Relation() as first, *rest)) if is_equation(first):
            value = None if any(isinstance(item, Relation) for item in rest) else read_assignment(first)
            return value.name if value else None
        case _:
            return None


def _expand_items(items: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(branch for item in items for branch in _branches(item))


def _branches(form: Form) -> tuple[Form, ...]:
    """The two values of a form with ±, else the form itself."""
    match form:
        case PlusMinus(left, right, minus_first):
            pair = (_plus(left, right), _plus(left, negate(right)))
            return pair[::-1] if minus_first else pair
        case Sum(parts) | Product(parts):
            split = [_branches(part) for part in parts]
            if all(len(branches) == 1 for branches in split):
                return (form,)
            return tuple(type(form)(tuple(b[min(i, len(b) - 1)] for b in split)) for i in (0, 1))
        case Relation(sides, relators) if is_equation(form):
            values = _branches(sides[-1])
            return tuple(Relation((*sides[:-1], value), relators) for value in values)
        case Congruence(left, right, modulus):
            return tuple(Congruence(left, value, modulus) for value in _branches(right))
        case Bracket(opening, closing, items):
            return tuple(Bracket(opening, closing, point) for point in _points(items))
        case _:
            return (form,)


def _plus(left: Form, right: Form) -> Form:
    return right if left == Number(Fraction(0)) else Sum((left, right))


def _points(items: tuple[Form, ...]) -> list[tuple[Form, ...]]:
    """The points of (±1, ±2), whose signs are independent, and of (±1, ∓2), whose signs belong together."""
    split = [_branches(item) for item in items]
    if all(len(branches) == 1 for branches in split):
        return [items]
    signs = [_minus_first(item) for item, branches in zip(items, split, strict=True) if len(branches) > 1]
    if len(set(signs)) > 1:
        return [tuple(b[min(at, len(b) - 1)] for b in split) for at in (0, 1)]
    return list(product(*split)) if len(signs) <= _MAX_SIGNS else [items]


def _minus_first(form: Form) -> bool:
    return any(isinstance(part, PlusMinus) and part.minus_first for part in (form, *children(form)))
