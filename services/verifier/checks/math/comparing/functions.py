"""The functions that forms may apply, and how far an error in an argument reaches in their values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

# mpmath's numbers and contexts; mpmath has no types.
Value: TypeAlias = Any
Context: TypeAlias = Any

# In bits; most functions take 20 ms of that precision.
MAX_FUNCTION_PRECISION = 12_000


@dataclass(frozen=True, slots=True)
class EvaluatedFunction:
    """`spread`: log2 of the factor from an argument's error to the value's, given the magnitudes of both.

    `depth`: how many bits below its value the smallest part of it may lie that an argument of this magnitude gives:
    tanh(x) is 1 but for e^(-2x). `max_precision` in bits: beyond it, an evaluation would take too long.
    """

    apply: Callable[..., Value]
    spread: Callable[[int, int], int]
    depth: Callable[[int, Value], int]
    max_precision: int = MAX_FUNCTION_PRECISION


def _logarithm(context: Context, value: Value, base: Value = None) -> Value:
    return context.log(value) if base is None else context.log(value) / context.log(base)


def _named(name: str) -> Callable[..., Value]:
    return lambda context, *values: getattr(context, name)(*values)


def _smooth(name: str) -> EvaluatedFunction:
    """A function with bounded derivative, such as sin: near 0 its parts are powers of the argument."""
    return EvaluatedFunction(_named(name), lambda _, __: 0, lambda size, _: 4 * max(-size, 0))


def _with_poles(name: str) -> EvaluatedFunction:
    return EvaluatedFunction(_named(name), lambda _, size: 2 * max(size, 0) + 2, lambda size, _: 4 * max(-size, 0))


def _exponential(name: str) -> EvaluatedFunction:
    """A function whose parts are e^x and e^(-x)."""
    return EvaluatedFunction(
        _named(name), lambda _, size: max(size, 0) + 2, lambda size, x: 4 * max(-size, 0) + _decay(x)
    )


def _decay(argument: Value) -> int:
    return int(3 * min(abs(argument), 20_000)) + 4


def _of_counts(name: str) -> EvaluatedFunction:
    return EvaluatedFunction(
        _named(name), lambda x, size: max(size, 0) + max(x, 0) + 8, lambda size, _: 4 * max(-size, 0), 1_200
    )


_LOG = EvaluatedFunction(_logarithm, lambda x, _: max(-x, 0) + 4, lambda size, _: 4 * max(-size, 0) + 8)

FUNCTIONS: Mapping[str, EvaluatedFunction] = {
    **{name: _smooth(name) for name in ("sin", "cos")},
    **{name: _with_poles(name) for name in ("tan", "cot", "sec", "csc")},
    **{name: _exponential(name) for name in ("sinh", "cosh", "tanh")},
    **{f"arc{name}": _with_poles(f"a{name}") for name in ("sin", "cos")},
    "arctan": EvaluatedFunction(_named("atan"), lambda _, __: 0, lambda size, _: 4 * abs(size)),
    "exp": EvaluatedFunction(_named("exp"), lambda _, size: size + 2, lambda size, _: 4 * max(-size, 0)),
    "log": _LOG,
    "ln": _LOG,
    "lg": EvaluatedFunction(lambda context, x: _logarithm(context, x, 10), _LOG.spread, _LOG.depth),
    "abs": EvaluatedFunction(lambda _, value: abs(value), lambda _, __: 0, lambda _, __: 0, 100_000),
    "factorial": _of_counts("factorial"),
    "double factorial": _of_counts("fac2"),
    "binom": _of_counts("binomial"),
}
# What they are of integers, exactly.
COUNTS: Mapping[str, Callable[..., int]] = {
    "factorial": math.factorial,
    "double factorial": lambda n: math.prod(range(n, 0, -2)) if n >= 0 else math.factorial(n),
    "binom": math.comb,
}
# Functions whose arguments may be large.
OF_ANY_SIZE = frozenset({"abs", "log", "ln", "lg", "arctan"})
# Functions that are the same between two steps: forms with them are compared at many points.
STEPS = frozenset({"floor", "ceil"})
FUNCTION_NAMES = FUNCTIONS.keys() | STEPS
