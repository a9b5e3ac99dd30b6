"""How forms are evaluated and compared: exactly, to 40 digits, and left open where neither decides."""

import math
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from services.verifier.checks.math.comparing.assignments import read_assignment
from services.verifier.checks.math.comparing.compare import compare
from services.verifier.checks.math.comparing.equivalence import (
    Equivalence,
    compare_in_any_order,
    compare_in_order,
)
from services.verifier.checks.math.comparing.evaluation import Unevaluable
from services.verifier.checks.math.comparing.exact_value import exact_value
from services.verifier.checks.math.comparing.numeric_value import SamplePoint, agree, are_close
from services.verifier.checks.math.comparing.relations import to_interval
from services.verifier.checks.math.comparing.scalars import compare_scalars, free_symbols
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated
from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power, Product, Relation, Sum, Symbol
from services.verifier.checks.math.reading.parsed_answer import parse_answer

SAME, DIFFERENT, UNKNOWN = Equivalence
RATIONALS = st.fractions(min_value=-100, max_value=100, max_denominator=50).map(Number)
ARITHMETIC = st.recursive(
    RATIONALS,
    lambda forms: st.one_of(
        st.lists(forms, min_size=2, max_size=3).map(lambda terms: Sum(tuple(terms))),
        st.lists(forms, min_size=2, max_size=3).map(lambda factors: Product(tuple(factors))),
        st.tuples(forms, st.integers(0, 4)).map(lambda both: Power(both[0], Number(Fraction(both[1])))),
        forms.map(lambda form: Apply("abs", (form,))),
    ),
    max_leaves=8,
)


def _form(text: str) -> Form:
    (form,) = parse_answer(text).forms
    return form


def _compute(form: Form) -> Fraction:
    """The value by Python's own arithmetic."""
    match form:
        case Number(value):
            return value
        case Sum(terms):
            return sum(map(_compute, terms), Fraction(0))
        case Product(factors):
            return math.prod(map(_compute, factors), start=Fraction(1))
        case Power(base, Number(exponent)):
            return _compute(base) ** int(exponent)
        case Apply("abs", (argument,)):
            return abs(_compute(argument))
        case _:
            raise AssertionError(form)


def _divides_by_zero(form: Form) -> bool:
    """Whether 0^0 is in it, which has no value here."""
    match form:
        case Power(base, Number(exponent)):
            return (exponent == 0 and _compute(base) == 0) or _divides_by_zero(base)
        case Sum(parts) | Product(parts) | Apply(_, parts):
            return any(map(_divides_by_zero, parts))
        case _:
            return False


@given(ARITHMETIC)
def test_an_exact_value_is_that_of_arithmetic(form: Form) -> None:
    assert exact_value(form) == (None if _divides_by_zero(form) else _compute(form))


@given(ARITHMETIC)
def test_a_numeric_value_is_close_to_the_exact_one(form: Form) -> None:
    exact = exact_value(form)
    assume(exact is not None)
    point = SamplePoint(0)
    try:
        value = point.evaluate(form)
    except Unevaluable:
        reject()  # a power or an argument beyond what is evaluated
    expected = point.evaluate(Number(exact))
    assert are_close(value, expected) or (exact == 0 and abs(value) < 1e-40)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\sqrt{\frac{4}{9}}", Fraction(2, 3)),
        (r"\sqrt[3]{27}", Fraction(3)),
        (r"5!", Fraction(120)),
        (r"\binom{10}{3}", Fraction(120)),
        (r"\lfloor 7/2 \rfloor", Fraction(3)),
        (r"\lceil 7/2 \rceil", Fraction(4)),
        (r"\sqrt{2}", None),
        (r"2000!", None),
        (r"10^{10^{10}}", None),
        ("x", None),
    ],
)
def test_closed_forms_have_exact_values_while_these_are_short(text: str, value: Fraction | None) -> None:
    assert exact_value(_form(text)) == value


def test_a_sample_point_is_always_the_same_and_positive_at_even_numbers() -> None:
    names = [f"x_{number}" for number in range(20)]
    values = {number: [SamplePoint(number).evaluate(Symbol(name)) for name in names] for number in range(4)}
    assert values[1] == [SamplePoint(1).evaluate(Symbol(name)) for name in names]
    assert all(value > 0 for value in values[0] + values[2])
    assert {value > 0 for value in values[1]} == {True, False}
    assert values[0] != values[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{2}+10^{-30}", r"\sqrt{2}"),
        ("1-e^{-100}", "1"),
        ("1-e^{-5000}", "1"),
        ("2000!+1", "2000!"),
        (r"(1+\sqrt2)^{200}+(1-\sqrt2)^{200}", r"(1+\sqrt2)^{200}"),
        (r"2^{1006}\sqrt{2^{2010}+2}-2^{2011}", "0"),
        (r"(1+10^{-30})(1-10^{-30})\pi", r"\pi"),
        (r"\tanh(200)", "1"),
        (r"\cos(10^{-30})", "1"),
        (r"\sqrt{1+10^{-40}}", "1"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        (r"\sin(\pi(1+10^{-50}))", "0"),
        (r"\ln(1+10^{-60})", "0"),
        (r"\arctan(10^{5})", r"\frac{\pi}{2}"),
        (r"\sqrt{10^{60}+1}-10^{30}", "0"),
        (r"\cosh(300)", r"\sinh(300)"),
    ],
)
def test_values_that_differ_by_little_differ(one: str, other: str) -> None:
    assert not agree(_form(one), _form(other), 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"2^{2011}(\sqrt{1+2^{-2009}}-1)", r"2^{1006}\sqrt{2^{2010}+2}-2^{2011}"),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
        (r"\sqrt{2}\sqrt{3}-\sqrt{6}", "0"),
        (r"\sin(\pi)", "0"),
        (r"\lfloor\sqrt{2}\sqrt{2}\rfloor", "2"),
        (r"\lfloor 3\cdot\frac{\sqrt{4}}{3}\rfloor", "2"),
        (r"e^{i\pi}", "-1"),
        (r"(1+\sqrt2)^{200}(1-\sqrt2)^{200}", "1"),
        (r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{\sqrt{5}-2}", r"\sqrt{5}"),
        (r"4\arctan\frac{1}{5}-\arctan\frac{1}{239}", r"\frac{\pi}{4}"),
        (r"\ln(1+10^{-60})+\ln(10^{60})", r"\ln(10^{60}+1)"),
    ],
)
def test_values_that_are_the_same_agree(one: str, other: str) -> None:
    assert agree(_form(one), _form(other), 0)


def test_an_evaluation_has_a_budget() -> None:
    with pytest.raises(Unevaluable, match="no numeric value"):
        SamplePoint(0).evaluate(Sum((Symbol("x"),) * 5_000))


@given(st.lists(st.sampled_from(Equivalence), max_size=5))
def test_equivalences_combine_as_three_valued_logic(found: list[Equivalence]) -> None:
    """UNKNOWN stands for both: what holds for every way of replacing it is known."""
    ways = list(product(*[[SAME, DIFFERENT] if one is UNKNOWN else [one] for one in found]))
    every, some = {all(one is SAME for one in way) for way in ways}, {any(one is SAME for one in way) for way in ways}
    assert min(found, default=SAME) is (Equivalence.of(every.pop()) if len(every) == 1 else UNKNOWN)
    assert max(found, default=DIFFERENT) is (Equivalence.of(some.pop()) if len(some) == 1 else UNKNOWN)


@given(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(0, 3), max_size=4))
def test_lists_are_compared_in_any_order_as_by_trying_all(golds: list[int], answers: list[int]) -> None:
    is_permutation = any(list(order) == golds for order in permutations(answers))
    assert compare_in_any_order(golds, answers, lambda a, b: Equivalence.of(a == b)) is Equivalence.of(is_permutation)
    assert compare_in_order(golds, answers, lambda a, b: Equivalence.of(a == b)) is Equivalence.of(golds == answers)


def test_a_long_list_is_compared_in_one_order_only() -> None:
    golds = list(range(41))
    assert compare_in_any_order(golds, golds, lambda a, b: Equivalence.of(a == b)) is SAME
    assert compare_in_any_order(golds, golds[::-1], lambda a, b: Equivalence.of(a == b)) is UNKNOWN


@pytest.mark.parametrize(
    ("gold", "answer", "found"),
    [
        ("(x+1)^2", "x^2+2x+1", SAME),
        ("x^2", "x^3", DIFFERENT),
        ("x", r"\sqrt{x^2}", UNKNOWN),
        (r"\frac{\ln 3}{\ln 2}", r"\log_2 3", SAME),
        (r"\pi", "3.14159265358979323846264338327950288419716939937510", DIFFERENT),
        (r"\infty", r"2\infty", DIFFERENT),
        (r"\sin^2 x+\cos^2 x", "1", SAME),
    ],
)
def test_scalars_are_compared(gold: str, answer: str, found: Equivalence) -> None:
    assert compare_scalars(_form(gold), _form(answer)) is found


def test_free_symbols_are_variables_and_no_constants() -> None:
    assert free_symbols(_form(r"\pi x + e y_1 + i")) == {"x", "y_1"}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x = 5", "x", "5"),
        ("x = 2+3 = 5", "x", "5"),
        ("2+3 = 5", None, "5"),
        ("f(3) = 5", "f(3)", "5"),
        (r"x = \sqrt{2} \approx 1.41", "x", "1.41"),
    ],
)
def test_a_chain_of_equalities_assigns_its_end(text: str, name: str | None, value: str) -> None:
    relation = _form(text)
    assert isinstance(relation, Relation)
    found = read_assignment(relation)
    assert found is not None
    assert (found.name, found.value) == (None if name is None else _form(name), _form(value))


@pytest.mark.parametrize("text", ["3x-1 = 5", "5 = 4", "x = 3 = 5", "3x-y = 0", r"x = \sqrt{2} \approx 1.5", "x < 5"])
def test_an_equation_that_is_to_be_solved_or_contradicts_itself_assigns_nothing(text: str) -> None:
    relation = _form(text)
    assert isinstance(relation, Relation)
    assert read_assignment(relation) is None


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        (r"x \le 2", r"(-\infty, 2]"),
        ("2 < x", r"(2, \infty)"),
        (r"1 < x \le 3", "(1, 3]"),
        (r"3 \ge x > 1", "(1, 3]"),
    ],
)
def test_an_inequality_is_an_interval(text: str, interval: str) -> None:
    relation = _form(text)
    assert isinstance(relation, Relation)
    assert to_interval(relation) == (Symbol("x"), _form(interval))


@pytest.mark.parametrize("text", ["x < y", "1 < x > 0", "x = 2", r"0 < x < 1 < 2"])
def test_other_relations_are_no_interval(text: str) -> None:
    relation = _form(text)
    assert isinstance(relation, Relation)
    assert to_interval(relation) is None


@pytest.mark.parametrize(
    ("gold", "answer", "left"),
    [
        ("14", r"2+3\cdot 4", "arithmetic is left undone"),
        ("1024", "2^{10}", None),
        ("3", r"\log_2 8", "logarithm is left to evaluate"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}", None),
        ("4", r"\frac{4\pi}{\pi}", "pi or e is left in a rational number"),
        ("120", "5!", None),
        ("x", "x!", None),
    ],
)
def test_what_an_answer_leaves_to_do_is_found(gold: str, answer: str, left: str | None) -> None:
    assert find_unevaluated(_form(gold), _form(answer)) == left


@pytest.mark.parametrize(
    ("gold", "answer", "found"),
    [
        ("5", "x=5", SAME),
        ("x=5", "y=5", DIFFERENT),
        (r"\{1\}", "1", SAME),
        ("(1,2)", "1,2", SAME),
        ("1,2", "(1,2)", DIFFERENT),
        (r"x\le 2", r"(-\infty,2]", SAME),
        (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)", SAME),
        (r"[0,1]\cup[2,3]", r"[2,3]\cup[0,1]", SAME),
        (r"[0,1]\cup[1,2]", "[0,2]", SAME),
        (r"[0,a]\cup[a,2]", "[0,2]", UNKNOWN),
        (r"1\pm 2", "3,-1", SAME),
        ("n=1,2,3", "1,2,3", SAME),
        ("a=4, b=5", "4,5", SAME),
        ("a=4, b=5", "5,4", DIFFERENT),
        ("5x-7y=4", "-5x+7y=-4", SAME),
        ("x<y", "-x>-y", SAME),
        ("x<y", "x>y", DIFFERENT),
        (r"30^\circ", r"\frac{\pi}{6}", SAME),
        (r"28\%", "0.28", SAME),
        ("0.09", "9", DIFFERENT),
        ("12_{10}", "12", SAME),
    ],
)
def test_structures_are_compared(gold: str, answer: str, found: Equivalence) -> None:
    assert compare(_form(gold), _form(answer)) is found
