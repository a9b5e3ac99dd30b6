"""Compares values with an integer parameter: pi/4 + k pi with k in Z, whatever the parameter's name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from services.verifier.checks.math.comparing.assignments import is_equation
from services.verifier.checks.math.comparing.equivalence import Equivalence, compare_in_any_order
from services.verifier.checks.math.comparing.evaluation import Unevaluable
from services.verifier.checks.math.comparing.numeric_value import SamplePoint
from services.verifier.checks.math.comparing.scalars import compare_scalars, free_symbols
from services.verifier.checks.math.comparing.structures.points import named_coordinates
from services.verifier.checks.math.comparing.substitution import substitute
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated
from services.verifier.checks.math.reading.arithmetic import divide, negate
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Form,
    Number,
    Product,
    Relation,
    Relator,
    Sum,
    Symbol,
    UnreadableAnswer,
    ValueList,
    children,
)

_INTEGERS = Symbol("mathbb Z")
_INTEGER_LETTERS = frozenset("kmnlj")
_SHARED = "parameter"


@dataclass(frozen=True, slots=True)
class _Family:
    """Values with a parameter; `domain` is None where the parameter is not declared."""

    values: tuple[Form, ...]
    parameters: tuple[str, ...] = ()
    domain: Form | None = None


def compare_families(gold: Form, answer: Form, compare: Callable[[Form, Form], Equivalence]) -> Equivalence | None:
    """None if neither declares a parameter."""
    expected, given = _split_tuples(_read_family(gold), _read_family(answer))
    if expected.domain is None and given.domain is None:
        return _compare_undeclared(expected, given, compare)
    if None not in (expected.domain, given.domain) and expected.domain != given.domain:
        return Equivalence.DIFFERENT
    names = _parameter(expected, given), _parameter(given, expected)
    if names[0] is None or names[1] is None:
        return Equivalence.DIFFERENT
    shared = Symbol(_SHARED)
    golds = [substitute(value, {names[0]: shared}) for value in expected.values]
    answers = [substitute(value, {names[1]: shared}) for value in given.values]
    is_of_integers = _INTEGERS in (expected.domain, given.domain) and _INTEGER_LETTERS.issuperset(names)

    def compare_values(one: Form, other: Form) -> Equivalence:
        found = compare(one, other)
        if found is Equivalence.SAME or not is_of_integers:
            return found
        return Equivalence.of(_is_same_progression(one, other))

    return compare_in_any_order(golds, answers, compare_values)


def _split_tuples(expected: _Family, given: _Family) -> tuple[_Family, _Family]:
    """The answer (f(n), g(n)) = (n, 1) as two equations, if the gold has two values."""
    if len(given.values) == 1 < len(expected.values) and isinstance(given.values[0], Relation):
        named = named_coordinates(given.values[0])
        return expected, replace(given, values=named) if named else given
    return expected, given


def _compare_undeclared(
    expected: _Family, given: _Family, compare: Callable[[Form, Form], Equivalence]
) -> Equivalence | None:
    """k pi and n pi, where nothing says what k and n are: the letter beside pi counts periods."""
    own = _symbols(expected) - _symbols(given), _symbols(given) - _symbols(expected)
    if not all(len(names) == 1 and names <= _INTEGER_LETTERS for names in own):
        return None
    if not any(_counts_periods(value, min(own[0])) for value in expected.values):
        return None
    renamed = [substitute(value, {min(own[1]): Symbol(min(own[0]))}) for value in given.values]
    return compare_in_any_order(expected.values, renamed, compare)


def _symbols(family: _Family) -> frozenset[str]:
    return frozenset().union(*(free_symbols(_value_of(value)) for value in family.values))


def _counts_periods(form: Form, name: str) -> bool:
    """Whether a value runs through multiples of pi: x = k pi, or pi/4 + k pi, but not pi 2^k, or an area k pi."""
    value = _value_of(form)
    if not isinstance(value, SCALARS) or not _has_pi(value) or (value is form and not isinstance(value, Sum)):
        return False
    try:
        _, step = _start_and_step(substitute(value, {name: Symbol(_SHARED)}))
    except Unevaluable:
        return False
    return not free_symbols(step)


def _has_pi(form: Form) -> bool:
    return form == Symbol("pi") or any(map(_has_pi, children(form)))


def _read_family(form: Form) -> _Family:
    items = form.items if isinstance(form, ValueList) else (form,)
    declared: list[str] = []
    domain: Form | None = None
    values: list[Form] = []
    for item in reversed(items):
        match item:
            case Relation((Symbol(name), Symbol(of) as found), (Relator.IN,)) if of.startswith("mathbb"):
                declared.append(name)
                domain = found
            case Symbol(name) if declared and not values:  # k, n in Z
                declared.append(name)
            case _:
                values.append(item)
    return _Family(tuple(values), tuple(dict.fromkeys(declared)), domain) if values else _Family(items)


def _parameter(family: _Family, other: _Family) -> str | None:
    """The one parameter of a family: as declared, as the other has it, or the only letter that the other has not."""
    if family.domain is not None:
        return family.parameters[0] if len(family.parameters) == 1 else None
    names = _symbols(family)
    if frozenset().union(*map(free_symbols, family.values)) >= set(other.parameters):
        return other.parameters[0] if len(other.parameters) == 1 else None
    own = names - _symbols(other)
    return min(own) if len(own) == 1 else None


def _is_same_progression(gold: Form, answer: Form) -> bool:
    """Whether both run through the same numbers: a + bk and a - 3b + bk, or a - bk."""
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        names = [form.sides[0] for form in (gold, answer) if isinstance(form, Relation) and is_equation(form)]
        if len(names) < isinstance(gold, Relation) + isinstance(answer, Relation) or len(set(names)) > 1:
            return False
        if _SHARED in free_symbols(names[0]):
            return False  # f(x) = x is not f(x) = x + 1
        gold, answer = _value_of(gold), _value_of(answer)
    if not isinstance(gold, SCALARS) or not isinstance(answer, SCALARS) or find_unevaluated(gold, answer):
        return False
    try:
        start, step = _start_and_step(gold)
        other_start, other_step = _start_and_step(answer)
        difference = Sum((other_start, negate(start)))
        quotient = SamplePoint(0).evaluate(divide(difference, step))
    except (Unevaluable, UnreadableAnswer):
        return False
    if abs(quotient) > 10**6 or getattr(quotient, "imag", 0) != 0:
        return False
    whole = Number(Fraction(round(float(quotient))))
    is_shifted = compare_scalars(Product((whole, step)), difference) is Equivalence.SAME
    return is_shifted and any(
        compare_scalars(step, candidate) is Equivalence.SAME for candidate in (other_step, negate(other_step))
    )


def _value_of(form: Form) -> Form:
    return form.sides[-1] if isinstance(form, Relation) else form


def _start_and_step(form: Form) -> tuple[Form, Form]:
    """a and b of a + bk. Raises Unevaluable if it is something else."""
    first, second, third = (substitute(form, {_SHARED: Number(Fraction(at))}) for at in range(3))
    if compare_scalars(Sum((first, third)), Product((Number(Fraction(2)), second))) is not Equivalence.SAME:
        raise Unevaluable("no progression")
    step = Sum((second, negate(first)))
    if compare_scalars(step, Number(Fraction(0))) is Equivalence.SAME:
        raise Unevaluable("a progression that stands still")
    return first, step
