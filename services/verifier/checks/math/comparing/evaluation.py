"""The value of a form at a sample point and at one precision, with a bound on its error."""

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from mpmath import MPContext

from services.verifier.checks.math.comparing.functions import (
    COUNTS,
    FUNCTIONS,
    MAX_FUNCTION_PRECISION,
    OF_ANY_SIZE,
    STEPS,
    Context,
    Value,
)
from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, Product, Scientific, Sum, Symbol

CONSTANTS = frozenset({"pi", "e", "i", "degree"})
MAX_PRECISION = 120_000
# A zero must be one by this many bits more than the smallest part of what is compared could hide.
_MARGIN = 160
_MAX_LOG2 = 60_000
_MAX_ARGUMENT = 1_000_000
_MAX_COUNT = 5_000
# Cost limit of one evaluation, in microseconds or so.
_BUDGET = 30_000
_NODE_COST = 30
_FUNCTION_COST = 100
_ROOT_COST = 20
_NOTHING = 1 << 40  # minus the magnitude of zero


class Unevaluable(ValueError):
    """The form has no numeric value, or one that is not computed here."""


class TooCoarse(Exception):
    """What may be zero or not is not told apart at this precision."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bits are needed")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Approximation:
    """A value; log2 of a bound on its error; and log2 of the smallest part that it is known to be made of.

    1 + e^-100 has parts down to e^-100: a difference that small is no rounding.
    """

    value: Value
    error: int
    grain: int

    @property
    def size(self) -> int:
        return int(self.value.context.mag(self.value)) if self.value != 0 else -_NOTHING


def hidden_below(largest: int, smallest: int) -> int:
    """log2 of what a difference must be below to count as none."""
    return largest - 2 * max(largest - smallest, 0) - _MARGIN if largest > -_NOTHING else _NOTHING


def _sample(name: str, number: int) -> tuple[int, int]:
    """The value of a symbol as a fraction."""
    seed = zlib.crc32(f"{number} {name}".encode())
    if number < 4:
        over = (seed % 999_983) * 2 + 636_619
        return (-over if number % 2 and seed & 0x10000000 else over), 999_958
    reach = (12, 40, 100, 5_000)[number // 4 % 4]
    match number % 4:
        case 0 | 2:
            return 1 + seed % reach, 1
        case 1:
            return 1 + seed % (2 * reach) - reach, 1
        case _:
            return seed % 999_983 * reach - 499_991 * reach, 499_979


_CONTEXTS = threading.local()


def _context(precision: int) -> Context:
    context = getattr(_CONTEXTS, "context", None)
    if context is None:
        context = _CONTEXTS.context = MPContext()
    context.prec = precision
    return context


class PointEvaluation:
    """One evaluation of a form at one precision."""

    def __init__(self, number: int, precision: int, cost: int) -> None:
        self._number = number
        self._precision = precision
        self._context = _context(precision)
        self.cost = cost

    def read(self, form: Form) -> Approximation:
        self._spend(_NODE_COST + self._precision // 500)
        match form:
            case Number(value):
                return self._rational(value.numerator, value.denominator)
            case Scientific(coefficient, exponent) if abs(exponent) < _MAX_LOG2 // 4:
                power = self._context.mpf(10) ** exponent
                return self._rounded(coefficient * power, 0, coefficient.bit_length())
            case Symbol(name):
                return self._symbol(name)
            case Sum(terms):
                return self._total([self.read(term) for term in terms])
            case Product(factors):
                return self._product([self.read(factor) for factor in factors])
            case Power(base, exponent):
                return self._power(self.read(base), self.read(exponent))
            case Apply(name, arguments):
                return self._apply(name, arguments)
            case _:
                raise Unevaluable(f"a {type(form).__name__.lower()} is no number")

    def _spend(self, cost: int) -> None:
        self.cost += cost
        if self.cost > _BUDGET:
            raise Unevaluable("more work than an answer needs")

    def _spend_function(self, max_precision: int) -> None:
        if self._precision > max_precision:
            raise Unevaluable("more precision than can be computed in time")
        self._spend(int(_FUNCTION_COST * max(self._precision / 1_000, 1) ** 1.7))

    def _spend_power(self, is_algebraic: bool) -> None:
        if is_algebraic:
            self._spend(int(_ROOT_COST * max(self._precision / 1_000, 1) ** 1.6))
        else:
            self._spend_function(MAX_FUNCTION_PRECISION)

    def _rounded(self, value: Value, spread: int, depth: int) -> Approximation:
        """A value with an error of 2^spread roundings, and parts `depth` bits below it."""
        if value == 0:
            return Approximation(value, -_NOTHING, _NOTHING)
        size = self._size(value)
        return Approximation(value, size - self._precision + spread, size - depth)

    def _size(self, value: Value) -> int:
        if not self._context.isfinite(value):
            raise Unevaluable("an infinite value")
        size = int(self._context.mag(value))
        if abs(size) > _MAX_LOG2:
            raise Unevaluable("a value too large or too small")
        return size

    def _rational(self, over: int, under: int) -> Approximation:
        depth = over.bit_length() + under.bit_length()
        return self._rounded(self._context.mpf(over) / under, 2, 0 if depth < 24 else depth)

    def _symbol(self, name: str) -> Approximation:
        match name:
            case "pi" | "e":
                return self._rounded(+getattr(self._context, name), 2, 0)
            case "i":
                return self._rounded(self._context.mpc(0, 1), 0, 0)
            case "degree":
                return self._rounded(self._context.pi / 180, 2, 0)
            case "infty" | "varnothing":
                raise Unevaluable(f"{name} is no number")
        if name.startswith("mathbb"):
            raise Unevaluable(f"{name} is no number")
        return self._random(name)

    def _random(self, name: str) -> Approximation:
        over, under = _sample(name, self._number)
        return self._rounded(self._context.mpf(over) / under, 2, 0)

    def _total(self, parts: list[Approximation]) -> Approximation:
        total = sum((part.value for part in parts[1:]), parts[0].value)
        largest, grain = max(part.size for part in parts), min(part.grain for part in parts)
        error = max(*(part.error for part in parts), largest - self._precision) + len(parts).bit_length() + 1
        if total == 0 or int(self._context.mag(total)) <= error + 1:
            self._require(error, largest, grain)
            return self._rounded(self._context.mpf(0), 0, 0)
        return self._real(total, error, min(grain, self._size(total)))

    def _require(self, error: int, largest: int, grain: int) -> None:
        """Raises TooCoarse unless a value within its error is none."""
        missing = error - hidden_below(largest, grain)
        if missing > 0:
            raise TooCoarse(self._precision + missing + 64)

    def _real(self, value: Value, error: int, grain: int) -> Approximation:
        """Without an imaginary part that is an error."""
        imaginary = self._context.im(value)
        if imaginary != 0 and int(self._context.mag(imaginary)) <= error + 1:
            self._require(error, self._size(value), grain)
            value = self._context.re(value)
        return Approximation(value, error, grain)

    def _product(self, factors: list[Approximation]) -> Approximation:
        total = self._context.mpf(1)
        relative = -self._precision
        for factor in factors:
            total = total * factor.value
            if total == 0:
                return self._rounded(total, 0, 0)
            self._size(total)
            relative = max(relative, factor.error - factor.size)
        size = self._size(total)
        grain = sum(factor.grain for factor in factors)
        return self._real(total, size + relative + len(factors).bit_length() + 2, min(grain, size))

    def _power(self, base: Approximation, exponent: Approximation) -> Approximation:
        power = self._as_integer(exponent)
        if base.value == 0:
            if self._context.re(exponent.value) <= 0:
                raise Unevaluable("a power of zero")
            return self._rounded(self._context.mpf(0), 0, 0)
        if abs(exponent.value) * (abs(base.size) + 1) > _MAX_LOG2:
            raise Unevaluable("a power too large")
        self._spend_power(power is not None or bool(exponent.value == self._context.mpf(0.5)))
        value = base.value ** (exponent.value if power is None else power)
        size = self._size(value)
        relative, depth = base.error - base.size, base.size - base.grain
        scale = max(exponent.size, 0)
        if power is None:
            relative = max(relative, exponent.error + abs(base.size).bit_length() + 2, -self._precision)
            depth = 2 * depth + 2 * max(-exponent.grain, 0)
        spread = max(relative, -self._precision) + scale + 4
        return self._real(value, size + spread, size - (depth << min(scale, 16)) - 1)

    def _as_integer(self, value: Approximation) -> int | None:
        if self._context.im(value.value) == 0 and value.value == self._context.nint(value.value):
            return int(value.value)
        return None

    def _apply(self, name: str, forms: tuple[Form, ...]) -> Approximation:
        arguments = [self.read(form) for form in forms]
        if name not in OF_ANY_SIZE and any(abs(argument.value) > _MAX_ARGUMENT for argument in arguments):
            raise Unevaluable("an argument too large")
        counts = [count for argument in arguments if (count := self._as_integer(argument)) is not None]
        if name in COUNTS and len(counts) == len(arguments) and max(map(abs, counts)) <= _MAX_COUNT:
            return self._count(name, counts)
        if name in STEPS and len(arguments) == 1:
            return self._step(name, arguments[0])
        function = FUNCTIONS.get(name)
        if function is None:
            return self._random(f"{name} {forms}")  # an unknown function: the same value for the same arguments
        self._spend_function(function.max_precision)
        value = self._call(name, function.apply, [argument.value for argument in arguments])
        return self._propagated(name, value, arguments)

    def _count(self, name: str, counts: list[int]) -> Approximation:
        try:
            value = COUNTS[name](*counts)
        except (ValueError, TypeError) as error:
            raise Unevaluable(f"{name} has no value there") from error
        self._spend(value.bit_length() // 10)
        return self._rounded(self._context.mpf(value), 2, 0)

    def _call(self, name: str, apply: Callable[..., Value], values: list[Value]) -> Value:
        try:
            return self._context.convert(apply(self._context, *values))
        except (ValueError, ZeroDivisionError, TypeError, OverflowError) as error:
            raise Unevaluable(f"{name} has no value there") from error

    def _propagated(self, name: str, value: Value, arguments: list[Approximation]) -> Approximation:
        function = FUNCTIONS[name]
        size = self._size(value) if value != 0 else -self._precision
        inner = max(argument.size for argument in arguments)
        if inner <= -_NOTHING:
            inner = 0
        error = max(*(a.error for a in arguments), -_NOTHING) + max(function.spread(inner, size), 0)
        error = max(error, max(size, -self._precision) - self._precision) + 6
        depth = max(max(a.size - a.grain, -a.grain) if a.value != 0 else 0 for a in arguments)
        grain = size - 2 * max(depth, 0) - function.depth(inner, arguments[0].value)
        if value == 0 or int(self._context.mag(value)) <= error + 1:
            self._require(error, 0, grain if value != 0 and size > error + 1 else min(grain + max(-size, 0), 0))
            return self._rounded(self._context.mpf(0), 0, 0)
        return self._real(value, error, min(grain, size))

    def _step(self, name: str, argument: Approximation) -> Approximation:
        value = argument.value
        if self._context.im(value) != 0:
            raise Unevaluable("the floor of a complex number")
        nearest = self._context.nint(value)
        if abs(value - nearest) <= self._context.ldexp(1, max(argument.error + 1, -MAX_PRECISION)):
            self._require(argument.error, max(argument.size, 0), min(argument.grain, 0))
            value = nearest
        return self._rounded(getattr(self._context, name)(value), 0, 0)
