"""Compares scalar forms: numbers and expressions."""

from functools import lru_cache

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.numeric_value import (
    CONSTANTS,
    SamplePoint,
    Unevaluable,
    Value,
    are_close,
)
from services.verifier.checks.math.reading.forms import Form, Symbol, children

_LARGEST_DENOMINATOR = 10**18


def compare_scalars(gold: Form, answer: Form) -> Equivalence:
    """Compares exactly if both are rational, else to 40 digits at several points.

    Functions of the gold's own symbols may be equal only where these are positive: that is left UNKNOWN.
    """
    if gold == answer:
        return Equivalence.SAME
    exact_gold, exact_answer = exact_value(gold), exact_value(answer)
    if exact_gold is not None and exact_answer is not None:
        return Equivalence.of(exact_gold == exact_answer)
    if _is_boundless(gold) or _is_boundless(answer):
        return Equivalence.DIFFERENT
    if any(value is not None and value.denominator > _LARGEST_DENOMINATOR for value in (exact_gold, exact_answer)):
        return Equivalence.DIFFERENT  # a long rational for an irrational: pi to fifty digits
    if is_constant(gold) and is_constant(answer):
        return _compare_at(0, gold, answer)
    found = {_compare_at(number, gold, answer) for number in (0, 1, 3)}
    return found.pop() if len(found) == 1 else Equivalence.UNKNOWN


def _compare_at(number: int, gold: Form, answer: Form) -> Equivalence:
    gold_value, answer_value = _evaluate(gold, number, True), _evaluate(answer, number, False)
    if gold_value is None:
        return Equivalence.UNKNOWN
    if answer_value is None:
        return Equivalence.DIFFERENT
    return Equivalence.of(are_close(gold_value, answer_value))


def _is_boundless(form: Form) -> bool:
    """Whether it contains infinity or a set: such forms are the same only if written the same."""
    return any(name in ("infty", "varnothing") or name.startswith("mathbb") for name in free_symbols(form))


@lru_cache(maxsize=1_024)  # members of a set are compared with each other
def _evaluate(form: Form, number: int, allow_negligible: bool) -> Value | None:
    try:
        return SamplePoint(number, allow_negligible=allow_negligible).evaluate(form)
    except Unevaluable:
        return None


def free_symbols(form: Form) -> frozenset[str]:
    """The names of the variables in a form."""
    if isinstance(form, Symbol):
        return frozenset() if form.name in CONSTANTS else frozenset({form.name})
    return frozenset().union(*map(free_symbols, children(form)))


def is_constant(form: Form) -> bool:
    return not free_symbols(form)
