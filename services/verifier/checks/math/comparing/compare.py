"""Compares an answer's form with the gold's: structure first, then the scalars in it."""

from fractions import Fraction

from services.verifier.checks.math.comparing.assignments import (
    is_equation,
)
from services.verifier.checks.math.comparing.equivalence import (
    Equivalence,
    compare_in_any_order,
    compare_in_order,
)
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.relations import to_interval
from services.verifier.checks.math.comparing.scalars import compare_scalars
from services.verifier.checks.math.comparing.structures.branches import expand, leading_name
from services.verifier.checks.math.comparing.structures.families import compare_families
from services.verifier.checks.math.comparing.structures.points import (
    are_named_in_order,
    compare_congruences,
    coordinates_of,
    group_points,
    in_order_of_names,
    is_residue,
)
from services.verifier.checks.math.comparing.structures.real_sets import compare_real_sets
from services.verifier.checks.math.comparing.structures.renaming import share_names
from services.verifier.checks.math.comparing.structures.statements import (
    compare_any,
    compare_relation,
    compare_to_relation,
    is_set,
)
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated, has_transcendental
from services.verifier.checks.math.reading.arithmetic import divide, negate, scale
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Bracket,
    Congruence,
    FiniteSet,
    Form,
    Matrix,
    Number,
    Numeral,
    Piecewise,
    Product,
    Quantity,
    Ratio,
    Relation,
    SetBuilder,
    SetOperation,
    Symbol,
    Text,
    ValueList,
)
from services.verifier.checks.math.reading.tokens import normalize_words
from services.verifier.checks.math.reading.units.conversion import conversion

_DEGREE = divide(Symbol("pi"), Number(Fraction(180)))
_ZERO = Number(Fraction(0))
_ROUND = {"langle": "(", "rangle": ")"}


def compare(gold: Form, answer: Form) -> Equivalence:
    """Whether the answer says what the gold says. Not symmetric: the gold decides how much is required."""
    if gold == answer:
        return Equivalence.SAME
    names = leading_name(gold), leading_name(answer)
    if None not in names and names[0] != names[1]:
        return Equivalence.DIFFERENT
    gold, answer = expand(gold), expand(answer)
    gold, answer = share_names(*group_points(gold, answer))
    if (found := compare_real_sets(gold, answer)) is not None:
        return found
    if (found := compare_families(gold, answer, compare)) is not None:
        return found
    if (found := _compare_alternatives(gold, answer)) is not None:
        return found
    if isinstance(gold, Text) or isinstance(answer, Text):
        return _compare_words(gold, answer)
    if isinstance(gold, Relation):
        return compare_to_relation(gold, answer, compare)
    if isinstance(answer, Relation):
        return compare_relation(gold, answer, compare)
    if isinstance(gold, Quantity) or isinstance(answer, Quantity):
        return _compare_quantities(gold, answer)
    if isinstance(gold, SCALARS) and isinstance(answer, SCALARS):
        if find_unevaluated(gold, answer):
            return Equivalence.DIFFERENT
        return compare_scalars(gold, answer)
    return _compare_structures(gold, answer)


def _compare_structures(gold: Form, answer: Form) -> Equivalence:
    match gold, answer:
        case ValueList(golds, by_or), ValueList(answers, other) if by_or != other and _are_letters((*golds, *answers)):
            return Equivalence.DIFFERENT  # p and q, p or q: propositions
        case ValueList(golds, _), ValueList(answers, _):
            return _compare_lists(_without_repeated_points(golds), _without_repeated_points(answers))
        case ValueList(golds, _), FiniteSet(answers):
            return compare_in_any_order(golds, _deduplicate(answers), compare)
        case FiniteSet(golds), ValueList(answers, _):
            return compare_in_any_order(_deduplicate(golds), answers, compare)
        case FiniteSet(golds), FiniteSet(answers):
            return compare_in_any_order(_deduplicate(golds), _deduplicate(answers), compare)
        case FiniteSet((only,)), _ if isinstance(answer, SCALARS):
            return compare(only, answer)
        case _, FiniteSet((only,)) if isinstance(gold, SCALARS):
            return compare(gold, only)
        case Bracket(_, _, golds), Bracket(_, _, answers) if _edges(gold) == _edges(answer):
            return compare_in_order(golds, answers, compare)
        case Bracket("(" | "langle", ")" | "rangle", golds), ValueList(answers, False):
            return compare_in_order(golds, in_order_of_names(answers), compare)
        case ValueList(golds, _), Bracket("(", ")", answers) if are_named_in_order(golds):
            return compare_in_order(golds, answers, compare)
        case Ratio(golds), Ratio(answers):
            return compare_in_order(golds, answers, compare)
        case Ratio((over, under)), _ if isinstance(answer, SCALARS) and under != _ZERO:
            return compare(divide(over, under), answer)
        case _, Ratio((over, under)) if isinstance(gold, SCALARS) and under != _ZERO:
            return compare(gold, divide(over, under))
        case Matrix(golds), Matrix(answers):
            return compare_in_order(golds, answers, lambda gold_row, row: compare_in_order(gold_row, row, compare))
        case Bracket("(" | "langle", ")" | "rangle", coordinates), Matrix():
            return compare_in_order(coordinates, coordinates_of(answer), compare)
        case Matrix(), Bracket("(" | "langle", ")" | "rangle", coordinates):
            return compare_in_order(coordinates_of(gold), coordinates, compare)
        case Piecewise(golds), Piecewise(answers):
            return compare_in_any_order(golds, answers, lambda one, other: compare_in_order(one, other, compare))
        case SetBuilder(element, condition), SetBuilder(other_element, other_condition):
            return min(compare(element, other_element), compare(condition, other_condition))
        case Congruence(), Congruence():
            return compare_congruences(gold, answer)
        case Number(), Congruence():
            return Equivalence.of(is_residue(gold, answer))
        case (Numeral(digits, 10), Number(value)) | (Number(value), Numeral(digits, 10)):
            return Equivalence.of(int(digits) == value)
        case ValueList(golds, True), _ if is_set(answer) and (union := _to_union(golds)) is not None:
            return compare(union, answer)
        case (SetOperation(), other) | (other, SetOperation()) if is_set(other):
            return _compare_sets(gold, answer)
        case _:
            return Equivalence.DIFFERENT


def _compare_alternatives(gold: Form, answer: Form) -> Equivalence | None:
    """One value said in several ways, "1.5 or 3/2", is that value; None if neither side says one so."""
    if isinstance(gold, ValueList) and gold.joined_by_or and not isinstance(answer, ValueList):
        first, *rest = gold.items
        if all(isinstance(item, (Quantity, *SCALARS)) for item in gold.items) and all(
            max(compare(first, item), compare(item, first)) is Equivalence.SAME for item in rest
        ):
            return compare_any(gold.items, (answer,), compare)
    if isinstance(answer, ValueList) and answer.joined_by_or and isinstance(gold, (Quantity, *SCALARS)):
        return min(compare(gold, item) for item in answer.items)
    return None


def _to_union(items: tuple[Form, ...]) -> Form | None:
    """x < 1 or x > 3 as a union of intervals; None if it is none."""
    found = [interval for item in items if isinstance(item, Relation) and (interval := to_interval(item))]
    if len(found) < len(items) or len({variable for variable, _ in found}) > 1:
        return None
    return SetOperation("cup", tuple(interval for _, interval in found))


def _compare_sets(gold: Form, answer: Form) -> Equivalence:
    """SAME if both are unions of the same parts, else UNKNOWN: different parts may be the same set."""
    if _is_closed_at_infinity(gold) != _is_closed_at_infinity(answer):
        return Equivalence.DIFFERENT
    if not (isinstance(gold, SetOperation) and isinstance(answer, SetOperation) and gold.name == answer.name == "cup"):
        return Equivalence.UNKNOWN
    return max(compare_in_any_order(gold.parts, answer.parts, compare), Equivalence.UNKNOWN)


def _is_closed_at_infinity(form: Form) -> bool:
    match form:
        case Bracket(opening, closing, (low, high)):
            return (opening == "[" and low == negate(Symbol("infty"))) or (closing == "]" and high == Symbol("infty"))
        case SetOperation(_, parts):
            return any(map(_is_closed_at_infinity, parts))
        case _:
            return False


def _edges(bracket: Bracket) -> list[str]:
    return [_ROUND.get(edge, edge) for edge in (bracket.opening, bracket.closing)]


def _compare_lists(golds: tuple[Form, ...], answers: tuple[Form, ...]) -> Equivalence:
    """In any order, except that bare values for named golds (a = 4, b = 5) must follow the names' order."""
    named = len({item.sides[0] for item in golds if isinstance(item, Relation) and is_equation(item)})
    if named > 1 and not any(isinstance(item, Relation) for item in answers):
        return compare_in_order(golds, answers, compare)
    found = compare_in_any_order(golds, answers, compare)
    has_inequality = any(isinstance(item, Relation) and not is_equation(item) for item in golds)
    return max(found, Equivalence.UNKNOWN) if has_inequality else found


def _are_letters(items: tuple[Form, ...]) -> bool:
    return all(isinstance(item, Symbol) for item in items)


def _without_repeated_points(items: tuple[Form, ...]) -> tuple[Form, ...]:
    """A point is a solution, however often it is listed; a repeated number counts: 1, 1, 2."""
    return _deduplicate(items) if all(isinstance(item, Bracket) for item in items) else items


def _deduplicate(items: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(items))


# --- values with units


def _compare_quantities(gold: Form, answer: Form) -> Equivalence:
    gold_value, gold_unit = (gold.value, gold.unit) if isinstance(gold, Quantity) else (gold, "")
    value, unit = (answer.value, answer.unit) if isinstance(answer, Quantity) else (answer, "")
    factor = conversion(gold_unit, unit)
    if factor is None:
        return Equivalence.DIFFERENT
    if "%" in (gold_unit, unit) and gold_unit != unit:
        return _compare_percent(gold_value, value, gold_has_sign=gold_unit == "%")
    if "°" in (gold_unit, unit) and "" in (gold_unit, unit):
        return _compare_degrees(gold_value, value, gold_has_sign=gold_unit == "°")
    if factor == 1:
        return compare(gold_value, value)
    return compare(gold_value, scale(value, factor)) if isinstance(value, SCALARS) else Equivalence.DIFFERENT


def _compare_percent(gold: Form, answer: Form, *, gold_has_sign: bool) -> Equivalence:
    """A gold of 28% is the same as 28 (percent are asked for) and as 0.28; a gold of 0.28 as 28%."""
    gold_number, number = exact_value(gold), exact_value(answer)
    if gold_number is None or number is None or find_unevaluated(gold, answer):
        return Equivalence.DIFFERENT
    if not gold_has_sign:
        return Equivalence.of(number / 100 == gold_number and abs(gold_number) <= 1)
    return Equivalence.of(number == gold_number / 100 or (number == gold_number and abs(number) >= 1))


def _compare_degrees(gold: Form, answer: Form, *, gold_has_sign: bool) -> Equivalence:
    """30 degrees are the same as a bare 30 and as pi/6; a bare pi/6 is in radians."""
    in_degrees, bare = (gold, answer) if gold_has_sign else (answer, gold)
    as_written = Equivalence.DIFFERENT if has_transcendental(in_degrees) else compare(gold, answer)
    if as_written is Equivalence.SAME:
        return as_written
    in_radians = Product((in_degrees, _DEGREE))
    return max(as_written, compare(in_radians, bare) if gold_has_sign else compare(bare, in_radians))


# --- words, and forms of several values


def _compare_words(gold: Form, answer: Form) -> Equivalence:
    gold_words, words = _words_of(gold), _words_of(answer)
    return Equivalence.of(
        gold_words is not None and words is not None and normalize_words(gold_words) == normalize_words(words)
    )


def _words_of(form: Form) -> str | None:
    """The words that a form may be: to the parser, `odd` is a product of three letters."""
    match form:
        case Text(words):
            return words
        case Symbol(name):
            return name
        case Product(factors):
            names = [factor.name for factor in factors if isinstance(factor, Symbol)]
            return "".join(names) if len(names) == len(factors) else None
        case _:
            return None
