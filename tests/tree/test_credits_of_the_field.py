"""The credits of other methods, against slow transcriptions of their definitions (METHOD, Credit)."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.tree.credit import (
    Baseline,
    Credit,
    Deviation,
    GRPOCredit,
    IBTPOCredit,
    RLOOCredit,
    SiblingScale,
    SiblingsCredit,
    SideInformation,
    SPOTreeCredit,
    TEMPOCredit,
    TreeAdvCredit,
    TreeGRPOCredit,
    TreePOCredit,
    TreeRLCredit,
    assign_advantages,
    whiten,
)
from shared.tree.draw import Draw
from shared.tree.node import build_tree
from shared.tree.values import BACKUP, COUNTS, Shrunk, ValueEstimator
from tests.tree.definitions import ROOT, Definitions, State, states_of
from tests.tree.records import EOS, A, B, draw, records

brief = settings(max_examples=25, deadline=None)

ESTIMATORS = st.sampled_from([BACKUP, COUNTS, Shrunk()])
EPSILON = 1e-6
Expected = Callable[[int, State], float]
"""Of an answer and a state on its path, the advantage of the step that ends there."""


class Slow(Definitions):
    """What the definitions below have in common, over trees whose rewards differ."""

    def is_fork(self, s: State) -> bool:
        return len(set(self.successors(s))) > 1

    def segment(self, s: State) -> tuple[State, State, State]:
        """The fork or the root above the segment that s is in, its first state, and its last."""
        while self.parent(s) != ROOT and not self.is_fork(self.parent(s)):
            s = self.parent(s)
        first = last = s
        while len(after := set(self.successors(last))) == 1:
            (last,) = after
        return self.parent(first), first, last

    def siblings(self, estimator: ValueEstimator, fork: State) -> list[float]:
        """The values of the segments of all draws that continue the fork."""
        return [self.value(estimator, self.segment(c)[2]) for c in self.successors(fork)]

    def grpo(self, i: int, std: Callable[[Sequence[float]], float] = pstdev) -> float:
        return (self.reward[i] - fmean(self.rewards)) / (std(self.rewards) + EPSILON)

    def first(self, i: int) -> int:
        parent = self.draws[i].parent
        return i if parent is None else self.first(parent)


def check(credit: Credit, draws: tuple[Draw, ...], merge: bool, define: Callable[[Slow], Expected]) -> None:
    """Whether every node of every judged answer has the advantage that is expected of it, and every node their mean."""
    tree, slow = build_tree(draws, merge), Slow(draws, merge)
    assume(tree.is_mixed)
    expected, found = define(slow), assign_advantages(credit, tree)
    of_paths = found.on_paths(tree)
    for i in range(len(draws)):
        of_path = [expected(i, s) for s in slow.states[i][1:]] if i in slow.ids else []
        assert of_paths[i] == pytest.approx(of_path, rel=1e-6, abs=1e-8)
    assert found.of_nodes[0] == 0.0
    for node_id, s in states_of(tree, slow).items():
        if s != ROOT:
            mean = fmean(expected(i, s) for i in slow.leaves(s))
            assert found.of_nodes[node_id] == pytest.approx(mean, rel=1e-6, abs=1e-8)


def differ(values: Sequence[float]) -> bool:
    return max(values) - min(values) > 1e-6


TREES = (records(unjudged=True, max_branches=7), st.booleans())


@given(*TREES, ESTIMATORS, st.sampled_from(SiblingScale), st.sampled_from(Deviation))
@brief
def test_siblings(
    draws: tuple[Draw, ...], merge: bool, estimator: ValueEstimator, sigma: SiblingScale, std: Deviation
) -> None:
    def define(slow: Slow) -> Expected:
        def expected(_: int, s: State) -> float:
            fork, _first, last = slow.segment(s)
            group = slow.siblings(estimator, fork)
            if len(set(slow.successors(fork))) < 2 or not differ(group):
                return 0.0
            m = fmean(group)
            scale = {
                SiblingScale.ONE: 1.0,
                SiblingScale.STD: (pstdev if std is Deviation.POPULATION else stdev)(group) + EPSILON,
                SiblingScale.BERNOULLI: math.sqrt(m * (1 - m)) + EPSILON,
            }[sigma]
            return (slow.value(estimator, last) - m) / scale

        return expected

    check(SiblingsCredit(values=estimator, sigma=sigma, std=std), draws, merge, define)


@given(records(max_branches=0, min_first=2))
@brief
def test_siblings_of_one_fork_are_grpos_answers(draws: tuple[Draw, ...]) -> None:
    tree = build_tree(draws)
    one_fork = assign_advantages(SiblingsCredit(sigma=SiblingScale.STD), tree)
    whole = assign_advantages(GRPOCredit(), tree).on_paths(tree)
    for found, expected in zip(one_fork.on_paths(tree), whole, strict=True):
        assert found == pytest.approx(expected)


def test_siblings_whose_rewards_leave_the_unit_interval_are_still_divided_by_a_deviation() -> None:
    """An overlong penalty does that: the mean is −0.25 here, and m(1 − m) negative."""
    tree = build_tree([draw([A, EOS], 0.0), draw([B, EOS], 1.0)]).with_rewards([-0.5, 0.0])
    found = assign_advantages(SiblingsCredit(sigma=SiblingScale.BERNOULLI), tree).of_nodes
    assert found == pytest.approx([0.0, -1.0, 1.0], rel=1e-4)


@given(*TREES, ESTIMATORS, st.booleans())
@brief
def test_spo_tree(draws: tuple[Draw, ...], merge: bool, estimator: ValueEstimator, divide_by_std: bool) -> None:
    def define(slow: Slow) -> Expected:
        def expected(_: int, s: State) -> float:
            fork, _first, last = slow.segment(s)
            change = slow.value(estimator, last) - slow.value(estimator, fork)
            if not divide_by_std:
                return change
            group = slow.siblings(estimator, fork)
            return change / (pstdev(group) + 1e-8) if differ(group) else 0.0

        return expected

    check(SPOTreeCredit(values=estimator, divide_by_std=divide_by_std), draws, merge, define)


@given(*TREES, st.booleans())
@brief
def test_spo_tree_leaves_out_what_changes_nothing(draws: tuple[Draw, ...], merge: bool, drop: bool) -> None:
    tree, slow = build_tree(draws, merge), Slow(draws, merge)
    assume(tree.is_mixed)
    credit = SPOTreeCredit(drop_unchanged=drop)
    weights = credit.weights(tree, assign_advantages(credit, tree))
    for node_id, s in states_of(tree, slow).items():
        if s != ROOT:
            fork, _first, last = slow.segment(s)
            is_same = not differ([slow.backup(fork), slow.backup(last)])
            assert weights[node_id] == (0.0 if drop and is_same else 1.0)


@given(*TREES, st.booleans(), st.sampled_from([None, 1, 2, 3]))
@brief
def test_treepo(draws: tuple[Draw, ...], merge: bool, by_size: bool, group_tokens: int | None) -> None:
    def groups_at_forks(slow: Slow, i: int) -> list[list[int]]:
        inner = [s for s in slow.states[i][1:] if slow.is_fork(s)]
        return [group for s in inner if (group := slow.leaves(s)) != slow.ids]

    def groups_at_segments(slow: Slow, i: int, length: int) -> list[list[int]]:
        ends = range(length, len(slow.tokens[i]), length)
        ahead = [next(s for s in slow.states[i] if slow.length(s) >= end) for end in ends]
        return [group for s in ahead if s != slow.states[i][-1] and len(group := slow.leaves(s)) > 1]

    def define(slow: Slow) -> Expected:
        def expected(i: int, _: State) -> float:
            inner = groups_at_segments(slow, i, group_tokens) if group_tokens else groups_at_forks(slow, i)
            groups = [slow.ids, *inner]
            terms = [slow.reward[i] - fmean(slow.reward[j] for j in group) for group in groups]
            weights = [len(group) if by_size else 1 for group in groups]
            return sum(map(math.prod, zip(terms, weights, strict=True))) / sum(weights)

        return expected

    check(TreePOCredit(by_size=by_size, group_tokens=group_tokens), draws, merge, define)


@given(*TREES, st.sampled_from(Deviation))
@brief
def test_tempo(draws: tuple[Draw, ...], merge: bool, std: Deviation) -> None:
    def define(slow: Slow) -> Expected:
        scale = (pstdev if std is Deviation.POPULATION else stdev)(slow.rewards) + EPSILON

        def expected(i: int, s: State) -> float:
            change = slow.counts(s) - slow.counts(slow.parent(s))
            return (slow.reward[i] - fmean(slow.rewards) + change) / scale

        return expected

    check(TEMPOCredit(std=std), draws, merge, define)


@given(*TREES)
@brief
def test_treeadv(draws: tuple[Draw, ...], merge: bool) -> None:
    check(TreeAdvCredit(), draws, merge, lambda slow: lambda _, s: fmean(slow.grpo(j) for j in slow.leaves(s)))


@given(*TREES)
@brief
def test_tree_grpo(draws: tuple[Draw, ...], merge: bool) -> None:
    def define(slow: Slow) -> Expected:
        def expected(i: int, _: State) -> float:
            family = [slow.reward[j] for j in slow.ids if slow.first(j) == slow.first(i)]
            within = (slow.reward[i] - fmean(family)) / (stdev(family) + EPSILON) if differ(family) else 0.0
            return slow.grpo(i, stdev) + within

        return expected

    check(TreeGRPOCredit(), draws, merge, define)


@given(*TREES)
@brief
def test_an_answer_is_compared_with_the_others_alone(draws: tuple[Draw, ...], merge: bool) -> None:
    def others(slow: Slow, i: int) -> float:
        return slow.reward[i] - fmean(slow.reward[j] for j in slow.ids if j != i)

    check(RLOOCredit(), draws, merge, lambda slow: lambda i, _: others(slow, i))
    check(
        GRPOCredit(leave_one_out=True),
        draws,
        merge,
        lambda slow: lambda i, _: others(slow, i) / (pstdev(slow.rewards) + EPSILON),
    )
    tree = build_tree(draws, merge)
    factor = len(tree.rewards) / (len(tree.rewards) - 1)
    with_others, with_all = (assign_advantages(TreeRLCredit(leave_one_out=one), tree) for one in (True, False))
    assert with_others.of_nodes == pytest.approx([factor * a for a in with_all.of_nodes])


@given(*TREES, ESTIMATORS, st.sampled_from([Baseline.OTHERS, Baseline.FIRST]))
@brief
def test_ibtpo_with_another_baseline(
    draws: tuple[Draw, ...], merge: bool, estimator: ValueEstimator, baseline: Baseline
) -> None:
    tree, slow = build_tree(draws, merge), Slow(draws, merge)
    assume(tree.is_mixed)
    credit = IBTPOCredit(lam=0.0, values=estimator, baseline=baseline)
    found = assign_advantages(credit, tree, SideInformation(num_first=2)).of_nodes
    for node_id, s in states_of(tree, slow).items():
        others = [slow.reward[i] for i in slow.ids if i not in slow.leaves(s)]
        first = [slow.reward[i] for i in slow.ids if i < 2] or slow.rewards
        compared = others if baseline is Baseline.OTHERS else first
        is_zero = s == ROOT or not compared
        expected = 0.0 if is_zero else (slow.value(estimator, s) - fmean(compared)) / (pstdev(slow.rewards) + EPSILON)
        assert found[node_id] == pytest.approx(expected, abs=1e-8)


def test_the_first_draws_as_baseline_need_their_number() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([B, EOS], 0.0)])
    with pytest.raises(ValueError, match="their number is not known"):
        assign_advantages(IBTPOCredit(baseline=Baseline.FIRST), tree)


@given(st.dictionaries(st.floats(-3, 3, width=16), st.integers(1, 5), min_size=1, max_size=6))
@brief
def test_whitened_advantages_have_mean_0_and_variance_1(counts: dict[float, int]) -> None:
    of_tokens = [advantage for advantage, count in counts.items() for _ in range(count)]
    shift, divisor = whiten(counts)
    if len(of_tokens) == 1:
        assert (shift, divisor) == (0.0, 1.0)
        return
    assert shift == pytest.approx(fmean(of_tokens), abs=1e-12)
    assert divisor == pytest.approx(math.sqrt(stdev(of_tokens) ** 2 + 1e-8))


@pytest.mark.parametrize("credit", [TreePOCredit(), SPOTreeCredit()])
def test_methods_that_whiten_do_so_unless_told(credit: TreePOCredit | SPOTreeCredit) -> None:
    counts = {1.0: 3, -1.0: 1}
    assert credit.compares_steps
    assert credit.step_scale([1.0, 0.0], counts) == whiten(counts)
    plain = type(credit)(whitened=False)
    assert not plain.compares_steps
    assert plain.step_scale([1.0, 0.0], counts) == (0.0, 1.0)
