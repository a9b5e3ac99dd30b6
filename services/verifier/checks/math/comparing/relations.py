"""Relations: the interval that an inequality describes, and their comparison up to a factor."""

from services.verifier.checks.math.comparing.assignments import is_equation
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.evaluation import Unevaluable
from services.verifier.checks.math.comparing.functions import Value
from services.verifier.checks.math.comparing.numeric_value import approximate
from services.verifier.checks.math.comparing.scalars import free_symbols, is_constant
from services.verifier.checks.math.reading.arithmetic import negate
from services.verifier.checks.math.reading.forms import (
    Bracket,
    Form,
    Relation,
    Relator,
    Sum,
    Symbol,
)

_MARGIN = 160  # bits
_INFINITY = Symbol("infty")
ORDERS = {
    Relator.LESS: (True, False),
    Relator.LESS_EQUAL: (True, True),
    Relator.GREATER: (False, False),
    Relator.GREATER_EQUAL: (False, True),
}  # relator: (the left side is the smaller one, the bound belongs to it)


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
    symbols = free_symbols(gold)
    if len(gold.sides) != 2 or len(answer.sides) != 2 or not symbols or symbols != free_symbols(answer):
        return Equivalence.DIFFERENT
    try:
        ratios, tolerance = _ratios(_difference(gold), _difference(answer))
    except (Unevaluable, ZeroDivisionError):
        return Equivalence.UNKNOWN
    if ratios[0] == 0 or any(abs(ratio - ratios[0]) > abs(ratios[0]) * tolerance for ratio in ratios):
        return Equivalence.DIFFERENT if is_equation(gold) else Equivalence.UNKNOWN
    if is_equation(gold):
        return Equivalence.SAME
    is_real = abs(ratios[0].imag) <= abs(ratios[0]) * tolerance  # i is a number here, also where a name is meant
    is_positive = bool(is_real and ratios[0].real > 0)
    return Equivalence.of(is_positive and ORDERS[gold.relators[0]][1] == ORDERS[answer.relators[0]][1])


def _difference(relation: Relation) -> Form:
    """The left side minus the right; of an inequality, the larger side minus the smaller."""
    left, right = relation.sides
    left_is_smaller, _ = ORDERS.get(relation.relators[0], (False, False))
    larger, smaller = (right, left) if left_is_smaller else (left, right)
    return Sum((larger, negate(smaller)))


def _ratios(gold: Form, answer: Form) -> tuple[list[Value], Value]:
    """answer / gold at several points, and what two of them may differ by: less than the smallest part of either."""
    precision, needed = 0, 2 * _MARGIN
    while precision < needed:
        precision = needed
        found = [(approximate(answer, at, precision), approximate(gold, at, precision)) for at in (0, 1, 3)]
        depth = max(max(value.size - value.grain for pair in found for value in pair if value.value != 0), 0)
        needed = depth + _MARGIN
    ratios = [given.value / expected.value for given, expected in found]
    return ratios, ratios[0].context.ldexp(1, 32 - depth - _MARGIN)
