"""The values of forms at sample points, to about 60 digits and in bounded time."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mpmath import MPContext

from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, Product, Scientific, Sum, Symbol

_CONTEXT = MPContext()
_CONTEXT.dps = 66
_SAME = _CONTEXT.mpf(10) ** -40
_ROUNDED = _CONTEXT.mpf(10) ** -55
_NEGLIGIBLE = _CONTEXT.mpf(10) ** -25
_MAX_LOG2 = 20_000
_MAX_ARGUMENT = 1_000_000
# Cost limit of one evaluation, in additions.
_BUDGET = 4_000
_FUNCTION_COST = 20

# An mpf or mpc of the context above; mpmath has no types.
Value: TypeAlias = Any

CONSTANTS: Mapping[str, Value] = {
    "pi": _CONTEXT.pi + 0,
    "e": _CONTEXT.e + 0,
    "i": _CONTEXT.mpc(0, 1),
    "degree": _CONTEXT.pi / 180,
}


class Unevaluable(ValueError):
    """The form has no numeric value, or one that is not computed here.

    Nor is a form with a part so small that it would be rounded away: such forms are made to cheat.
    """


def are_close(left: Value, right: Value) -> bool:
    """Whether two values agree to 40 digits."""
    return bool(abs(left - right) <= _SAME * max(abs(left), abs(right)))


class SamplePoint:
    """Values for the symbols of a form, always the same for one `number`, and the budget of one evaluation.

    Even numbers make all symbols positive; odd ones give each its own sign. With `allow_negligible`, a part too
    small beside the rest raises nothing.
    """

    def __init__(self, number: int, *, allow_negligible: bool = False) -> None:
        self._number = number
        self._allow_negligible = allow_negligible
        self._cost = 0

    def evaluate(self, form: Form) -> Value:
        """The form's value at this point. Raises Unevaluable."""
        self._spend(1)
        match form:
            case Number(value):
                return _CONTEXT.mpf(value.numerator) / value.denominator
            case Scientific(coefficient, exponent) if abs(exponent) < _MAX_LOG2 // 4:
                return coefficient * _CONTEXT.mpf(10) ** exponent
            case Symbol(name):
                return self._symbol(name)
            case Sum(terms):
                return self._total([self.evaluate(term) for term in terms])
            case Product(factors):
                return self._product(factors)
            case Power(base, exponent):
                return self._power(self.evaluate(base), self.evaluate(exponent))
            case Apply(name, arguments):
                return self._apply(name, arguments)
            case _:
                raise Unevaluable(f"a {type(form).__name__.lower()} is no number")

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._cost > _BUDGET:
            raise Unevaluable("more work than an answer needs")

    def _symbol(self, name: str) -> Value:
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in ("infty", "varnothing") or name.startswith("mathbb"):
            raise Unevaluable(f"{name} is no number")
        return self._random(name)

    def _random(self, name: str) -> Value:
        seed = zlib.crc32(f"{self._number} {name}".encode())
        value = _CONTEXT.mpf(seed % 999_983) / 499_979 + _CONTEXT.mpf("0.3183098861")
        return -value if self._number % 2 and seed & 0x10000000 else value

    def _total(self, values: list[Value]) -> Value:
        largest = max(map(abs, values))
        if any(self._is_negligible(value, largest) for value in values):
            raise Unevaluable("a term next to nothing beside the others")
        total = _require_bounded(sum(values[1:], values[0]))
        return _CONTEXT.mpf(0) if abs(total) <= _SAME * largest else total

    def _is_negligible(self, value: Value, beside: Value) -> bool:
        return not self._allow_negligible and value != 0 and bool(abs(value) < _NEGLIGIBLE * beside)

    def _product(self, factors: tuple[Form, ...]) -> Value:
        total = _CONTEXT.mpf(1)
        for factor in factors:
            total = _require_bounded(total * self.evaluate(factor))
        return total

    def _power(self, base: Value, exponent: Value) -> Value:
        self._spend(_FUNCTION_COST)
        if self._is_negligible(exponent, 1):
            raise Unevaluable("an exponent next to nothing")
        if base == 0:
            if _CONTEXT.re(exponent) <= 0:
                raise Unevaluable("a power of zero")
            return _CONTEXT.mpf(0)
        if abs(exponent) * (abs(_CONTEXT.mag(base)) + 1) > _MAX_LOG2:
            raise Unevaluable("a power too large")
        return _require_bounded(base**exponent)

    def _apply(self, name: str, arguments: tuple[Form, ...]) -> Value:
        self._spend(_FUNCTION_COST)
        values = [self.evaluate(argument) for argument in arguments]
        if any(self._is_negligible(value, 1) for value in values):
            raise Unevaluable("an argument next to nothing")
        if any(abs(value) > _MAX_ARGUMENT for value in values):
            raise Unevaluable("an argument too large")
        function = FUNCTIONS.get(name)
        if function is None:
            return self._random(f"{name} {arguments}")  # an unknown function: the same value for the same arguments
        try:
            found = _require_bounded(function(*values))
        except (ValueError, ZeroDivisionError, TypeError) as error:
            raise Unevaluable(f"{name} has no value there") from error
        return _CONTEXT.mpf(0) if abs(found) < _ROUNDED else found  # cos(pi/2)


def _require_bounded(value: Value) -> Value:
    if not _CONTEXT.isfinite(value):
        raise Unevaluable("an infinite value")
    if value != 0 and abs(_CONTEXT.mag(value)) > _MAX_LOG2:
        raise Unevaluable("a value too large or too small")
    return value


def _logarithm(value: Value, base: Value = None) -> Value:
    return _CONTEXT.log(value) if base is None else _CONTEXT.log(value) / _CONTEXT.log(base)


def _floor(value: Value) -> Value:
    if _CONTEXT.im(value) != 0 or abs(value - _CONTEXT.nint(value)) < _SAME:
        raise Unevaluable("a step where it may round either way")
    return _CONTEXT.floor(value)


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    **{name: getattr(_CONTEXT, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "exp")},
    **{f"arc{name}": getattr(_CONTEXT, f"a{name}") for name in ("sin", "cos", "tan")},
    "tanh": _CONTEXT.tanh,
    "log": _logarithm,
    "ln": _logarithm,
    "lg": lambda value: _logarithm(value, 10),
    "abs": abs,
    "floor": _floor,
    "ceil": lambda value: _floor(value) + 1,
    "factorial": _CONTEXT.factorial,
    "binom": _CONTEXT.binomial,
}
