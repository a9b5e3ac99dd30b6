"""Points and what else names their coordinates: a = 2, b = -14, and columns of a matrix; congruences."""

from fractions import Fraction

from services.verifier.checks.math.comparing.assignments import is_equation
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.reading.forms import (
    Bracket,
    Congruence,
    Form,
    Matrix,
    Number,
    Relation,
    Relator,
    Symbol,
    ValueList,
)


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
    """Named values as a point's coordinates; others as they stand; none if they are named otherwise."""
    names = names_of(items)
    if names is None:
        return () if any(isinstance(item, Relation) for item in items) else items
    return tuple(item for _, item in sorted(zip(names, items, strict=True), key=lambda both: _position(both[0])))


def named_coordinates(relation: Relation) -> tuple[Form, ...]:
    """(x, y) = (1, 2) as x = 1 and y = 2; () if it says something else."""
    match relation:
        case Relation((Bracket("(", ")", names), Bracket("(", ")", values)), _) if len(names) == len(values):
            if relation.relators != (Relator.EQUAL,) or len(set(names)) < len(names):
                return ()
            return tuple(Relation(both, (Relator.EQUAL,)) for both in zip(names, values, strict=True))
        case _:
            return ()


def group_points(gold: Form, answer: Form) -> tuple[Form, Form]:
    """Both, with x=1, y=2, x=3, y=4 as the points (1,2) and (3,4) if the other side has points, too."""
    grouped = _group(gold), _group(answer)
    if grouped[1] is not None and (grouped[0] is not None or _are_points(gold)):
        return grouped[0] or gold, grouped[1]
    return (grouped[0], answer) if grouped[0] is not None and _are_points(answer) else (gold, answer)


def _are_points(form: Form) -> bool:
    return isinstance(form, ValueList) and all(isinstance(item, Bracket) for item in form.items)


def _group(form: Form) -> ValueList | None:
    """Equations that give values to the same names again and again, as points; None for others."""
    if not isinstance(form, ValueList):
        return None
    names = [item.sides[0] for item in form.items if isinstance(item, Relation) and is_equation(item)]
    size = names.index(names[0], 1) if names[:1] and names[0] in names[1:] else len(names)
    if len(names) != len(form.items) or size < 2 or size == len(names) or len(names) % size:
        return None
    groups = [form.items[at : at + size] for at in range(0, len(names), size)]
    if any(names_of(group) is None for group in groups) or names != names[:size] * len(groups):
        return None
    return ValueList(tuple(Bracket("(", ")", in_order_of_names(group)) for group in groups))


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
    if modulus is None or right != number.value or number.value.denominator != 1:
        return False
    return Fraction(0) <= number.value < modulus
