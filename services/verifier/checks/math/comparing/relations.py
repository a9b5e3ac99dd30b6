"""Relations: the value that an equation assigns, the interval that an inequality describes, and their comparison."""

from dataclasses import dataclass
from fractions import Fraction

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.numeric_value import (
    CONSTANTS,
    FUNCTIONS,
    SamplePoint,
    Unevaluable,
    Value,
    are_close,
)
from services.verifier.checks.math.comparing.scalars import compare_scalars, free_symbols, is_constant
from services.verifier.checks.math.reading.arithmetic import negate
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Apply,
    Bracket,
    Form,
    Number,
    Product,
    Ratio,
    Relation,
    Relator,
    Sum,
    Symbol,
    Text,
)

_INFINITY = Symbol("infty")
_ZERO = Number(Fraction(0))
_EQUALITIES = frozenset({Relator.EQUAL, Relator.ABOUT})
ORDERS = {
    Relator.LESS: (True, False),
    Relator.LESS_EQUAL: (True, True),
    Relator.GREATER: (False, False),
    Relator.GREATER_EQUAL: (False, True),
}  # relator: (the left side is the smaller one, the bound belongs to it)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value and its name: x = 5. `name` is None in 2 + 3 = 5."""

    name: Form | None
    value: Form


def is_equation(form: Form) -> bool:
    return isinstance(form, Relation) and set(form.relators) <= _EQUALITIES


def read_assignment(relation: Relation) -> Assignment | None:
    """The value at the end of a chain of equalities: x = 2 + 3 = 5 assigns 5 to x.

    None for an equation still to be solved (3x - 1 = 5), and for a chain that contradicts itself (5 = 4).
    """
    if not is_equation(relation):
        return None
    first, *rest = relation.sides
    value = rest[-1]
    name = first if _is_name(first, value) else None
    if name is None and not is_constant(first):
        return None
    values = rest if name is not None else relation.sides
    relators = relation.relators[len(relation.sides) - len(values) :]
    if not all(map(_holds, values, values[1:], relators)):
        return None
    return Assignment(name, value)


def _holds(left: Form, right: Form, relator: Relator) -> bool:
    if relator is Relator.ABOUT:
        return _is_near(left, right)
    return left == right or (
        isinstance(left, SCALARS) and isinstance(right, SCALARS) and compare_scalars(left, right) is Equivalence.SAME
    )


def _is_near(left: Form, right: Form) -> bool:
    """Whether the right side is the left one, rounded: within one percent."""
    try:
        exact, rounded = SamplePoint(0).evaluate(left), SamplePoint(0).evaluate(right)
    except Unevaluable:
        return False
    return bool(abs(exact - rounded) * 100 <= abs(exact))


def _is_name(form: Form, value: Form) -> bool:
    """Whether a left side is a name rather than arithmetic: x, f(3), AB, (p,q), a + b, V_1:V_2.

    Sums and products of names are none if the value is 0: "3x - y = 0" is a line.
    """
    match form:
        case Symbol(name):
            return name not in CONSTANTS and name not in ("infty", "varnothing")
        case Apply(name, _):
            return name not in FUNCTIONS or not is_constant(form)
        case Text():
            return True
        case Product(parts) | Sum(parts):
            return value != _ZERO and all(_is_name(part, value) for part in parts)
        case Bracket(_, _, parts) | Ratio(parts):
            return all(_is_name(part, value) for part in parts)
        case _:
            return False


def to_interval(relation: Relation) -> tuple[Form, Form] | None:
    """(variable, interval) of an inequality such as x <= 2, 5 >= x or 1 < x <= 3; None for others."""
    orders = [ORDERS[relator] for relator in relation.relators if relator in ORDERS]
    if len(orders) < len(relation.relators) or len({rises for rises, _ in orders}) > 1:
        return None
    sides, closed = relation.sides, [is_closed for _, is_closed in orders]
    if not orders[0][0]:
        sides, closed = sides[::-1], closed[::-1]
    match [is_constant(side) for side in sides]:
        case [False, True]:
            return sides[0], _interval(negate(_INFINITY), False, sides[1], closed[0])
        case [True, False]:
            return sides[1], _interval(sides[0], closed[0], _INFINITY, False)
        case [True, _, True]:
            return sides[1], _interval(sides[0], closed[0], sides[2], closed[1])
        case _:
            return None


def _interval(low: Form, low_closed: bool, high: Form, high_closed: bool) -> Bracket:
    return Bracket("[" if low_closed else "(", "]" if high_closed else ")", (low, high))


def compare_by_ratio(gold: Relation, answer: Relation) -> Equivalence:
    """SAME if one equation is the other times a constant, or one inequality the other times a positive constant."""
    if len(gold.sides) != 2 or len(answer.sides) != 2 or free_symbols(gold) != free_symbols(answer):
        return Equivalence.DIFFERENT
    try:
        ratios = [_difference(answer, number) / _difference(gold, number) for number in (0, 1, 3)]
    except (Unevaluable, ZeroDivisionError):
        return Equivalence.UNKNOWN
    if ratios[0] == 0 or not all(are_close(ratios[0], ratio) for ratio in ratios[1:]):
        return Equivalence.DIFFERENT if is_equation(gold) else Equivalence.UNKNOWN
    if is_equation(gold):
        return Equivalence.SAME
    return Equivalence.of(bool(ratios[0] > 0) and ORDERS[gold.relators[0]][1] == ORDERS[answer.relators[0]][1])


def _difference(relation: Relation, number: int) -> Value:
    """The left side minus the right; of an inequality, the larger side minus the smaller."""
    left, right = relation.sides
    left_is_smaller, _ = ORDERS.get(relation.relators[0], (False, False))
    larger, smaller = (right, left) if left_is_smaller else (left, right)
    return SamplePoint(number, allow_negligible=True).evaluate(Sum((larger, negate(smaller))))
