"""Compares scalar forms: numbers and expressions."""

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.evaluation import CONSTANTS, Unevaluable
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.functions import COUNTS
from services.verifier.checks.math.comparing.numeric_value import agree, approximate
from services.verifier.checks.math.comparing.steps import differ_at_integers, has_steps
from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, Symbol, children

_LARGEST_DENOMINATOR = 10**18
_COUNTED = frozenset(COUNTS)
_POINTS = (0, 1, 3)
_FAR_POINTS = tuple(range(4, 20))


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
    found = {_compare_at(number, gold, answer) for number in _POINTS}
    names = sorted(free_symbols(gold) | free_symbols(answer))
    may_step = Equivalence.SAME in found and (has_steps(gold) or has_steps(answer))
    if may_step and differ_at_integers(gold, answer, names):
        return Equivalence.DIFFERENT  # floors are of integers
    if Equivalence.SAME in found and (_is_piecewise(gold) or _is_piecewise(answer)):
        found |= _compare_far(gold, answer)
    return found.pop() if len(found) == 1 else Equivalence.UNKNOWN


def _compare_far(gold: Form, answer: Form) -> set[Equivalence]:
    """What piecewise forms are at points far from each other, where the gold has a value."""
    found: set[Equivalence] = set()
    are_counts = _has(gold, _COUNTED) or _has(answer, _COUNTED)
    for number in _FAR_POINTS:
        if are_counts and number % 2:
            continue  # binomials are of positive integers
        equivalence = _compare_at(number, gold, answer)
        if equivalence is not Equivalence.UNKNOWN:
            found.add(equivalence)
    return found


def _compare_at(number: int, gold: Form, answer: Form) -> Equivalence:
    try:
        approximate(gold, number)
    except Unevaluable:
        return Equivalence.UNKNOWN
    try:
        return Equivalence.of(agree(gold, answer, number))
    except Unevaluable:
        return Equivalence.DIFFERENT


def _is_piecewise(form: Form) -> bool:
    """Whether it may be another function elsewhere: it has steps, absolute values, or roots of variables."""
    match form:
        case Apply(_, arguments) if not all(map(is_constant, arguments)):
            return True
        case Power(base, exponent) if not is_constant(base):
            if not (isinstance(exponent, Number) and exponent.value.denominator == 1):
                return True
    return any(map(_is_piecewise, children(form)))


def _has(form: Form, names: frozenset[str]) -> bool:
    return (isinstance(form, Apply) and form.name in names) or any(_has(child, names) for child in children(form))


def _is_boundless(form: Form) -> bool:
    """Whether it contains infinity or a set: such forms are the same only if written the same."""
    return any(name in ("infty", "varnothing") or name.startswith("mathbb") for name in free_symbols(form))


def free_symbols(form: Form) -> frozenset[str]:
    """The names of the variables in a form."""
    if isinstance(form, Symbol):
        return frozenset() if form.name in CONSTANTS else frozenset({form.name})
    return frozenset().union(*map(free_symbols, children(form)))


def is_constant(form: Form) -> bool:
    return not free_symbols(form)
