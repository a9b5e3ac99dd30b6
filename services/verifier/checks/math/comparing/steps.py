"""Compares forms with floors and ceilings where these step: at integers, one after another."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.functions import STEPS
from services.verifier.checks.math.comparing.substitution import substitute
from services.verifier.checks.math.reading.forms import Apply, Form, Number, children

_CONSECUTIVE = 60
_MAX_LITERALS = 8
_MAX_LITERAL = 10**6


def has_steps(form: Form) -> bool:
    return (isinstance(form, Apply) and form.name in STEPS) or any(map(has_steps, children(form)))


def differ_at_integers(gold: Form, answer: Form, names: Sequence[str]) -> bool:
    """Whether two forms differ at one of many positive integers, where both have exact values.

    Floors step at multiples of the numbers in them: these are tried with their neighbours.
    """
    literals = sorted({*_literals(gold), *_literals(answer)})[:_MAX_LITERALS]
    around = {multiple * literal + step for literal in literals for multiple in (1, 2) for step in (-1, 0, 1)}
    for at in [*range(1, _CONSECUTIVE), *sorted(around - set(range(_CONSECUTIVE)))]:
        others = [1 + at * (7 + index) % 53 for index in range(1, len(names))]
        point = {name: Number(Fraction(value)) for name, value in zip(names, [at, *others], strict=True)}
        one, other = exact_value(substitute(gold, point)), exact_value(substitute(answer, point))
        if one is None or other is None:
            if at == 1:
                return False  # nor at the others: it takes more than arithmetic
        elif one != other:
            return True
    return False


def _literals(form: Form) -> Iterator[int]:
    """The whole numbers in a form, above and below the fraction bars."""
    if isinstance(form, Number):
        yield from (part for part in form.value.as_integer_ratio() if 1 < part <= _MAX_LITERAL)
    for child in children(form):
        yield from _literals(child)
