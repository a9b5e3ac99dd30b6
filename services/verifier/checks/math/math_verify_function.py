"""math-verify's comparison, for workers: importing this module imports sympy."""

import re
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Eq, Expr
from sympy.core.cache import clear_cache

_LATEX = [LatexExtractionConfig()]
_POINTS = 3
_DIGITS = 40
_MAX_EDITS = 60
_PIECE = re.compile(
    r"(?P<whole>\\(?:begin|end|mathbb|mathrm|operatorname)\s*\{[^{}]*\})|(?P<command>\\[a-zA-Z]+)|\\."
    r"|(?P<number>[0-9]+)|(?P<letter>[a-zA-Z])|(?P<sign>[-+<>'!%|^])"
)
_OTHER = {
    "+": "-", "-": "+", "<": ">", ">": "<", "\\cup": "\\cap", "\\cap": "\\cup", "\\le": "\\ge", "\\ge": "\\le",
    "\\leq": "\\geq", "\\geq": "\\leq", "\\sum": "\\prod", "\\prod": "\\sum", "\\sin": "\\cos", "\\cos": "\\sin",
    "\\tan": "\\sin", "\\cot": "\\sin", "\\ln": "\\sin", "\\log": "\\sin", "\\exp": "\\sin", "\\max": "\\min",
    "\\min": "\\max", "\\pi": "\\alpha", "\\theta": "\\alpha", "\\infty": "7", "\\setminus": "\\cup", "\\pm": "+",
    "\\sqrt": "\\sin", "\\lfloor": "\\lceil", "\\rfloor": "\\rceil", "\\ne": "=", "\\neq": "=", "\\in": "=",
}  # fmt: skip
# Commands that may go without a change of the value.
_LAYOUT = frozenset(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \middle \displaystyle \textstyle \limits \quad \qquad
    \cdot \times \dfrac \tfrac \mathstrut \hfill""".split()  # noqa: SIM905
)


def are_same(gold: str, answer: str) -> bool:
    """Whether math-verify calls the two equal, and shows that it read all of both."""
    clear_cache()  # sympy's cache would make the worker grow with every call
    return _are_equal(gold, answer) and _is_read_whole(gold) and _is_read_whole(answer)


def _is_read_whole(text: str) -> bool:
    """Whether every piece counts: with a number, a letter or a sign changed, something else is read.

    math-verify leaves out what it does not know: 4 ft × 12 ft is 4 to it.
    """
    edits = list(islice(_edit(text), _MAX_EDITS + 1))
    if len(edits) > _MAX_EDITS:
        return False
    read = _parse(text)[:1]
    return all(_parse(edited)[:1] != read for edited in edits)


def _edit(text: str) -> Iterator[str]:
    """The text with one piece changed, for every piece that says something."""
    for found in _PIECE.finditer(text):
        piece = found[0]
        match found.lastgroup:
            case "number":
                other = str(int(piece) + 1) if len(piece) < 1_000 else piece + "1"
            case "letter":
                other = "k" if piece != "k" else "j"
            case "sign" | "command":
                other = "" if piece in _LAYOUT else _OTHER.get(piece, " ")
            case _:
                other = ""
        if other:
            yield f"{text[: found.start()]}{other} {text[found.end() :]}"


def _are_equal(gold: str, answer: str) -> bool:
    """Whether math-verify calls the two equal and, for expressions, they agree to 40 digits as well."""
    golds, answers = _parse(gold), _parse(answer)
    if not golds or not answers or not verify(golds[0], answers[0], timeout_seconds=None):
        return False
    both = golds[0], answers[0]
    if all(isinstance(form, Eq) for form in both) and both[0].lhs not in both[1].args:
        return False  # it looks at the right sides: dy/dx = 2x, dx/dy = 2x
    return _values_agree(*both) if all(isinstance(form, Expr) for form in both) else True


def _parse(text: str) -> list[Any]:
    # without its own timeouts: they use signals, and this process is killed from outside
    return list(parse(f"${text}$", _LATEX, fallback_mode="no_fallback", parsing_timeout=None))


def _values_agree(gold: Any, answer: Any) -> bool:
    """Whether they agree to 40 digits at three points; math-verify rounds to 15 and takes 10^-20 for 10^-21."""
    difference = gold - answer
    if difference == 0:
        return True
    random = Random(0)  # always the same points, so that verdicts are repeatable
    for _ in range(_POINTS):
        point = {symbol: random.randrange(2, 60) for symbol in difference.free_symbols}
        scale = abs(gold.subs(point).evalf(_DIGITS + 20)) + abs(answer.subs(point).evalf(_DIGITS + 20))
        left = abs(difference.subs(point).evalf(_DIGITS + 20, maxn=400))
        if scale.is_number and left.is_number and bool(left > scale * 10**-_DIGITS):
            return False
    return True


# Called on import, in the template, so that forked workers have the grammars and all of sympy loaded.
are_same(r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)")
are_same(r"\sqrt{x^2}+\sum_{k=1}^{n} k", r"x+\sum_{k=1}^{n} k")
