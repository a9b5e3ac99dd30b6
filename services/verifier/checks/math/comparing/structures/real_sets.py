"""Compares sets of real numbers: intervals, unions, {x | x < 2}, x ≠ 2, by the points between their ends."""

from collections.abc import Callable, Iterator
from functools import cmp_to_key
from typing import TypeAlias

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.evaluation import Unevaluable
from services.verifier.checks.math.comparing.functions import Value
from services.verifier.checks.math.comparing.numeric_value import SamplePoint, are_close
from services.verifier.checks.math.comparing.relations import ORDERS
from services.verifier.checks.math.comparing.scalars import is_constant
from services.verifier.checks.math.reading.arithmetic import negate
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Bracket,
    FiniteSet,
    Form,
    Number,
    Product,
    Relation,
    Relator,
    SetBuilder,
    SetOperation,
    Sum,
    Symbol,
    Text,
    ValueList,
)
from services.verifier.checks.math.reading.tokens import normalize_words

_INFINITY = Symbol("infty")
_REALS = Symbol("mathbb R")
_MAX_ENDS = 100
_SETS = FiniteSet | SetOperation | SetBuilder
_INEQUALITIES = frozenset({Relator.UNEQUAL, *ORDERS})
_WORDS: dict[str, Form] = {
    **dict.fromkeys(map(normalize_words, ("all real numbers", "all reals", "real numbers", "any real number")), _REALS),
    **dict.fromkeys(
        map(normalize_words, ("no solution", "no solutions", "no real solution", "no real solutions", "empty set")),
        FiniteSet(()),
    ),
}
# Whether a point is in a set: even numbers are ends, odd ones the gaps between them.
_Membership: TypeAlias = Callable[[int], bool]


class _NoRealSet(ValueError):
    """The form is no set of real numbers, or none with constant ends."""


def compare_real_sets(gold: Form, answer: Form) -> Equivalence | None:
    """None if one of them is no set of real numbers, or if both are intervals, points or lists as they stand.

    An inequality is no answer to a gold of the form x in [0, 1], which asks for a set.
    """
    are_words = isinstance(gold, Text) and isinstance(answer, Text)
    asks_for_set = _is_inequality(answer) and isinstance(gold, Relation) and not _is_inequality(gold)
    if are_words or asks_for_set or not (_is_described(gold) or _is_described(answer)):
        return None
    gold, answer = _difference(gold) or gold, _difference(answer) or answer
    try:
        names = {*_variables(gold), *_variables(answer)}
        if len(names) > 1:
            return None
        ends = _Ends([*_end_forms(gold), *_end_forms(answer)])
        in_gold, in_answer = _membership(gold, ends), _membership(answer, ends)
    except (_NoRealSet, Unevaluable):
        return None
    return Equivalence.of(all(in_gold(point) == in_answer(point) for point in ends.points))


def _is_described(form: Form) -> bool:
    """Whether it is a set that may be described in different ways."""
    match form:
        case SetOperation() | SetBuilder():
            return True
        case Text(words):
            return normalize_words(words) in _WORDS
        case Relation(_, (Relator.IN,)):
            return True
        case Sum():
            return _difference(form) is not None
        case _:
            return form == _REALS or _is_inequality(form)


def _is_inequality(form: Form) -> bool:
    match form:
        case Relation(_, relators):
            return _INEQUALITIES.issuperset(relators)
        case ValueList(items, _):
            return any(map(_is_inequality, items)) and all(_is_inequality(i) or _is_one_point(i) for i in items)
        case _:
            return False


def _is_one_point(form: Form) -> bool:
    """x = 2, beside inequalities"""
    return isinstance(form, Relation) and form.relators == (Relator.EQUAL,) and isinstance(form.sides[0], Symbol)


def _difference(form: Form) -> SetOperation | None:
    """A - B as A without B; None if it is no difference of sets."""
    match form:
        case Sum((left, Product((Number(value), right)))) if value == -1 and isinstance(right, _SETS):
            return SetOperation("setminus", (left, right))
        case _:
            return None


class _Ends:
    """The ends of both sets in order; equal ones are one."""

    def __init__(self, forms: list[Form]) -> None:
        if len(forms) > _MAX_ENDS:
            raise _NoRealSet
        values: dict[Form, Value] = {form: SamplePoint(0).evaluate(form) for form in forms}
        if any(getattr(value, "imag", 0) != 0 for value in values.values()):
            raise _NoRealSet
        self._ranks: dict[Form, int] = {}
        rank, last = -1, None

        def compare_values(one: Form, other: Form) -> int:
            return int(values[one] > values[other]) - int(values[one] < values[other])

        for form in sorted(values, key=cmp_to_key(compare_values)):
            value = values[form]
            if last is None or not are_close(last, value):
                rank += 1
            self._ranks[form], last = 2 * rank, value
        self.points = range(-1, 2 * rank + 2)

    def rank(self, form: Form) -> int:
        """The position of an end; infinities are beyond all points."""
        if form == _INFINITY:
            return self.points.stop
        return self.points.start - 1 if form == negate(_INFINITY) else self._ranks[form]


def _is_end(form: Form) -> bool:
    if form in (_INFINITY, negate(_INFINITY)):
        return False
    if not isinstance(form, SCALARS) or not is_constant(form):
        raise _NoRealSet
    return True


def _end_forms(form: Form) -> Iterator[Form]:
    match form:
        case Bracket(_, _, items) | FiniteSet(items):
            yield from filter(_is_end, items)
        case SetOperation(_, parts) | ValueList(parts, _):
            for part in parts:
                yield from _end_forms(part)
        case SetBuilder(element, condition):
            yield from _end_forms(condition)
            if isinstance(element, Relation):
                yield from _end_forms(element)
        case Relation(sides, relators) if relators == (Relator.IN,):
            yield from _end_forms(sides[1])
        case Relation(sides, _):
            yield from (side for side in sides if not isinstance(side, Symbol) and _is_end(side))
        case Text(words) if normalize_words(words) in _WORDS:
            return
        case Symbol() if form == _REALS:
            return
        case _:
            raise _NoRealSet


def _variables(form: Form) -> Iterator[str]:
    """The names of the variables that inequalities are about; a set's own does not count."""
    match form:
        case Relation((variable, _), (Relator.IN,)):
            if not isinstance(variable, Symbol):
                raise _NoRealSet
            yield variable.name
        case Relation(sides, _):
            yield from (side.name for side in sides if isinstance(side, Symbol) and side != _INFINITY)
        case ValueList(items, _):
            for item in items:
                yield from _variables(item)
        case SetBuilder(element, condition):
            names = {*_variables(condition), *([element.name] if isinstance(element, Symbol) else _variables(element))}
            if len(names) != 1:
                raise _NoRealSet
        case _:
            return


def _membership(form: Form, ends: _Ends) -> _Membership:
    match form:
        case Bracket(opening, closing, (low, high)) if opening in "([" and closing in ")]":
            return _between(ends.rank(low), opening == "[", ends.rank(high), closing == "]", ends)
        case FiniteSet(items):
            ranks = {ends.rank(item) for item in items}
            return lambda point: point in ranks
        case SetOperation(name, sets):
            return _combine(name, [_membership(part, ends) for part in sets])
        case SetBuilder(element, condition):
            parts = [condition, *([element] if isinstance(element, Relation) else [])]
            return _combine("cap", [_membership(part, ends) for part in parts])
        case ValueList(items, joined_by_or):
            memberships = [_membership(item, ends) for item in items]
            both = _combine("cap", memberships)  # if nothing is in both, "x < 1, x > 3" means either
            return _combine("cup", memberships) if joined_by_or or not any(map(both, ends.points)) else both
        case Relation(sides, relators):
            return _relation(sides, relators, ends)
        case Text(words):
            return _membership(_WORDS[normalize_words(words)], ends)
        case Symbol() if form == _REALS:
            return lambda point: True
        case _:
            raise _NoRealSet


def _relation(sides: tuple[Form, ...], relators: tuple[Relator, ...], ends: _Ends) -> _Membership:
    if relators == (Relator.IN,):
        return _membership(sides[1], ends)
    found = []
    for left, relator, right in zip(sides, relators, sides[1:], strict=False):
        is_left = isinstance(left, Symbol) and left != _INFINITY
        end = ends.rank(right if is_left else left)
        if is_left == (isinstance(right, Symbol) and right != _INFINITY):
            raise _NoRealSet
        if relator is Relator.EQUAL:
            found.append(_equal(end))
        elif relator is Relator.UNEQUAL:
            found.append(_unequal(end))
        elif relator in ORDERS:
            left_is_smaller, is_closed = ORDERS[relator]
            found.append(_beside(end, is_below=left_is_smaller == is_left, is_closed=is_closed))
        else:
            raise _NoRealSet
    return _combine("cap", found)


def _equal(end: int) -> _Membership:
    return lambda point: point == end


def _unequal(end: int) -> _Membership:
    return lambda point: point != end


def _beside(end: int, *, is_below: bool, is_closed: bool) -> _Membership:
    return lambda point: (point == end and is_closed) or (point < end if is_below else point > end)


def _between(low: int, low_closed: bool, high: int, high_closed: bool, ends: _Ends) -> _Membership:
    if low > high or (low == high and not (low_closed and high_closed)):
        raise _NoRealSet
    if (low < ends.points.start and low_closed) or (high >= ends.points.stop and high_closed):
        raise _NoRealSet  # infinity belongs to no set
    above = _beside(low, is_below=False, is_closed=low_closed)
    below = _beside(high, is_below=True, is_closed=high_closed)
    return _combine("cap", [above, below])


def _combine(name: str, memberships: list[_Membership]) -> _Membership:
    first, *rest = memberships
    match name:
        case "cup":
            return lambda point: any(contains(point) for contains in memberships)
        case "cap":
            return lambda point: all(contains(point) for contains in memberships)
        case _:
            return lambda point: first(point) and not any(contains(point) for contains in rest)
