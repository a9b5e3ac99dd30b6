"""Compares what relations state: the values that equations assign, inequalities, and memberships."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from services.verifier.checks.math.comparing.assignments import (
    Assignment,
    is_equation,
    read_assignment,
    read_statement,
    stated_values,
)
from services.verifier.checks.math.comparing.equivalence import (
    Equivalence,
    compare_in_any_order,
    compare_in_order,
)
from services.verifier.checks.math.comparing.relations import ORDERS, compare_by_ratio, to_interval
from services.verifier.checks.math.comparing.scalars import is_constant
from services.verifier.checks.math.comparing.structures.points import named_coordinates
from services.verifier.checks.math.reading.forms import (
    Bracket,
    FiniteSet,
    Form,
    Relation,
    Relator,
    SetOperation,
    Symbol,
    Text,
    ValueList,
)

Compare: TypeAlias = Callable[[Form, Form], Equivalence]

_TURNED = {
    Relator.GREATER: Relator.LESS,
    Relator.GREATER_EQUAL: Relator.LESS_EQUAL,
    Relator.LESS: Relator.GREATER,
    Relator.LESS_EQUAL: Relator.GREATER_EQUAL,
}


def is_set(form: Form) -> bool:
    """Whether it may be a set: a union, an interval, a set in braces, or a name of one."""
    return isinstance(form, SetOperation | Bracket | FiniteSet | Symbol)


def compare_to_relation(gold: Relation, answer: Form, compare: Compare) -> Equivalence:
    """A gold that is an equation, an inequality or a membership with any answer."""
    if is_equation(gold):
        return _compare_to_equation(gold, answer, compare)
    if gold.relators == (Relator.IN,):
        return _compare_to_membership(gold, answer, compare)
    if isinstance(answer, Relation):
        return _compare_inequalities(gold, answer, compare)
    if not is_set(answer):
        return Equivalence.DIFFERENT
    interval = to_interval(gold)
    return Equivalence.UNKNOWN if interval is None else compare(interval[1], answer)


def _compare_to_equation(gold: Relation, answer: Form, compare: Compare) -> Equivalence:
    expected = read_assignment(gold)
    if not isinstance(answer, Relation):
        return Equivalence.DIFFERENT if expected is None else compare_any(expected.values, (answer,), compare)
    if not is_equation(answer):
        return Equivalence.DIFFERENT
    given = read_statement(answer)
    if expected is not None and given is not None and _name_the_same(expected, given):
        if expected.is_rounded and given.is_rounded:
            return compare(expected.values[0], given.values[0])
        return compare_any(expected.values, given.values if given.is_rounded else (given.value,), compare)
    if expected is not None and is_constant(expected.value):
        return Equivalence.DIFFERENT  # the gold is a value; an equation with that solution is not
    return compare_by_ratio(gold, answer)


def _compare_to_membership(gold: Relation, answer: Form, compare: Compare) -> Equivalence:
    variable, expected = gold.sides
    if isinstance(answer, ValueList) and not isinstance(expected, ValueList | FiniteSet):
        return Equivalence.DIFFERENT  # an interval's ends, listed
    if not isinstance(answer, Relation):
        return compare(expected, answer)
    is_of_variable = answer.relators == (Relator.IN,) and answer.sides[0] == variable
    return compare(expected, answer.sides[1]) if is_of_variable else Equivalence.DIFFERENT


def _compare_inequalities(gold: Relation, answer: Relation, compare: Compare) -> Equivalence:
    if is_equation(answer):
        return Equivalence.DIFFERENT
    if is_constant(gold) and is_constant(answer):
        return compare_in_order(_rising_sides(gold), _rising_sides(answer), compare)
    expected, given = to_interval(gold), to_interval(answer)
    if answer.relators == (Relator.IN,) and expected is not None:
        return compare(expected[1], answer.sides[1]) if answer.sides[0] == expected[0] else Equivalence.DIFFERENT
    if expected is not None and given is not None and expected[0] == given[0]:
        return compare(expected[1], given[1])
    if all(relator in ORDERS for relator in (*gold.relators, *answer.relators)):
        return compare_by_ratio(gold, answer)
    return Equivalence.UNKNOWN


def _rising_sides(relation: Relation) -> tuple[Form, ...]:
    """The sides of a chain from the smallest, with its relators as words."""
    if relation.relators[0] not in (Relator.GREATER, Relator.GREATER_EQUAL):
        return (*relation.sides, *(Text(relator) for relator in relation.relators))
    turned = (_TURNED.get(relator, relator) for relator in reversed(relation.relators))
    return (*relation.sides[::-1], *(Text(relator) for relator in turned))


def compare_relation(gold: Form, answer: Relation, compare: Compare) -> Equivalence:
    """A gold that is no relation with an answer such as x = 5, or x in [0, 1]."""
    if answer.relators == (Relator.IN,):
        is_member = isinstance(answer.sides[0], Symbol) or isinstance(answer.sides[1], FiniteSet)
        return compare(gold, answer.sides[1]) if is_member else Equivalence.DIFFERENT
    if isinstance(gold, ValueList) and (named := named_coordinates(answer)):
        are_named = all(isinstance(item, Relation) for item in gold.items)
        return (compare_in_any_order if are_named else compare_in_order)(gold.items, named, compare)
    return compare_any((gold,), stated_values(answer), compare)


def _name_the_same(gold: Assignment, answer: Assignment) -> bool:
    """Whether both give a value to the same: x, or all of x_1 = x_2 = …; a gold without a name accepts one letter."""
    if len(gold.unknowns) > 1 and len(answer.unknowns) > 1:
        return gold.unknowns == answer.unknowns
    if gold.name is None:
        return all(isinstance(unknown, Symbol) for unknown in answer.unknowns)
    return gold.name == answer.name


def compare_any(golds: Iterable[Form], answers: Sequence[Form], compare: Compare) -> Equivalence:
    """Whether one of the answers, which are the same value, is one of the golds, which are another's."""
    return max((compare(gold, answer) for gold in golds for answer in answers), default=Equivalence.DIFFERENT)
