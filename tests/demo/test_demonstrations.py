"""Demonstrations: right without noise, and wrong in the stated ways with it."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.demo.demonstrations import Noise, demonstrate
from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, evaluate, generate, parse
from services.demo.tokenizer import build_tokenizer

MODULUS = 7
NO_NOISE = Noise(naive=0.0, sloppy=0.0, slip=0.0, skip=0.0)


def steps_of(answer: str) -> list[str]:
    return answer.split("\n\n")


@given(st.integers(0, 2**32))
def test_without_noise_every_step_is_one_operation_and_keeps_the_value(seed: int) -> None:
    rng = random.Random(seed)
    expression = generate(rng, Difficulty(lengths=(2, 3, 5, 8)))
    *steps, final = steps_of(demonstrate(expression, MODULUS, NO_NOISE, rng))
    values = [evaluate(parse(step, MODULUS), MODULUS) for step in steps]
    assert values == [evaluate(expression, MODULUS)] * (expression.length - 1)
    assert [parse(step, MODULUS).length for step in steps] == list(range(expression.length - 1, 0, -1))
    assert final == f"\\boxed{{{evaluate(expression, MODULUS)}}}"


@given(st.integers(0, 2**32))
def test_with_noise_an_answer_still_has_the_form(seed: int) -> None:
    rng = random.Random(seed)
    expression = generate(rng, Difficulty(lengths=(2, 5, 8)))
    answer = demonstrate(expression, MODULUS, Noise(0.5, 0.5, 0.5, 0.5), rng)
    assert re.fullmatch(r"(\d([-+*]\d)*\n\n)+\\boxed\{\d\}", answer)


def test_a_naive_answer_works_from_left_to_right() -> None:
    noise = Noise(naive=1.0, sloppy=0.0, slip=0.0, skip=0.0)
    answer = demonstrate(Expression((2, 3, 4), "+*"), MODULUS, noise, random.Random(0))
    assert steps_of(answer) == ["5*4", "6", "\\boxed{6}"]


def test_a_sloppy_answer_chooses_an_invalid_redex() -> None:
    noise = Noise(naive=0.0, sloppy=1.0, slip=0.0, skip=0.0)
    answer = demonstrate(Expression((1, 2, 3), "-+"), MODULUS, noise, random.Random(0))
    assert steps_of(answer) == ["1-5", "3", "\\boxed{3}"]


def test_a_skipping_answer_carries_out_two_operations_a_step() -> None:
    noise = Noise(naive=0.0, sloppy=0.0, slip=0.0, skip=1.0)
    answer = demonstrate(Expression((1, 2, 3, 4, 5), "++++"), MODULUS, noise, random.Random(0))
    assert [len(step) for step in steps_of(answer)[:-1]] == [5, 1]


def test_slips_come_as_often_as_stated() -> None:
    rng, noise = random.Random(0), Noise(naive=0.0, sloppy=0.0, slip=0.2, skip=0.0)
    wrong = sum(steps_of(demonstrate(Expression((2, 3), "+"), MODULUS, noise, rng))[0] != "5" for _ in range(4000))
    assert wrong / 4000 == pytest.approx(0.2 * 6 / 7, abs=0.02)


def test_a_probability_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"slip is a probability: 1\.5"):
        Noise(slip=1.5)


@pytest.mark.parametrize("length", range(2, 13))
def test_the_longest_answer_has_the_stated_number_of_tokens(length: int) -> None:
    difficulty = Difficulty(lengths=(2, length))
    expression = generate(random.Random(length), Difficulty(lengths=(length,)))
    answer = demonstrate(expression, MODULUS, NO_NOISE, random.Random(0))
    assert len(build_tokenizer().encode(answer + "<eos>").ids) == difficulty.max_answer_tokens
