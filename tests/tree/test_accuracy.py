"""avg@k, pass@k and maj@k against their definitions, by enumeration."""

import math
import statistics
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.accuracy import (
    Estimate,
    majority_reward,
    measure_accuracy,
    paired_difference,
    pass_at,
    pass_at_of,
    pass_sizes,
    standard_error,
)

rewards = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=7)


@given(rewards, st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(answers: list[float], k: int) -> None:
    subsets = list(combinations(answers, min(k, len(answers))))
    assert pass_at_of(answers, k) == pytest.approx(sum(1.0 in subset for subset in subsets) / len(subsets))


def test_pass_at_k_is_unbiased() -> None:
    """Over all outcomes of n answers, each right with probability p, its mean is 1 − (1 − p)^k."""
    n, p = 5, 0.3
    for k in range(1, n + 1):
        mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0])), max_size=6))
def test_a_majority_among_ties_is_the_mean_over_which_of_them_is_drawn(votes: list[tuple[str, float]]) -> None:
    classes = {answer: [reward for other, reward in votes if other == answer] for answer, _ in votes}
    most = max((len(one) for one in classes.values()), default=0)
    drawn = [statistics.fmean(one) for one in classes.values() if len(one) == most]
    assert majority_reward(votes) == pytest.approx(statistics.fmean(drawn) if drawn else 0.0)


def test_the_majority_may_be_wrong_where_most_answers_are() -> None:
    assert majority_reward([("4", 1.0), ("5", 0.0), ("5", 0.0)]) == 0.0
    assert majority_reward([("4", 1.0), ("4", 1.0), ("5", 0.0)]) == 1.0
    assert majority_reward([("4", 1.0), ("5", 0.0)]) == 0.5, "each of two is drawn as often"
    assert majority_reward([("4", 1.0), ("5", 0.0), ("6", 0.0)]) == pytest.approx(1 / 3)
    assert majority_reward([]) == 0.0


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=5))
def test_the_standard_error_is_that_of_all_resamples(values: list[float]) -> None:
    """The bootstrap over all nⁿ resamples, whose variance is (n − 1)/n of the unbiased one."""
    n = len(values)
    means = [statistics.fmean(resample) for resample in product(values, repeat=n)]
    assert standard_error(values) ** 2 == pytest.approx(statistics.pvariance(means) * n / (n - 1), abs=1e-12)


def test_a_difference_over_the_same_problems_has_the_error_of_the_differences() -> None:
    first, second = [0.0, 0.5, 1.0, 0.25], [0.25, 0.75, 1.0, 0.75]
    found = paired_difference(first, second)
    assert found == Estimate(0.25, pytest.approx(standard_error([0.25, 0.25, 0.0, 0.5])))
    assert found.error < math.hypot(standard_error(first), standard_error(second)), "what problems differ in is out"


def test_an_average_of_sets_weighs_them_equally() -> None:
    assert Estimate.average([Estimate(0.25, 0.03), Estimate(0.75, 0.04)]) == Estimate(0.5, pytest.approx(0.025))


def test_pass_is_told_of_powers_of_two_and_of_k() -> None:
    assert [pass_sizes(k) for k in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_problems_without_a_judged_answer_are_left_out() -> None:
    told = measure_accuracy([[1.0, 0.0], [], [0.0, 0.0]])
    assert told is not None
    assert (told.num_problems, told.avg_at_k, told.pass_at_k) == (2, 0.25, 0.5)
    assert measure_accuracy([[]]) is None
