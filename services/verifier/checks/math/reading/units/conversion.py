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
    """A unit as a multiple of a product of base units, the things that it counts, and n of "units to the nth".

    `is_known`: a unit is named, though its base units may cancel, as in miles per foot.
    """

    size: Fraction
    dimensions: tuple[tuple[str, int], ...]
    things: frozenset[str]
    neutral: int = 0
    is_known: bool = False


@lru_cache(maxsize=1_024)
def _measure(unit: str) -> _Measure:
    size, dimensions, things, neutral, is_known = Fraction(1), dict[str, int](), set[str](), 0, False
    for part in unit.split():
        name, _, power = part.partition("^")
        exponent = int(power or 1)
        if name.startswith("#"):
            things.add(name)
        elif name in _NEUTRAL:
            neutral += exponent
        else:
            is_known = True
            factor, bases = SYMBOLS[name]
            size *= factor**exponent
            for base, base_exponent in bases:
                dimensions[base] = dimensions.get(base, 0) + base_exponent * exponent
    known = tuple(sorted((base, exponent) for base, exponent in dimensions.items() if exponent))
    return _Measure(size, known, frozenset(things), neutral, is_known)


def conversion(gold: str, answer: str) -> Fraction | None:
    """What a value in the answer's unit is multiplied by to be in the gold's; None if the units contradict each other.

    A missing unit contradicts none, nor does "units"; nor do things counted beside a unit (5 hours of work).
    """
    expected, given = _measure(gold), _measure(answer)
    if not (_may_be_counted_by(expected, given) and _may_be_counted_by(given, expected)):
        return None
    if expected.is_known and given.is_known:
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


def _may_be_counted_by(one: _Measure, other: _Measure) -> bool:
    """Whether square units, if the first is of them, may be the second: an area. Plain units may be anything."""
    if other.neutral:
        return one.neutral in (0, other.neutral)
    return one.neutral < 2 or not (other.dimensions or other.things) or other.dimensions == (("m", one.neutral),)
