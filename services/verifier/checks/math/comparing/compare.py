"""Whether an answer says what the gold says: structure first, then the scalars in it."""

from fractions import Fraction

from services.verifier.checks.math.comparing.equivalence import (
    Equivalence,
    any_of,
    compare_in_any_order,
    compare_in_order,
)
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.relations import (
    ORDERS,
    compare_by_ratio,
    is_equation,
    read_assignment,
    to_interval,
)
from services.verifier.checks.math.comparing.scalars import compare_scalars, is_constant
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated
from services.verifier.checks.math.reading.arithmetic import divide, negate
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Bracket,
    FiniteSet,
    Form,
    Matrix,
    Number,
    Numeral,
    PlusMinus,
    Product,
    Quantity,
    Ratio,
    Relation,
    Relator,
    SetOperation,
    Sum,
    Symbol,
    Text,
    ValueList,
)
from services.verifier.checks.math.reading.tokens import normalize_words
from services.verifier.checks.math.reading.units import may_differ

_DEGREE = divide(Symbol("pi"), Number(Fraction(180)))
_ROUND = {"langle": "(", "rangle": ")"}


def compare(gold: Form, answer: Form) -> Equivalence:
    """Whether the answer is the gold. Not symmetric: the gold says how much is asked for."""
    if gold == answer:
        return Equivalence.SAME
    gold, answer = _expanded(gold), _expanded(answer)
    if isinstance(gold, Text) or isinstance(answer, Text):
        return _compare_words(gold, answer)
    if isinstance(gold, Relation):
        return _compare_to_relation(gold, answer)
    if isinstance(answer, Relation):
        return _compare_relation(gold, answer)
    if isinstance(gold, Quantity) or isinstance(answer, Quantity):
        return _compare_quantities(gold, answer)
    if isinstance(gold, SCALARS) and isinstance(answer, SCALARS):
        if find_unevaluated(gold, answer):
            return Equivalence.DIFFERENT
        return compare_scalars(gold, answer)
    return _compare_structures(gold, answer)


def _compare_structures(gold: Form, answer: Form) -> Equivalence:
    match gold, answer:
        case ValueList(golds, _), ValueList(answers, _):
            return _compare_listings(_distinct(golds), _distinct(answers))
        case (ValueList(golds, _), FiniteSet(answers)) | (FiniteSet(golds), ValueList(answers, _)):
            return compare_in_any_order(golds, answers, compare)
        case FiniteSet(golds), FiniteSet(answers):
            return compare_in_any_order(_distinct(golds), _distinct(answers), compare)
        case FiniteSet((only,)), _ if isinstance(answer, SCALARS):
            return compare(only, answer)
        case _, FiniteSet((only,)) if isinstance(gold, SCALARS):
            return compare(gold, only)
        case Bracket("(" | "langle", ")" | "rangle", golds), ValueList(answers, _):
            return compare_in_order(golds, answers, compare)
        case Bracket(), Bracket():
            return _compare_brackets(gold, answer)
        case Matrix(golds), Matrix(answers):
            return compare_in_order(golds, answers, lambda gold_row, row: compare_in_order(gold_row, row, compare))
        case Ratio(golds), Ratio(answers):
            return compare_in_order(golds, answers, compare)
        case Numeral(_, 10), Number():
            return Equivalence.of(int(gold.digits) == answer.value)
        case Number(), Numeral(_, 10):
            return Equivalence.of(int(answer.digits) == gold.value)
        case ValueList(golds, True), _ if _is_set(answer) and (union := _as_union(golds)) is not None:
            return compare(union, answer)
        case SetOperation(), _ if _is_set(answer):
            return _compare_sets(gold, answer)
        case _, SetOperation() if _is_set(gold):
            return _compare_sets(gold, answer)
        case _:
            return Equivalence.DIFFERENT


def _as_union(items: tuple[Form, ...]) -> Form | None:
    """x < 1 or x > 3 as the union that it is."""
    intervals = [to_interval(item) if isinstance(item, Relation) else None for item in items]
    found = [interval for interval in intervals if interval is not None]
    if len(found) < len(intervals) or len({variable for variable, _ in found}) > 1:
        return None
    return SetOperation("cup", tuple(interval for _, interval in found))


def _is_set(form: Form) -> bool:
    return isinstance(form, SetOperation | Bracket | FiniteSet | Symbol)


def _compare_sets(gold: Form, answer: Form) -> Equivalence:
    """The parts of a union in any order; what is not the same part by part may still be the same set."""
    if not (isinstance(gold, SetOperation) and isinstance(answer, SetOperation) and gold.name == answer.name == "cup"):
        return Equivalence.UNKNOWN
    found = compare_in_any_order(gold.parts, answer.parts, compare)
    return Equivalence.SAME if found is Equivalence.SAME else Equivalence.UNKNOWN


def _compare_brackets(gold: Bracket, answer: Bracket) -> Equivalence:
    edges = [_ROUND.get(edge, edge) for edge in (gold.opening, gold.closing, answer.opening, answer.closing)]
    if edges[:2] != edges[2:]:
        return Equivalence.DIFFERENT
    return compare_in_order(gold.items, answer.items, compare)


def _compare_listings(golds: tuple[Form, ...], answers: tuple[Form, ...]) -> Equivalence:
    """In any order; but values for named golds (a = 4, b = 5) in the order of the names."""
    named = len({item.sides[0] for item in golds if isinstance(item, Relation) and is_equation(item)})
    if named > 1 and not any(isinstance(item, Relation) for item in answers):
        return compare_in_order(golds, answers, compare)
    if any(isinstance(item, Relation) and not is_equation(item) for item in golds):
        found = compare_in_any_order(golds, answers, compare)
        return found if found is Equivalence.SAME else Equivalence.UNKNOWN
    return compare_in_any_order(golds, answers, compare)


def _distinct(items: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(items))


# --- relations


def _compare_to_relation(gold: Relation, answer: Form) -> Equivalence:
    if is_equation(gold):
        return _compare_to_equation(gold, answer)
    if gold.relators == (Relator.IN,):
        return _compare_to_membership(gold, answer)
    interval = to_interval(gold)
    if isinstance(answer, Relation):
        return _compare_inequalities(gold, answer)
    if interval is None:
        return Equivalence.UNKNOWN if _is_set(answer) else Equivalence.DIFFERENT
    return compare(interval[1], answer) if _is_set(answer) else Equivalence.DIFFERENT


def _compare_to_equation(gold: Relation, answer: Form) -> Equivalence:
    owed = read_assignment(gold)
    if not isinstance(answer, Relation):
        return Equivalence.DIFFERENT if owed is None or owed.name is None else compare(owed.value, answer)
    if not is_equation(answer):
        return Equivalence.DIFFERENT
    given = read_assignment(answer)
    if owed is not None and given is not None and owed.name == given.name:
        return compare(owed.value, given.value)
    if owed is not None and (owed.name is None or is_constant(owed.value)):
        return Equivalence.DIFFERENT  # a value is owed, not an equation that has it as its solution
    return compare_by_ratio(gold, answer)


def _compare_to_membership(gold: Relation, answer: Form) -> Equivalence:
    variable, owed = gold.sides
    if isinstance(answer, Relation):
        if answer.relators != (Relator.IN,) or answer.sides[0] != variable:
            return Equivalence.DIFFERENT
        return compare(owed, answer.sides[1])
    return compare(owed, answer)


def _compare_inequalities(gold: Relation, answer: Relation) -> Equivalence:
    if is_equation(answer):
        return Equivalence.DIFFERENT
    owed, given = to_interval(gold), to_interval(answer)
    if answer.relators == (Relator.IN,) and owed is not None:
        return compare(owed[1], answer.sides[1]) if answer.sides[0] == owed[0] else Equivalence.DIFFERENT
    if owed is not None and given is not None and owed[0] == given[0]:
        return compare(owed[1], given[1])
    if all(relator in ORDERS for relator in (*gold.relators, *answer.relators)):
        return compare_by_ratio(gold, answer)
    return Equivalence.UNKNOWN


def _compare_relation(gold: Form, answer: Relation) -> Equivalence:
    """A gold without a relation against x = 5, or x in [0, 1]."""
    if answer.relators == (Relator.IN,):
        return compare(gold, answer.sides[1]) if isinstance(answer.sides[0], Symbol) else Equivalence.DIFFERENT
    given = read_assignment(answer)
    return Equivalence.DIFFERENT if given is None else compare(gold, given.value)


# --- values with units


def _compare_quantities(gold: Form, answer: Form) -> Equivalence:
    gold_value, gold_unit = (gold.value, gold.unit) if isinstance(gold, Quantity) else (gold, "")
    value, unit = (answer.value, answer.unit) if isinstance(answer, Quantity) else (answer, "")
    if may_differ(gold_unit, unit):
        return Equivalence.DIFFERENT
    if "%" in (gold_unit, unit) and gold_unit != unit:
        return _compare_percent(gold_value, value, gold_has_sign=gold_unit == "%")
    if "°" in (gold_unit, unit) and gold_unit != unit:
        in_radians = (
            compare(Product((gold_value, _DEGREE)), value)
            if gold_unit
            else compare(gold_value, Product((value, _DEGREE)))
        )
        return any_of((compare(gold_value, value), in_radians))
    return compare(gold_value, value)


def _compare_percent(gold: Form, answer: Form, *, gold_has_sign: bool) -> Equivalence:
    """28% is 28 where percent are asked for, and 0.28 as a value. Below 1, a number is taken as a value only."""
    gold_number, number = exact_value(gold), exact_value(answer)
    if gold_number is None or number is None or find_unevaluated(gold, answer):
        return Equivalence.DIFFERENT
    with_sign, without = (gold_number, number) if gold_has_sign else (number, gold_number)
    if with_sign / 100 == without and (gold_has_sign or abs(without) <= 1):
        return Equivalence.SAME
    return Equivalence.of(with_sign == without and (without.denominator == 1 or abs(without) > 1))


# --- words, and what stands for several values


def _compare_words(gold: Form, answer: Form) -> Equivalence:
    gold_words, words = _words_of(gold), _words_of(answer)
    return Equivalence.of(
        gold_words is not None and words is not None and normalize_words(gold_words) == normalize_words(words)
    )


def _words_of(form: Form) -> str | None:
    """The words that a form is, or could be meant as: the parser takes `odd` for a product of three letters."""
    match form:
        case Text(words):
            return words
        case Symbol(name):
            return name
        case Product(factors):
            names = [factor.name if isinstance(factor, Symbol) else None for factor in factors]
            return "".join(name for name in names if name) if all(names) else None
        case _:
            return None


def _expanded(form: Form) -> Form:
    """± written out, sums in listings flattened, and n = 1, 2, 3 taken for the three values that it is."""
    match form:
        case ValueList(items, joined_by_or):
            return _with_name_left_out(_expanded_items(items), joined_by_or)
        case FiniteSet(items):
            return FiniteSet(_expanded_items(items))
        case _:
            branches = _branches(form)
            return form if len(branches) == 1 else ValueList(branches)


def _with_name_left_out(items: tuple[Form, ...], joined_by_or: bool) -> ValueList:
    first, *rest = items
    if isinstance(first, Relation) and is_equation(first) and not any(isinstance(item, Relation) for item in rest):
        value = read_assignment(first)
        return ValueList((value.value if value and value.name else first, *rest))
    return ValueList(items, joined_by_or)


def _expanded_items(items: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(branch for item in items for branch in _branches(item))


def _branches(form: Form) -> tuple[Form, ...]:
    """The two values of a form with one ±; the form itself without."""
    match form:
        case PlusMinus(left, right, minus_first):
            pair = (_plus(left, right), _plus(left, negate(right)))
            return pair[::-1] if minus_first else pair
        case Sum(parts) | Product(parts):
            split = [_branches(part) for part in parts]
            if all(len(branches) == 1 for branches in split):
                return (form,)
            return tuple(type(form)(tuple(b[min(i, len(b) - 1)] for b in split)) for i in (0, 1))
        case Relation(sides, relators) if is_equation(form):
            values = _branches(sides[-1])
            return tuple(Relation((*sides[:-1], value), relators) for value in values)
        case _:
            return (form,)


def _plus(left: Form, right: Form) -> Form:
    return right if left == Number(Fraction(0)) else Sum((left, right))
