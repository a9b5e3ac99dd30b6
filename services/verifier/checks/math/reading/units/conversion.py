"""The sizes of units: what a value in one unit is in another."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from services.verifier.checks.math.reading.units.table import SYMBOLS

# Names that contradict no other: 5 units, and 20° for 20 °C.
_NEUTRAL = frozenset({"unit"})
_TEMPERATURES = frozenset({"°C", "°F"})


@dataclass(frozen=True, slots=True)
class _Measure:
    """A unit as a multiple of a product of base units, and the things that it counts."""

    size: Fraction
    dimensions: tuple[tuple[str, int], ...]
    things: frozenset[str]


@lru_cache(maxsize=1_024)
def _measure(unit: str) -> _Measure:
    size, dimensions, things = Fraction(1), dict[str, int](), set[str]()
    for part in unit.split():
        name, _, power = part.partition("^")
        exponent = int(power or 1)
        if name.startswith("#"):
            things.add(name)
        elif name not in _NEUTRAL:
            factor, bases = SYMBOLS[name]
            size *= factor**exponent
            for base, base_exponent in bases:
                dimensions[base] = dimensions.get(base, 0) + base_exponent * exponent
    known = tuple(sorted((base, exponent) for base, exponent in dimensions.items() if exponent))
    return _Measure(size, known, frozenset(things))


def conversion(gold: str, answer: str) -> Fraction | None:
    """What a value in the answer's unit is multiplied by to be in the gold's; None if the units contradict each other.

    A missing unit contradicts none, nor does "units"; nor do things counted beside a unit (5 hours of work).
    """
    expected, given = _measure(gold), _measure(answer)
    if expected.dimensions and given.dimensions:
        names = {name for name, _ in (*expected.dimensions, *given.dimensions)}
        if expected.dimensions == given.dimensions:
            return given.size / expected.size
        is_short = names in ({"°", name} for name in _TEMPERATURES)
        return Fraction(1) if is_short else None
    if expected.things and given.things and not expected.dimensions and not given.dimensions:
        return Fraction(1) if expected.things & given.things else None
    if (expected.dimensions and given.things) or (given.dimensions and expected.things):
        return None
    return Fraction(1)
