"""math-verify's comparison, for workers: importing this module imports sympy."""

from random import Random
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr
from sympy.core.cache import clear_cache

_LATEX = [LatexExtractionConfig()]
_POINTS = 2
_DIGITS = 40


def are_same(gold: str, answer: str) -> bool:
    """Whether math-verify calls the two equal and, for expressions, they agree to 40 digits as well."""
    clear_cache()  # sympy's cache would make the worker grow with every call
    golds, answers = _parse(gold), _parse(answer)
    if not golds or not answers or not verify(golds[0], answers[0], timeout_seconds=None):
        return False
    both = golds[0], answers[0]
    return _values_agree(*both) if all(isinstance(form, Expr) for form in both) else True


def _parse(text: str) -> list[Any]:
    # without its own timeouts: they use signals, and this process is killed from outside
    return list(parse(f"${text}$", _LATEX, fallback_mode="no_fallback", parsing_timeout=None))


def _values_agree(gold: Any, answer: Any) -> bool:
    """Whether they agree to 40 digits at two points; math-verify rounds to 15 and takes 10^-20 for 10^-21."""
    difference = gold - answer
    random = Random(0)  # always the same points, so that verdicts are repeatable
    for _ in range(_POINTS):
        point = {symbol: random.randrange(1, 10**6) for symbol in difference.free_symbols}
        scale = abs(gold.subs(point).evalf(_DIGITS + 20)) + abs(answer.subs(point).evalf(_DIGITS + 20))
        left = abs(difference.subs(point).evalf(_DIGITS + 20, maxn=400))
        if scale.is_number and left.is_number and bool(left > scale * 10**-_DIGITS):
            return False
    return True


# Called on import, in the template, so that forked workers have the grammars and all of sympy loaded.
are_same(r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)")
are_same(r"\sqrt{x^2}+\sum_{k=1}^{n} k", r"x+\sum_{k=1}^{n} k")
