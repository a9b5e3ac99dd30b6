"""The values of forms at sample points, as precise as their smallest parts need."""

from functools import lru_cache

from services.verifier.checks.math.comparing.evaluation import (
    MAX_PRECISION,
    Approximation,
    PointEvaluation,
    TooCoarse,
    Unevaluable,
    hidden_below,
)
from services.verifier.checks.math.comparing.functions import Value
from services.verifier.checks.math.reading.forms import Form

_PRECISION = 320  # bits


def approximate(form: Form, number: int, precision: int = _PRECISION) -> Approximation:
    """The form's value at a sample point. Raises Unevaluable."""
    found = _approximate(form, number, precision)
    if found is None:
        raise Unevaluable("no numeric value, or one that is not computed here")
    return found


@lru_cache(maxsize=1_024)  # members of a set are compared with each other
def _approximate(form: Form, number: int, precision: int) -> Approximation | None:
    cost = 0
    while precision <= MAX_PRECISION:
        evaluation = PointEvaluation(number, precision, cost)
        try:
            return evaluation.read(form)
        except TooCoarse as error:
            precision, cost = error.needed, evaluation.cost
        except Unevaluable:
            return None
    return None


def agree(left: Form, right: Form, number: int) -> bool:
    """Whether two forms have the same value at a sample point. Raises Unevaluable.

    False is proved; True means that they agree far beyond the smallest part of either.
    """
    precision = _PRECISION
    while True:
        one, other = approximate(left, number, precision), approximate(right, number, precision)
        difference = abs(one.value - other.value)
        error = max(one.error, other.error) + 2
        if difference != 0 and int(difference.context.mag(difference)) > error + 1:
            return False
        missing = error - hidden_below(max(one.size, other.size), min(one.grain, other.grain))
        if missing <= 0:
            return True
        precision += missing + 64


def are_close(left: Value, right: Value) -> bool:
    """Whether two values agree to 45 digits."""
    return bool(abs(left - right) <= max(abs(left), abs(right)) * left.context.mpf(10) ** -45)


class SamplePoint:
    """Values for the symbols of a form, always the same for one `number`.

    0 and 2 make all symbols positive; 1 and 3 give each its own sign. From 4 on, values are farther apart: of every
    four, two points are of positive integers, one is of integers and one of numbers of any sign.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def evaluate(self, form: Form) -> Value:
        """The form's value at this point. Raises Unevaluable."""
        return approximate(form, self._number).value
