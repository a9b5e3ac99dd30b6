"""Finds operations that an answer leaves to do although the gold does not."""

from collections import Counter
from fractions import Fraction

from services.verifier.checks.math.reading.forms import (
    Apply,
    Form,
    Number,
    Power,
    Product,
    Scientific,
    Sum,
    Symbol,
    children,
)
from services.verifier.checks.math.reading.parsed_answer import ParsedAnswer

_FAMILIES = {
    **dict.fromkeys(("sin", "cos", "tan", "cot", "sec", "csc"), "trigonometry"),
    **dict.fromkeys(("arcsin", "arccos", "arctan"), "inverse trigonometry"),
    **dict.fromkeys(("log", "ln", "lg", "exp"), "logarithm"),
    **dict.fromkeys(("sinh", "cosh", "tanh"), "hyperbolic"),
    **dict.fromkeys(("factorial", "double factorial", "binom"), "counting"),
}
_TRANSCENDENTAL = frozenset({"pi", "e"})
_OPERATION_TOKENS = frozenset(
    r"""\sum \prod \int \iint \iiint \oint \lim \limsup \liminf \gcd \lcm \det \max \min \sup \inf \bmod \pmod \mod
    \partial \nabla \deg \dim \ker \arg \operatorname""".split()  # noqa: SIM905
)
_JOINING_TOKENS = frozenset({",", ";", "and", "or", "\\pm", "\\mp", "=", "<", ">", "\\le", "\\ge", "\\approx"})


def find_unevaluated_token(gold: ParsedAnswer, answer: ParsedAnswer) -> str | None:
    """The first operation that the gold's text does not have, or joint that it has less often; else None."""
    in_gold = Counter(token.text.strip() for token in gold.tokens)
    in_answer = Counter(token.text.strip() for token in answer.tokens)
    for text, count in in_answer.items():
        if (text in _OPERATION_TOKENS and text not in in_gold) or (text in _JOINING_TOKENS and count > in_gold[text]):
            return text
    return None


def find_unevaluated(gold: Form, answer: Form) -> str | None:
    """What a scalar answer leaves to do, or None.

    Closed forms stay: fractions, powers, roots, factorials and binomials. Sums and products of plain numbers are left
    undone where the gold is a number.
    """
    surplus = _operations(answer) - _operations(gold) - {"counting"}
    if surplus:
        return f"{', '.join(sorted(surplus))} is left to evaluate"
    if isinstance(gold, Number | Scientific) and not isinstance(answer, Number | Scientific):
        if has_transcendental(answer):
            return "pi or e is left in a rational number"
        if not _has_closed_form(answer):
            return "arithmetic is left undone"
    return None


def _operations(form: Form) -> set[str]:
    found = set().union(*map(_operations, children(form)))
    if isinstance(form, Apply):
        found.add(_FAMILIES.get(form.name, form.name))
    return found


def has_transcendental(form: Form) -> bool:
    """Whether pi or e is in it."""
    if isinstance(form, Symbol):
        return form.name in _TRANSCENDENTAL
    return any(map(has_transcendental, children(form)))


def _is_literal(form: Form) -> bool:
    return isinstance(form, Number | Scientific)


def _has_closed_form(form: Form) -> bool:
    """Whether it consists of numbers and at least one real power, root, factorial or binomial."""
    match form:
        case Sum(parts) | Product(parts):
            return any(map(_has_closed_form, parts)) and all(
                _is_literal(part) or _has_closed_form(part) for part in parts
            )
        case Power(base, exponent):
            inner = _has_closed_form(base)
            return inner or (_is_literal(base) and exponent not in _TRIVIAL and not isinstance(exponent, Sum | Product))
        case Apply(_, arguments):
            return all(map(_is_literal, arguments))
        case _:
            return False


_TRIVIAL = tuple(Number(Fraction(exponent)) for exponent in (0, 1))
