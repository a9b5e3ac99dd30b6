"""What equations state: the value at the end of a chain, and the name that it has."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.evaluation import CONSTANTS, Unevaluable
from services.verifier.checks.math.comparing.functions import FUNCTION_NAMES
from services.verifier.checks.math.comparing.numeric_value import SamplePoint
from services.verifier.checks.math.comparing.scalars import compare_scalars, free_symbols, is_constant
from services.verifier.checks.math.reading.arithmetic import divide
from services.verifier.checks.math.reading.forms import (
    SCALARS,
    Apply,
    Bracket,
    Form,
    Number,
    Power,
    Product,
    Quantity,
    Ratio,
    Relation,
    Relator,
    Sum,
    Symbol,
    Text,
    children,
)
from services.verifier.checks.math.reading.tokens import is_denied

_ZERO = Number(Fraction(0))
_TEN = Number(Fraction(10))
_MINUS_ONE = Number(Fraction(-1))
_EQUALITIES = frozenset({Relator.EQUAL, Relator.ABOUT})
_NEVER_NAMES = CONSTANTS - {"e", "i"} | {"infty", "varnothing"}  # e may be an eccentricity, i an index
_PLANE = frozenset({"x", "y", "z"})  # an equation in these may be a curve


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value and its name: x = 5. `name` is None in 2 + 3 = 5.

    `others` are the constant members before the value: 2 + 3. Of a rounded chain, the last is the exact value.
    `unknowns` are the members that are no numbers: x, and all of x_1 = x_2 = 5.
    """

    name: Form | None
    value: Form
    others: tuple[Form, ...] = ()
    is_rounded: bool = False
    unknowns: frozenset[Form] = frozenset()

    @property
    def values(self) -> tuple[Form, ...]:
        """The members that say the same: any of a chain; of a rounded one, the exact value and the rounded one."""
        return (*self.others[-1:], self.value) if self.is_rounded else (*self.others, self.value)


def is_equation(form: Form) -> bool:
    return isinstance(form, Relation) and set(form.relators) <= _EQUALITIES


def read_assignment(relation: Relation) -> Assignment | None:
    """The value at the end of a chain of equalities: x = 2 + 3 = 5 assigns 5 to x.

    None for an equation still to be solved (3x - 1 = 5), and for a chain that contradicts itself (5 = 4).
    """
    relation = _with_name_first(relation)
    first, value = relation.sides[0], relation.sides[-1]
    return _read_chain(relation, first if _is_name(first, value) or _is_figure(first, value) else None)


def stated_values(relation: Relation) -> tuple[Form, ...]:
    """The values that an answer states by a chain whose left side may be more than a name: AB/BC = 1, P(A) = 1/2.

    Several are one value, exact and rounded; none if the chain states nothing or contradicts itself.
    """
    found = read_statement(relation)
    if found is not None and _is_of_another_variable(found):
        return ()
    return () if found is None else found.values if found.is_rounded else (found.value,)


def read_statement(relation: Relation) -> Assignment | None:
    """What an answer's chain assigns, by a name or by another left side that stands for one value."""
    relation = _with_name_first(relation)
    first, value = relation.sides[0], relation.sides[-1]
    found = _read_chain(relation, first if _is_name(first, value) or _is_quantity_asked_for(first, value) else None)
    return _read_chain(relation, first) if found is None and _has_work(relation) else found


def _with_name_first(relation: Relation) -> Relation:
    """5 = x as x = 5."""
    match relation:
        case Relation((value, Symbol() as name), (Relator.EQUAL,)) if is_constant(value) and not is_constant(name):
            return relation if isinstance(value, Text) else Relation((name, value), relation.relators)
        case _:
            return relation


def _is_of_another_variable(found: Assignment) -> bool:
    """Whether a function of one variable is given by an expression in another: f(y) = x."""
    match found.name:
        case Apply(name, (Symbol(variable),)) if name not in FUNCTION_NAMES:
            symbols = free_symbols(found.value)
            return len(symbols) == 1 and variable not in symbols
        case _:
            return False


def _has_work(relation: Relation) -> bool:
    """Whether a chain from an expression to a number passes through others: 3^{x+2} = 9·3^x = 9·5 = 45."""
    first, *members, value = relation.sides
    return (
        not is_constant(first)
        and is_constant(value)
        and any(is_constant(member) and not isinstance(member, Text) for member in members)
    )


def _read_chain(relation: Relation, name: Form | None) -> Assignment | None:
    words = [side.words for side in relation.sides if isinstance(side, Text)]
    if not is_equation(relation) or any(map(is_denied, words)):
        return None
    if name is None and (isinstance(relation.sides[0], Text) or not is_constant(relation.sides[0])):
        return None
    value = relation.sides[-1]
    start = 0 if name is None else 1
    about = [at for at, relator in enumerate(relation.relators) if relator is Relator.ABOUT]
    members = [(at, side) for at, side in enumerate(relation.sides) if at >= start and not isinstance(side, Text)]
    if isinstance(value, Text):
        return Assignment(name, value) if all(side == value for side in relation.sides[start:]) else None
    if is_constant(value):
        if isinstance(name, Symbol) and any(name.name in free_symbols(side) for _, side in members):
            return None  # x = 2x = 6
        members = [(at, side) for at, side in members if is_constant(side)]
    for (left_at, left), (right_at, right) in pairwise(members):
        if not _holds(left, right, is_about=any(left_at <= at < right_at for at in about)):
            return None
    others = [side for at, side in members[:-1] if not about or at <= about[0]]
    is_rounded = bool(about and others) and not _is_decimal(others[-1]) and _is_rounding(others[-1], value)
    unknowns = [side for side in relation.sides[:-1] if isinstance(side, Text) or not is_constant(side)]
    return Assignment(name, value, tuple(others), is_rounded, frozenset(unknowns))


def _holds(left: Form, right: Form, *, is_about: bool) -> bool:
    left, right = _without_units(left, right)
    if is_about:
        return _is_near(left, right)
    if isinstance(left, SCALARS) and isinstance(right, SCALARS):
        in_tens = _with_base_ten(left), _with_base_ten(right)
        return Equivalence.SAME in (compare_scalars(left, right), compare_scalars(*in_tens))
    return left == right


def _without_units(left: Form, right: Form) -> tuple[Form, Form]:
    """The values of two members, in which a missing unit says nothing and a percent sign counts."""
    if not isinstance(left, Quantity) and not isinstance(right, Quantity):
        return left, right
    units = [form.unit if isinstance(form, Quantity) else "" for form in (left, right)]
    values = [form.value if isinstance(form, Quantity) else form for form in (left, right)]
    if units[0] == units[1]:
        return values[0], values[1]
    if "%" in units:
        values = [divide(v, Number(Fraction(100))) if u == "%" else v for v, u in zip(values, units, strict=True)]
        units = ["" if unit == "%" else unit for unit in units]
    return (values[0], values[1]) if "" in units else (left, right)


def _with_base_ten(form: Form) -> Form:
    r"""The form with \log as the common logarithm."""
    match form:
        case Apply("log", (argument,)):
            return Apply("log", (_with_base_ten(argument), _TEN))
        case Sum(parts) | Product(parts):
            return type(form)(tuple(map(_with_base_ten, parts)))
        case Power(base, exponent):
            return Power(_with_base_ten(base), _with_base_ten(exponent))
        case _:
            return form


def _is_near(left: Form, right: Form) -> bool:
    """Whether the right side is the left one, rounded: within one in a thousand, or to its last decimal."""
    try:
        exact, rounded = SamplePoint(0).evaluate(left), SamplePoint(0).evaluate(right)
    except Unevaluable:
        return False
    return bool(abs(exact - rounded) * 1000 <= abs(exact)) or _is_rounding(left, right)


def _is_rounding(exact: Form, rounded: Form) -> bool:
    """Whether a decimal is the exact value, rounded to its last digit or cut off there."""
    exact, rounded = _without_units(exact, rounded)
    if not isinstance(rounded, Number):
        return False
    digits = 0
    while digits < 60 and (rounded.value * 10**digits).denominator != 1:
        digits += 1
    try:
        value = SamplePoint(0).evaluate(exact)
        beyond = (abs(value) - abs(SamplePoint(0).evaluate(rounded))) * 10**digits
    except Unevaluable:
        return False
    return bool(-0.5 <= beyond < 1) and bool(value * rounded.value.numerator > 0)


def _is_decimal(form: Form) -> bool:
    """Whether it is a number with decimals at most, so that it may be a rounded one itself."""
    if not isinstance(form, Number):
        return False
    under = form.value.denominator
    for prime in (2, 5):
        while under % prime == 0:
            under //= prime
    return under == 1


def _is_name(form: Form, value: Form) -> bool:
    """Whether a left side is a name rather than arithmetic: x, f(3), AB, (p,q), a + b, V_1:V_2.

    Sums and products of names are none if the value is 0: "3x - y = 0" is a line.
    """
    match form:
        case Symbol(name):
            return name not in _NEVER_NAMES
        case Apply(name, _):
            return name not in FUNCTION_NAMES or not is_constant(form)
        case Text():
            return True
        case Product(parts) | Sum(parts):
            return value != _ZERO and all(_is_name(part, value) for part in parts)
        case Bracket(_, _, parts) | Ratio(parts):
            return all(_is_name(part, value) for part in parts) and len(set(parts)) == len(parts)
        case _:
            return False


def _is_figure(form: Form, value: Form) -> bool:
    """Whether a left side measures a figure, by its points' letters: AB/BC, AB^2."""
    symbols = free_symbols(form)
    is_measure = isinstance(form, Product | Power) and len(symbols) > 1 and is_constant(value) and value != _ZERO
    return is_measure and all(name.isupper() and len(name) == 1 for name in symbols)


def _is_quantity_asked_for(form: Form, value: Form) -> bool:
    r"""Whether a left side stands for one value though it is no name: AB/BC, a^2 + b^2, f(1) + f(2), P(A \cap B).

    With one unknown it is an equation to be solved (x^2 = 5), and so is any that says zero. In x and y, only a
    quotient is none of a curve's equations.
    """
    if value == _ZERO:
        return False
    if isinstance(form, Product) and _is_derivative(form.factors):
        return True
    if not is_constant(value):
        return False
    symbols = free_symbols(form)
    if any(isinstance(part, Apply) and part.name not in FUNCTION_NAMES for part in _parts(form)):
        return True
    if isinstance(form, Power) and _is_name(form.base, value) and not isinstance(form.base, Symbol):
        return is_constant(form.exponent)
    if len(symbols) < 2 or not isinstance(form, SCALARS):
        return bool(symbols) and not isinstance(form, (*SCALARS, Bracket))
    return not symbols & _PLANE or _is_quotient_of_names(form)


def _is_derivative(factors: tuple[Form, ...]) -> bool:
    """dy/dx"""
    d = Symbol("d")
    match factors:
        case (first, *_, Power(Product((under, *_)), exponent)):
            return first == under == d and exponent == _MINUS_ONE
        case _:
            return False


def _is_quotient_of_names(form: Form) -> bool:
    parts = form.factors if isinstance(form, Product) else ()
    names = [part.base if isinstance(part, Power) and part.exponent == _MINUS_ONE else part for part in parts]
    return any(isinstance(part, Power) for part in parts) and all(isinstance(name, Symbol) for name in names)


def _parts(form: Form) -> list[Form]:
    """The form and all forms in it."""
    found = [form]
    for part in found:
        found.extend(children(part))
    return found
