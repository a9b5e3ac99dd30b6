"""The data sets: disjoint by construction, reproducible, right."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.demo.data import write_data
from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, parse
from services.demo.split import Split, generate_in, split_of
from services.demo.task import answer_of
from shared.errors import InvalidInput
from shared.protocol.task import Problem


def problems_in(path: Path) -> list[Problem]:
    return [Problem.model_validate_json(line) for line in path.read_text().splitlines()]


@given(st.integers(), st.integers(), st.sampled_from([(2,), (3, 4), (5, 6), (12,)]))
def test_no_seed_draws_the_same_expression_for_both_splits(seed: int, other: int, lengths: tuple[int, ...]) -> None:
    train_rng, held_out_rng, difficulty = random.Random(seed), random.Random(other), Difficulty(lengths)
    train = {generate_in(Split.TRAIN, train_rng, difficulty) for _ in range(20)}
    held_out = {generate_in(Split.HELD_OUT, held_out_rng, difficulty) for _ in range(5)}
    assert not train & held_out


def test_the_split_of_an_expression_never_changes() -> None:
    pairs = [(left, right) for left in range(7) for right in range(7)]
    held_out = [pair for pair in pairs if split_of(Expression(pair, "+")) is Split.HELD_OUT]
    assert held_out == [(2, 5), (2, 6), (3, 2), (3, 3), (6, 3)]


def test_one_expression_in_eight_is_held_out() -> None:
    every = [Expression(numbers, "+*-") for numbers in itertools.product(range(7), repeat=4)]
    assert sum(split_of(each) is Split.HELD_OUT for each in every) / len(every) == pytest.approx(1 / 8, abs=0.02)


def test_written_sets_are_distinct_disjoint_and_right(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    write_data(directory, Difficulty(), num_train=400, num_heldout=100, seed=3)
    train, held_out = problems_in(directory / "train.jsonl"), problems_in(directory / "heldout.jsonl")
    assert (len(train), len(held_out)) == (400, 100)
    prompts = [problem.prompt for problem in train + held_out]
    assert len(set(prompts)) == len(prompts)
    assert len({problem.id for problem in train + held_out}) == len(prompts)
    for problem in train + held_out:
        assert isinstance(problem.prompt, str)
        assert parse(problem.prompt.removesuffix("="), 7).length in (5, 6)
        assert (problem.kind, problem.answer_key) == ("math", {"gold": answer_of(problem.prompt)})


def test_equal_seeds_write_equal_files_and_other_seeds_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_data(tmp_path / name, Difficulty(), 50, 10, seed)
    texts = [(tmp_path / name / "train.jsonl").read_text() for name in ("a", "b", "c")]
    assert texts[0] == texts[1] != texts[2]


def test_held_out_problems_do_not_depend_on_the_number_of_train_problems(tmp_path: Path) -> None:
    for name, num_train in (("few", 5), ("many", 50)):
        write_data(tmp_path / name, Difficulty(), num_train, 20, seed=1)
    few, many = ((tmp_path / name / "heldout.jsonl").read_text() for name in ("few", "many"))
    assert few == many


def test_more_problems_than_there_are_expressions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ask for fewer or add a length"):
        write_data(tmp_path, Difficulty(lengths=(2,)), num_train=200, num_heldout=1, seed=0)


def test_a_difficulty_with_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    tiny = Difficulty(lengths=(2,), operators="+", operator_weights=(1.0,), modulus=2)
    with pytest.raises(InvalidInput, match="no heldout expression"):
        write_data(tmp_path, tiny, num_train=1, num_heldout=1, seed=0)
