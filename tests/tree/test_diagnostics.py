"""The figures by which a run is read."""

from statistics import covariance, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.diagnostics import Mean, TreeFigures, diagnose, merge
from shared.tree.draw import Draw
from shared.tree.ib_score import Confidence, IBSettings
from shared.tree.node import build_tree
from shared.tree.values import COUNTS, Backup, Shrunk
from tests.tree.definitions import Definitions
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records

ib_settings = st.builds(
    IBSettings, values=st.sampled_from([COUNTS, Backup(), Shrunk()]), confidence=st.sampled_from(Confidence)
)


def mean(values: list[float]) -> float | None:
    return pytest.approx(fmean(values), abs=1e-9) if values else None


@given(records(), st.booleans(), ib_settings)
@quick
def test_figures_are_as_defined(draws: tuple[Draw, ...], merged: bool, chosen: IBSettings) -> None:
    slow = Definitions(draws, merged, beta=chosen.beta)
    figures = diagnose(build_tree(draws, merged), chosen, num_first=2)
    scores = {s: slow.ib1(chosen.values, chosen.confidence, s) for s in slow.all_states}
    forks = [s for s in slow.all_states if len(list(slow.successors(s))) >= 2]
    covs = []
    for s in forks:
        draws_of = list(slow.successors(s))
        values = [slow.value(chosen.values, c) for c in draws_of]
        if max(values) - min(values) > 1e-9:
            eta1 = [slow.eta1(chosen.values, c) for c in draws_of]
            eta2 = [slow.eta2(chosen.confidence, c) for c in draws_of]
            covs.append(covariance(eta1, eta2) * (len(draws_of) - 1) / len(draws_of))
    assert figures.ib_score == mean([scores[s] for s in forks])
    assert figures.cov_eta == mean(covs)
    assert figures.covariances.count == len(covs)
    assert figures.avg_rate == mean(slow.reward)
    assert figures.root_value == mean(slow.reward[:2])
    assert figures.mixed.value == float(len(set(slow.reward)) > 1)
    assert (figures.trees, figures.rewards.count) == (1, len(draws))


@given(st.tuples(*[records(unjudged=True)] * 3))
@quick
def test_figures_of_many_trees_add_in_any_order(many: tuple[tuple[Draw, ...], ...]) -> None:
    a, b, c = (diagnose(build_tree(draws), IBSettings(), num_first=2) for draws in many)
    assert_equal(merge([merge([a, b]), c]), merge([c, merge([b, a])]))
    assert_equal(merge([a, TreeFigures()]), a)


def assert_equal(one: TreeFigures, other: TreeFigures) -> None:
    for name in ("rewards", "root_values", "mixed", "fork_scores", "covariances"):
        assert getattr(one, name).count == getattr(other, name).count
        assert getattr(one, name).total == pytest.approx(getattr(other, name).total)
    assert sorted(one.eta_pairs) == sorted(other.eta_pairs)


def test_means_are_over_trees_and_over_their_nodes() -> None:
    mixed = build_tree([draw([A, EOS], 1.0), draw([B, EOS], 0.0)])
    solved = build_tree([draw([A, EOS], 1.0)])
    both = merge(diagnose(tree, IBSettings(), 2) for tree in (mixed, solved))
    assert (both.trees, both.mixed_trees, both.rewards.count) == (2, 1, 3)
    assert (both.mixed.value, both.root_value, both.avg_rate) == (0.5, 0.75, pytest.approx(2 / 3))
    assert both.covariances.count == 1


def test_a_tree_without_verdicts_has_no_figures() -> None:
    figures = diagnose(build_tree([draw([A, EOS], None)]), IBSettings(), 1)
    assert figures == TreeFigures()
    assert (figures.avg_rate, figures.root_value, figures.mixed.value, figures.ib_score, figures.cov_eta) == (None,) * 5


def test_eta_pairs_are_of_draws_that_have_rivals() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], 1.0), draw([B, EOS], 0.0)])
    pairs = diagnose(tree, IBSettings(), 2).eta_pairs
    assert [eta1 for eta1, _ in pairs] == pytest.approx([2 - 1.2, 0 - 1.2])


def test_a_sample_of_eta_pairs_stays_small() -> None:
    figures = TreeFigures(eta_pairs=tuple((float(nth), 0.0) for nth in range(1000)))
    sample = merge([figures, figures], max_pairs=100).eta_pairs
    assert len(sample) == 100
    assert sample[:2] == ((0.0, 0.0), (20.0, 0.0))


def test_a_mean_of_nothing_is_none() -> None:
    assert Mean.of([]).value is None
    assert (Mean.of([1.0]) + Mean.of([0.0, 0.5])).value == 0.5
