"""Values with a prior, credit with a value baseline, and calibration, against their definitions written slowly."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import correlation, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.credit import CREDITS, BaselineCredit, IBTPOCredit, NodeWeight, assign_advantages, node_weights
from shared.tree.draw import Draw
from shared.tree.ib_score import IBSettings, value_ratios
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import AnySampler, FixedWidthSampler, IBSampler, IndependentSampler
from shared.tree.values import COUNTS, VALUES, Backup, PriorSource, Shrunk, WithPrior, node_values, reads_head
from shared.tree.values.calibration import Calibration, CalibrationFit, Observation, fit, logit, sigmoid
from shared.tree.values.prior import LeafValues, likelihoods, observations, priors_in, recalibrate
from shared.tree.values.reliability import Reliability
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records
from tests.tree.worlds import World, every_record


def phi(prefix: Sequence[int]) -> float:
    """What a model says of the gold answer after some tokens: any number that depends on them alone."""
    return random.Random(str([*prefix])).choice([0.0, 0.02, 0.3, 0.8, 1.0])


def tokens_of(draws: Sequence[Draw], draw_id: int) -> list[int]:
    one = draws[draw_id]
    above = [] if one.parent is None else tokens_of(draws, one.parent)[: one.cut]
    return [*above, *one.token_ids]


def with_likelihoods(draws: Sequence[Draw], *, but: Sequence[int] = ()) -> tuple[Draw, ...]:
    """The record with Φ at every step end, except of some draws, where scoring failed."""
    return tuple(
        one
        if number in but
        else replace(one, step_likelihoods=tuple(phi(tokens_of(draws, number)[:end]) for end in one.step_ends))
        for number, one in enumerate(draws)
    )


class Slow:
    """The definitions over a tree's trajectories: a node is the set of draws that run through it, and its end."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.paths = [(0, *tree.path(i)) if tree.path(i) else () for i in range(len(tree.draws))]

    def under(self, node: int) -> list[int]:
        return [i for i, path in enumerate(self.paths) if node in path]

    def rewards(self, draws: Sequence[int]) -> list[float]:
        return [self.tree.draws[i].counted_reward or 0.0 for i in draws]

    def parent(self, node: int) -> int:
        path = self.paths[self.under(node)[0]]
        return path[max(path.index(node) - 1, 0)]

    def likelihood(self, node: int) -> float | None:
        """Φ of the first draw that sampled the node's last token."""
        end, one = self.tree.nodes[node].end, self.tree.nodes[node].draw
        if one is None or self.tree.draws[one].step_likelihoods is None or end not in self.tree.draws[one].step_ends:
            return None
        return phi(tokens_of(self.tree.draws, one)[:end])

    def prior(self, node: int, settings: WithPrior | BaselineCredit) -> float | None:
        if settings.source is PriorSource.HEAD:
            said = self.tree.priors[node] if self.tree.priors else None
        else:
            said = self.likelihood(node)
        if said is None or self.tree.nodes[node].reward is not None:
            return None
        inside = min(max(said, 1e-12), 1 - 1e-12)
        return 1 / (1 + math.exp(-(settings.a * math.log(inside / (1 - inside)) + settings.b)))

    def v4(self, node: int, settings: WithPrior) -> float:
        under = self.under(node)
        estimator = COUNTS if settings.leaves is LeafValues.COUNTS else Backup()
        value, prior = node_values(self.tree, estimator)[node], self.prior(node, settings)
        if prior is None:
            prior = value if node == 0 else self.v4(self.parent(node), settings)
        return (len(under) * value + settings.kappa * prior) / (len(under) + settings.kappa)

    def baseline(self, node: int, settings: BaselineCredit) -> float:
        parent, above = self.parent(node), self.parent(node)
        prior = self.prior(above, settings)
        while prior is None and above:
            above = self.parent(above)
            prior = self.prior(above, settings)
        if prior is None:
            elsewhere = self.rewards([i for i in self.under(0) if i not in self.under(node)])
            prior = fmean(elsewhere) if elsewhere else 0.0
        others = self.rewards([i for i in self.under(parent) if i not in self.under(node)])
        if not settings.siblings or len(others) + settings.kappa == 0:
            return prior
        return (sum(others) + settings.kappa * prior) / (len(others) + settings.kappa)


SETTINGS = {
    "a": st.sampled_from([1.0, 0.4]),
    "b": st.sampled_from([0.0, -0.7]),
    "kappa": st.sampled_from([0.0, 2.0, 5.5]),
    "source": st.sampled_from(PriorSource),
}


@st.composite
def trees(draw_: st.DrawFn) -> Tree:
    """Random trees, some draws unjudged or not scored, with or without what a value head says."""
    draws = draw_(records(unjudged=True))
    but = draw_(st.sets(st.integers(0, len(draws) - 1), max_size=2))
    tree = build_tree(with_likelihoods(draws, but=sorted(but)), draw_(st.booleans()))
    if draw_(st.booleans()):
        return tree
    return replace(tree, priors=tuple((7 * number + 3) % 10 / 10 for number in range(len(tree.nodes))))


@given(trees(), st.builds(WithPrior, **SETTINGS, leaves=st.sampled_from(LeafValues)))
@quick
def test_values_with_a_prior_are_as_defined(tree: Tree, settings: WithPrior) -> None:
    slow, values = Slow(tree), node_values(tree, settings)
    if len(tree.nodes) > 1:
        assert values == pytest.approx([slow.v4(node, settings) for node in range(len(tree.nodes))])


@given(trees(), st.builds(BaselineCredit, **SETTINGS, siblings=st.booleans()))
@quick
def test_a_value_baseline_is_as_defined(tree: Tree, settings: BaselineCredit) -> None:
    slow, found = Slow(tree), assign_advantages(settings, tree)
    for draw_id, advantages in enumerate(found.on_paths(tree)):
        path, reward = tree.path(draw_id), tree.draws[draw_id].counted_reward or 0.0
        assert advantages == pytest.approx([reward - slow.baseline(node, settings) for node in path])
    for node in range(1, len(tree.nodes)):
        mean = fmean(slow.rewards(slow.under(node))) - slow.baseline(node, settings)
        assert found.of_nodes[node] == pytest.approx(mean)


@given(records(unjudged=True), st.booleans())
@quick
def test_without_likelihoods_values_are_shrunk(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    assert node_values(tree, WithPrior(kappa=3.0)) == pytest.approx(node_values(tree, Shrunk(kappa=3.0)))


def test_a_node_inside_a_step_has_no_likelihood() -> None:
    draws = [draw([A, B, A, BLANK_LINE, B, EOS], 1.0)]
    draws.append(draw([A, EOS], 0.0, before=draws, parent=0, cut=2))
    tree = build_tree(with_likelihoods(draws))
    known = dict(zip((node.end for node in tree.nodes), likelihoods(tree), strict=True))
    assert known[2] is None
    assert known[0] is None
    assert known[4] == phi([A, B, A, BLANK_LINE])


def test_with_a_prior_a_node_with_one_draw_decides_something() -> None:
    tree = build_tree(with_likelihoods([draw([A, BLANK_LINE, B, BLANK_LINE, A, EOS], 1.0), draw([B, EOS], 0.0)]))
    assert node_values(tree, COUNTS)[1:3] == (1.0, 1.0)
    assert value_ratios(tree, node_values(tree, WithPrior(kappa=2.0)))[2] != pytest.approx(1.0)


def test_priors_are_settings_of_samplers_and_credits() -> None:
    table = {"kind": "prior", "source": "head", "a": 0.5, "b": -1.0, "kappa": 4.0, "leaves": "counts"}
    estimator = VALUES.make(table)
    assert VALUES.dump(estimator) == table | {"fit": False}
    assert reads_head(IBTPOCredit(values=estimator))
    assert not reads_head(IBSampler(score=IBSettings(values=WithPrior())))
    assert [*priors_in(CREDITS.make("baseline"))] == [BaselineCredit()]
    assert [*priors_in(IndependentSampler(initial_draws=2))] == []


@pytest.mark.parametrize("wrong", [{"kappa": -1.0}, {"kappa": math.inf}, {"a": math.nan}, {"b": math.inf}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        VALUES.make({"kind": "prior", **wrong})
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        CREDITS.make({"kind": "baseline", **wrong})


def test_a_fitted_calibration_goes_where_it_is_asked_for() -> None:
    best = {PriorSource.LIKELIHOOD: Calibration(0.3, 0.1)}
    fitted = recalibrate(IBTPOCredit(values=WithPrior(fit=True)), best)
    assert fitted.values == WithPrior(fit=True, a=0.3, b=0.1)
    for kept in (IBTPOCredit(values=WithPrior()), BaselineCredit(fit=True), IBTPOCredit()):
        assert recalibrate(kept, best) is kept


def likelihood_of(at: Calibration, data: Sequence[Observation]) -> float:
    total = 0.0
    for estimate, n, value in data:
        p = 1 / (1 + math.exp(-(at.a * math.log(estimate / (1 - estimate)) + at.b)))
        total += n * (value * math.log(p) + (1 - value) * math.log(1 - p))
    return total - 0.05 * ((at.a - 1) ** 2 + at.b**2)


@pytest.fixture(scope="module")
def miscalibrated() -> list[Observation]:
    """Counts of nodes whose true value is σ(0.5·x − 1), of which an estimate says σ(x)."""
    rng = random.Random(5)
    found = []
    for _ in range(400):
        x, n = rng.gauss(0, 2), rng.randint(1, 6)
        found.append(Observation(sigmoid(x), n, sum(rng.random() < sigmoid(0.5 * x - 1) for _ in range(n)) / n))
    return found


def test_the_fit_is_the_likeliest_calibration(miscalibrated: list[Observation]) -> None:
    best = fit(miscalibrated)
    assert (best.a, best.b) == pytest.approx((0.5, -1.0), abs=0.1)
    height = likelihood_of(best, miscalibrated)
    for off_a, off_b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert likelihood_of(Calibration(best.a + off_a, best.b + off_b), miscalibrated) < height


def test_a_fit_that_goes_on_comes_to_what_all_at_once_does(miscalibrated: list[Observation]) -> None:
    running = CalibrationFit()
    for start in range(0, len(miscalibrated), 20):
        running = running.add(miscalibrated[start : start + 20])
    whole = fit(miscalibrated)
    assert (running.best.a, running.best.b) == pytest.approx((whole.a, whole.b), abs=0.05)
    assert running.add([]) == running


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_fit_to_nothing_but_one_outcome_stays_finite(value: float) -> None:
    best = fit([Observation(estimate, 3, value) for estimate in (0.0, 0.2, 0.9, 1.0)])
    assert all(map(math.isfinite, (best.a, best.b)))
    assert abs(best.of(0.5) - value) < 0.35


def test_observations_are_what_was_said_and_what_came() -> None:
    draws = with_likelihoods([draw([A, BLANK_LINE, B, EOS], 1.0), draw([B, EOS], 0.0)])
    tree = build_tree([*draws, replace(draw([B, EOS], 0.0, before=draws, parent=0, cut=2))])
    assert Observation(phi([A, BLANK_LINE]), 2, 0.5) in observations(tree, PriorSource.LIKELIHOOD)
    assert len(observations(tree, PriorSource.LIKELIHOOD)) == 1  # of leaves, there is nothing to foretell
    assert observations(tree, PriorSource.HEAD) == []


def test_reliability_is_as_defined() -> None:
    data = [Observation(0.9, 2, 1.0), Observation(0.2, 1, 0.0), Observation(0.25, 1, 1.0)]
    found = Reliability.of(data)
    assert found is not None
    assert found.brier == pytest.approx((2 * 0.01 + 0.04 + 0.5625) / 4)
    assert found.cross_entropy == pytest.approx(-(2 * math.log(0.9) + math.log(0.8) + math.log(0.25)) / 4)
    assert found.calibration_error == pytest.approx((2 * 0.1 + abs(0.2 + 0.25 - 1.0)) / 4)
    assert found.correlation == pytest.approx(correlation([0.9, 0.9, 0.2, 0.25], [1.0, 1.0, 0.0, 1.0]))
    assert Reliability.of([]) is None
    assert Reliability.of([Observation(0.5, 1, 1.0)]) == Reliability(1, math.log(2), 0.25, 0.5, None)


def test_logits_of_certainties_are_finite() -> None:
    assert logit(0.0) == pytest.approx(-logit(1.0), abs=1e-3)
    assert sigmoid(-1000.0) == 0.0
    assert Calibration().of(0.3) == pytest.approx(0.3)


def expected_gradient(world: World, credit: BaselineCredit, sampler: AnySampler) -> list[float]:
    """E[Σ w·A·∇log π] with respect to the logits of every choice of a world, over all records."""
    index = {(state, c): i for i, (state, c) in enumerate((s, c) for s in world.policy for c in range(world.width))}
    total = [0.0] * len(index)
    for probability, draws in every_record(world, sampler, random.Random(0)):
        tree = build_tree(draws)
        tree = replace(tree, priors=tuple(0.9 - 0.1 * node.end for node in tree.nodes))
        advantages = assign_advantages(credit, tree).of_nodes
        weights = node_weights(tree, NodeWeight.DRAWS)
        for node_id in range(1, len(tree.nodes)):
            node = tree.nodes[node_id]
            assert node.draw is not None
            prefix = [token for token in tokens_of(draws, node.draw)[: node.end] if token < 100]
            state, choice = tuple(prefix[:-1]), prefix[-1]
            for c in range(world.width):
                slope = (c == choice) - world.policy[state][c]
                total[index[state, c]] += probability * weights[node_id] * advantages[node_id] * slope
    return total


@pytest.mark.parametrize(
    "sampler", [IndependentSampler(initial_draws=2), FixedWidthSampler(initial_draws=1, every_steps=1, width=2)]
)
def test_a_value_baseline_leaves_the_expected_gradient_as_it_is(sampler: AnySampler) -> None:
    world = World(3, depth=2, width=2)
    without = expected_gradient(world, BaselineCredit(siblings=False, a=0.0, b=-700.0), sampler)  # b(s) = 0
    for credit in (BaselineCredit(siblings=False), BaselineCredit(), BaselineCredit(kappa=0.0)):
        assert expected_gradient(world, credit, sampler) == pytest.approx(without, abs=1e-9)
    assert max(map(abs, without)) > 0.01
