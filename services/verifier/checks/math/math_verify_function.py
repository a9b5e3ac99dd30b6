"""math-verify's comparison as a worker's function; importing this imports sympy, so only workers do."""

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
    clear_cache()  # sympy keeps what it has seen; a worker must not grow with every question
    owed, given = _read(gold), _read(answer)
    if not owed or not given or not verify(owed[0], given[0], timeout_seconds=None):
        return False
    both = owed[0], given[0]
    return _agree(*both) if all(isinstance(form, Expr) for form in both) else True


def _read(text: str) -> list[Any]:
    # without its own timeouts: they are signals, and this process is ended from outside
    return list(parse(f"${text}$", _LATEX, fallback_mode="no_fallback", parsing_timeout=None))


def _agree(gold: Any, answer: Any) -> bool:
    """At two points: math-verify itself rounds to 15 digits, and takes 10^-20 for 10^-21."""
    difference = gold - answer
    random = Random(0)  # the same points each time: a verdict does not depend on chance
    for _ in range(_POINTS):
        point = {symbol: random.randrange(1, 10**6) for symbol in difference.free_symbols}
        scale = abs(gold.subs(point).evalf(_DIGITS + 20)) + abs(answer.subs(point).evalf(_DIGITS + 20))
        left = abs(difference.subs(point).evalf(_DIGITS + 20, maxn=400))
        if scale.is_number and left.is_number and bool(left > scale * 10**-_DIGITS):
            return False
    return True


# Asked once on import, in the template, so that no worker has the grammars and sympy's own imports still before it.
are_same(r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)")
are_same(r"\sqrt{x^2}+\sum_{k=1}^{n} k", r"x+\sum_{k=1}^{n} k")
