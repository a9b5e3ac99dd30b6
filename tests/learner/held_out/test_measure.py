"""The figures of held-out sets, and their average."""

import pytest

from services.learner.held_out.measure import average_reward, average_sets, compare, measure_set, vote
from shared.tree.accuracy import standard_error
from tests.learner.evaluations import make_evaluation, result, set_plan
from tests.learner.synthetic import V0


def test_accuracy_is_the_mean_over_problems_that_were_judged() -> None:
    told = make_evaluation({"held_out": [[1.0, 0.0], [], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]}, 3, V0, 2)
    assert (told.avg_at_k, told.pass_at_k, told.problems, told.k) == (0.5, 0.5, 4, 2)
    assert told.standard_error == pytest.approx(0.408248 / 2, rel=1e-4)
    assert measure_set(set_plan(k=2), [result(0, [None, None])]) is None


def test_pass_is_told_of_fewer_answers_too() -> None:
    told = measure_set(set_plan(k=4), [result(0, [1.0, 0.0, 0.0, 0.0]), result(1, [0.0] * 4)])
    assert told is not None
    assert told.pass_at == {1: 0.125, 2: 0.25, 4: 0.5}
    assert told.pass_at_k == 0.5
    assert told.pass_errors[4] == told.pass_error == 0.5


def test_the_metrics_that_were_not_asked_for_are_not_there() -> None:
    answers = [result(0, [1.0, 0.0], ["1", "2"])]
    plain = measure_set(set_plan(k=2, metrics=["avg@k"]), answers)
    assert plain is not None
    assert (plain.pass_at_k, plain.pass_at, plain.maj_at_k) == (None, {}, None)
    one = measure_set(set_plan(k=2, metrics=["maj@2", "pass@1"]), answers)
    assert one is not None
    assert (one.pass_at, one.pass_at_k, one.maj_at_k) == ({1: 0.5}, None, 0.5)


def test_a_majority_is_of_the_answers_that_state_something() -> None:
    cut = result(0, [0.0, 1.0, 0.0], [None, "4", ""], finish=["length", "stop", "stop"])
    unjudged = result(1, [None, 0.0, 0.0], [None, "5", "5"])
    silent = result(2, [0.0, 0.0, 0.0], ["", "", ""])
    assert [vote(one) for one in (cut, unjudged, silent)] == [1.0, 0.0, 0.0]
    told = measure_set(set_plan(k=3), [cut, unjudged, silent])
    assert told is not None
    assert told.maj_at_k == pytest.approx(1 / 3)
    assert told.maj_error == pytest.approx(standard_error([1.0, 0.0, 0.0]))
    assert (told.truncated_share, told.no_answer_share) == (pytest.approx(1 / 9), pytest.approx(4 / 9))


def test_answers_that_nobody_compares_have_no_majority() -> None:
    told = measure_set(set_plan(k=2), [result(0, [1.0, 0.0], ["1", "2"]), result(1, [1.0, 0.0])])
    assert told is not None
    assert told.maj_at_k is None
    assert told.avg_at_k == 0.5


def test_lengths_are_those_of_all_answers() -> None:
    told = measure_set(set_plan(k=2), [result(n, [1.0, 0.0], tokens=[n, n + 1]) for n in range(1, 21, 2)])
    assert told is not None
    assert (told.answer_tokens, told.answer_tokens_p95) == (10.5, 19.0)


def test_sets_are_averaged_with_equal_weight_and_what_one_lacks_is_left_out() -> None:
    compared = measure_set(set_plan("a", k=2), [result(0, [1.0, 1.0], ["1", "1"]), result(1, [0.0, 0.0], ["1", "1"])])
    code = measure_set(set_plan("b", k=4), [result(0, [1.0] * 4)])
    assert compared is not None
    assert code is not None
    told = average_sets([compared, code], 3, V0)
    assert (told.avg_at_k, told.standard_error, told.maj_at_k, told.k) == (0.75, 0.25, None, None)
    assert told.problems == 3


def test_two_policies_are_compared_over_the_problems_that_both_answered() -> None:
    first = [result(0, [1.0, 0.0]), result(1, [0.0, 0.0]), result(2, [1.0, 1.0])]
    second = [result(1, [1.0, 0.0]), result(0, [1.0, 1.0]), result(3, [0.0, 0.0])]
    told = compare(first, second, average_reward)
    assert told is not None
    assert (told.value, told.error) == (0.5, 0.0), "both gained a half"
    assert compare(first, [], average_reward) is None
