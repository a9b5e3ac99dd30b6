"""Expressions against Python's own arithmetic."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from services.demo.difficulty import Difficulty
from services.demo.expressions import (
    Expression,
    evaluate,
    generate,
    invalid_redexes,
    parse,
    prompt_of,
    reduce_at,
    render,
    result_at,
    valid_redexes,
)
from services.demo.task import answer_of
from shared.errors import InvalidInput

MODULUS = 7


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    numbers = draw(st.lists(st.integers(0, MODULUS - 1), min_size=1, max_size=8))
    operators = draw(st.text("+-*", min_size=len(numbers) - 1, max_size=len(numbers) - 1))
    return Expression(tuple(numbers), operators)


def pythons_value(expression: Expression) -> int:
    return eval(render(expression)) % MODULUS


@given(expressions())
def test_the_value_is_pythons_value_modulo_seven(expression: Expression) -> None:
    assert evaluate(expression, MODULUS) == pythons_value(expression)


@given(expressions())
def test_every_valid_redex_keeps_the_value(expression: Expression) -> None:
    for position in valid_redexes(expression):
        reduced = reduce_at(expression, position, result_at(expression, position, MODULUS))
        assert reduced.length == expression.length - 1
        assert pythons_value(reduced) == pythons_value(expression)


@pytest.mark.parametrize(
    "operators", ["".join(chosen) for n in (1, 2, 3) for chosen in itertools.product("+-*", repeat=n)]
)
def test_every_invalid_redex_changes_the_value_for_some_numbers(operators: str) -> None:
    numbers = (1, 2, 3, 5)[: len(operators) + 1]
    orders = [Expression(order, operators) for order in itertools.permutations(numbers)]
    for position in invalid_redexes(orders[0]):
        reduced = [reduce_at(each, position, result_at(each, position, MODULUS)) for each in orders]
        assert any(pythons_value(after) != pythons_value(before) for before, after in zip(orders, reduced, strict=True))


@given(expressions())
def test_every_operator_is_valid_or_invalid_and_one_is_valid(expression: Expression) -> None:
    valid, invalid = valid_redexes(expression), invalid_redexes(expression)
    assert sorted(valid + invalid) == list(range(len(expression.operators)))
    assert valid or not expression.operators


@given(expressions())
def test_what_is_written_can_be_read_again(expression: Expression) -> None:
    assert parse(render(expression), MODULUS) == expression


@pytest.mark.parametrize("text", ["", "+", "2+", "2++3", "12", "2 + 3", "2/3", "(2+3)", "2+3=", "٣", "2+3\n", "x"])
def test_what_is_no_expression_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"such as 2\+3\*4"):
        parse(text, MODULUS)


def test_a_digit_beyond_the_modulus_is_refused_with_the_digits_that_exist() -> None:
    with pytest.raises(InvalidInput, match="holds 8; modulo 7 the digits are 0 to 6"):
        parse("2+8", MODULUS)


@pytest.mark.parametrize("prompt", ["2+3*4=", "2+3*4", " 2+3*4= "])
def test_a_typed_prompt_has_an_answer(prompt: str) -> None:
    assert answer_of(prompt) == "0"


def test_a_prompt_ends_in_the_equals_sign() -> None:
    assert prompt_of(Expression((2, 3), "+")) == "2+3="


@given(st.integers(0, 2**32), st.integers(2, 10), st.sampled_from(["+", "*-", "+-*"]))
def test_generated_expressions_are_of_the_difficulty(seed: int, modulus: int, operators: str) -> None:
    difficulty = Difficulty((2, 4, 6), operators, (1.0,) * len(operators), modulus)
    expression = generate(random.Random(seed), difficulty)
    assert expression.length in (2, 4, 6)
    assert set(expression.operators) <= set(operators)
    assert max(expression.numbers) < modulus


@pytest.mark.parametrize(
    ("numbers", "operators"), [((), ""), ((1, 2), ""), ((1,), "+"), ((1, 12), "+"), ((-1, 2), "+"), ((1, 2), "/")]
)
def test_a_malformed_expression_is_refused(numbers: tuple[int, ...], operators: str) -> None:
    with pytest.raises(ValueError, match=r"operator|number"):
        Expression(numbers, operators)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lengths": ()},
        {"lengths": (1,)},
        {"lengths": (13,)},
        {"operators": ""},
        {"operators": "+/*"},
        {"operators": "++*"},
        {"operator_weights": (1.0, 1.0)},
        {"operator_weights": (1.0, 0.0, 1.0)},
        {"modulus": 1},
        {"modulus": 11},
    ],
)
def test_a_difficulty_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
        Difficulty(**wrong)


def test_a_misspelt_difficulty_in_a_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="modulo"):
        TypeAdapter(Difficulty).validate_python({"modulo": 7})
    assert TypeAdapter(Difficulty).validate_python({"lengths": [2, 3]}) == Difficulty(lengths=(2, 3))
