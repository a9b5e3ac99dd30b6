"""Points and what else names their coordinates: a = 2, b = -14, and columns of a matrix; congruences."""

from fractions import Fraction

from services.verifier.checks.math.comparing.assignments import is_equation
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.reading.forms import Congruence, Form, Matrix, Number, Relation, Symbol


def names_of(items: tuple[Form, ...]) -> list[str] | None:
    """The names to which a list of equations gives values; None if an item is something else, or a name comes twice."""
    names = []
    for item in items:
        match item:
            case Relation((Symbol(name), *_), _) if is_equation(item):
                names.append(name)
            case _:
                return None
    return names if len(set(names)) == len(names) else None


def are_named_in_order(items: tuple[Form, ...]) -> bool:
    """Whether equations name their values in the order of the alphabet, as a point's coordinates are."""
    names = names_of(items)
    return names is not None and names == sorted(names, key=_position)


def in_order_of_names(items: tuple[Form, ...]) -> tuple[Form, ...]:
    """Named values as a point's coordinates; others as they stand."""
    names = names_of(items)
    if names is None:
        return items
    return tuple(item for _, item in sorted(zip(names, items, strict=True), key=lambda both: _position(both[0])))


def _position(name: str) -> tuple[str, int]:
    letter, _, index = name.partition("_")
    return letter, int(index) if index.isdecimal() else 0


def coordinates_of(matrix: Matrix) -> tuple[Form, ...]:
    """The coordinates of a matrix with one column or one row; none of others."""
    if len(matrix.rows) == 1:
        return matrix.rows[0]
    return tuple(row[0] for row in matrix.rows) if len(matrix.rows[0]) == 1 else ()


def compare_congruences(gold: Congruence, answer: Congruence) -> Equivalence:
    """The same class of the same name; a name that is left out contradicts none."""
    modulus, other_modulus = exact_value(gold.modulus), exact_value(answer.modulus)
    right, other_right = exact_value(gold.right), exact_value(answer.right)
    if None not in (gold.left, answer.left) and gold.left != answer.left:
        return Equivalence.DIFFERENT
    if modulus is None or right is None:
        return Equivalence.of(gold.modulus == answer.modulus and gold.right == answer.right)
    if not modulus or other_modulus is None or other_right is None or abs(modulus) != abs(other_modulus):
        return Equivalence.DIFFERENT
    return Equivalence.of((right - other_right) % modulus == 0)


def is_residue(number: Number, congruence: Congruence) -> bool:
    """Whether x = 3 (mod 7) says the remainder 3, reduced."""
    modulus, right = exact_value(congruence.modulus), exact_value(congruence.right)
    return modulus is not None and right == number.value and Fraction(0) <= number.value < modulus
