"""The forms that a mathematical answer can have: a syntax tree of immutable, hashable nodes."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TypeAlias


class UnreadableAnswer(ValueError):
    """The text has no form that is known here, or is nested deeper or longer than any answer needs to be."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational: a literal, or a fraction of two."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Scientific:
    """coefficient · 10^exponent with an exponent too large to write out; the coefficient has no factor 10."""

    coefficient: int
    exponent: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable or a constant, by its LaTeX name without the backslash: x, x_1, alpha, pi, infty."""

    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    terms: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Product:
    factors: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Power:
    """A root is a power: sqrt(x) has the exponent 1/2."""

    base: "Form"
    exponent: "Form"


@dataclass(frozen=True, slots=True)
class Apply:
    """A named operation on arguments: sin, log, abs, factorial, binom, f."""

    name: str
    arguments: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class PlusMinus:
    """left ± right, or left ∓ right."""

    left: "Form"
    right: "Form"
    minus_first: bool


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with its unit, %, or °, in canonical spelling."""

    value: "Form"
    unit: str


@dataclass(frozen=True, slots=True)
class Numeral:
    """Digits in a base: 101_2."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Text:
    """Words: compared as words."""

    words: str


@dataclass(frozen=True, slots=True)
class ValueList:
    """Values separated by commas, "and" or "or", without brackets. Their order does not count."""

    items: tuple["Form", ...]
    joined_by_or: bool = False


@dataclass(frozen=True, slots=True)
class FiniteSet:
    """A set in braces."""

    items: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Bracket:
    """Values in brackets: a point, a vector or an interval. Their order and the brackets count."""

    opening: str
    closing: str
    items: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Form", ...], ...]


@dataclass(frozen=True, slots=True)
class Piecewise:
    """Values with the conditions under which they hold."""

    cases: tuple[tuple["Form", "Form"], ...]


@dataclass(frozen=True, slots=True)
class SetBuilder:
    """{element | condition}."""

    element: "Form"
    condition: "Form"


@dataclass(frozen=True, slots=True)
class SetOperation:
    """Sets joined by cup, cap or setminus."""

    name: str
    parts: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """a:b or a:b:c, also a time of day."""

    parts: tuple["Form", ...]


@dataclass(frozen=True, slots=True)
class Congruence:
    """left = right modulo `modulus`; `left` is None in "3 (mod 7)"."""

    left: "Form | None"
    right: "Form"
    modulus: "Form"


class Relator(StrEnum):
    """The sign between two sides of a relation."""

    EQUAL = "="
    UNEQUAL = "\\ne"
    LESS = "<"
    LESS_EQUAL = "\\le"
    GREATER = ">"
    GREATER_EQUAL = "\\ge"
    IN = "\\in"
    ABOUT = "\\approx"
    EQUIVALENT = "\\equiv"  # with a modulus; without one it is read as an equality


@dataclass(frozen=True, slots=True)
class Relation:
    """sides[0] relators[0] sides[1] …: a chain of one or more relations."""

    sides: tuple["Form", ...]
    relators: tuple[Relator, ...]


Form: TypeAlias = (
    Number
    | Scientific
    | Symbol
    | Sum
    | Product
    | Power
    | Apply
    | PlusMinus
    | Quantity
    | Numeral
    | Text
    | ValueList
    | FiniteSet
    | Bracket
    | Matrix
    | Piecewise
    | SetBuilder
    | Congruence
    | SetOperation
    | Ratio
    | Relation
)

SCALARS = (Number, Scientific, Symbol, Sum, Product, Power, Apply)


def children(form: Form) -> tuple[Form, ...]:
    """The forms directly inside a form."""
    match form:
        case Sum(parts) | Product(parts) | ValueList(parts, _) | FiniteSet(parts) | Ratio(parts):
            return parts
        case Power(left, right) | SetBuilder(left, right):
            return left, right
        case PlusMinus(left, right, _):
            return left, right
        case Apply(_, parts) | SetOperation(_, parts) | Bracket(_, _, parts) | Relation(parts, _):
            return parts
        case Quantity(value, _):
            return (value,)
        case Congruence(side, value, modulus):
            return (value, modulus) if side is None else (side, value, modulus)
        case Matrix(rows) | Piecewise(rows):
            return tuple(item for row in rows for item in row)
        case _:
            return ()
