"""Unseen mass and the gains that are made of it, against slow transcriptions over trajectories."""

import math
import random
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.draw import Draw, trajectory
from shared.tree.ib_score import ib_scores
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import (
    Branch,
    ExpectedVarianceSampler,
    HitSampler,
    IBSampler,
    RandomSampler,
    expected_variances,
    hit_gains,
    unseen_masses,
)
from shared.tree.samplers.gains import AnswerConfidence
from shared.tree.samplers.unseen import prefix_logprobs, temper
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, policy, quick, records
from tests.tree.worlds import World, grow

Tokens = tuple[int, ...]


def probability(prefix: Sequence[int], rest: Sequence[int]) -> float:
    return math.prod(policy((*prefix, *rest[:at]))[token] for at, token in enumerate(rest))


def slow_unseen(answers: set[Tokens], prefix: Tokens) -> float:
    """Token by token: the next one leads where nothing has been, or on to what is unseen there."""
    if prefix in answers:
        return 0.0
    seen = {answer[len(prefix)] for answer in answers if answer[: len(prefix)] == prefix}
    return 1.0 - sum(policy(prefix)[token] * (1.0 - slow_unseen(answers, (*prefix, token))) for token in seen)


class Paths:
    """The trajectories through each node, and its prefix."""

    def __init__(self, tree: Tree) -> None:
        self.counted = [i for i, one in enumerate(tree.draws) if one.counted_reward is not None]
        self.tokens = {i: trajectory(tree.draws, i) for i in self.counted}
        self.through = {
            node_id: [i for i in self.counted if node_id == 0 or node_id in tree.path(i)]
            for node_id in range(len(tree.nodes))
        }
        self.prefix = {
            node_id: self.tokens[through[0]][: tree.nodes[node_id].end] if through else ()
            for node_id, through in self.through.items()
        }
        self.reward = {i: float(tree.draws[i].counted_reward or 0.0) for i in self.counted}

    def cost(self, node_id: int) -> float:
        return fmean(len(self.tokens[i]) - len(self.prefix[node_id]) for i in self.through[node_id])


@given(records(unjudged=True), st.booleans())
@quick
def test_the_unseen_mass_is_what_no_answer_has(draws: tuple[Draw, ...], merge: bool) -> None:
    tree = build_tree(draws, merge)
    paths = Paths(tree)
    answers = set(paths.tokens.values())
    for node_id, mass in enumerate(unseen_masses(tree)):
        assert mass == pytest.approx(slow_unseen(answers, paths.prefix[node_id]), abs=2e-6)


@given(records(unjudged=True), st.booleans(), st.sampled_from(AnswerConfidence))
@quick
def test_the_gain_of_a_hit_is_as_defined(draws: tuple[Draw, ...], merge: bool, confidence: AnswerConfidence) -> None:
    tree = build_tree(draws, merge)
    paths, unseen = Paths(tree), unseen_masses(tree)

    def sure(prefix: Tokens, rest: Tokens) -> float:
        root = 1 if confidence is AnswerConfidence.JOINT else len(rest) or 1
        return float(probability(prefix, rest) ** (1 / root))

    for node_id, gain in enumerate(hit_gains(tree, confidence)):
        if not tree.nodes[node_id].num_draws or not unseen[node_id]:
            assert gain is None
            continue
        prefix = paths.prefix[node_id]
        rests = [paths.tokens[i][len(prefix) :] for i in paths.through[node_id]]
        known = sure((), prefix) * fmean(sure(prefix, rest) for rest in rests)
        assert gain is not None
        assert math.exp(gain) == pytest.approx(known * unseen[node_id] / paths.cost(node_id))


def decrease_of_variance(right: float, wrong: float) -> float:
    """Of a Beta distribution's variance by one more outcome, on average over both."""

    def variance(a: float, b: float) -> float:
        return a * b / ((a + b) ** 2 * (a + b + 1))

    mean = right / (right + wrong)
    return variance(right, wrong) - mean * variance(right + 1, wrong) - (1 - mean) * variance(right, wrong + 1)


@given(records(unjudged=True), st.booleans(), st.sampled_from([0.1, 0.5]), st.sampled_from([0.5, 2.0]), st.booleans())
@quick
def test_the_expected_variance_is_as_derived(
    draws: tuple[Draw, ...], merge: bool, prior: float, prior_draws: float, unseen: bool
) -> None:
    tree = build_tree(draws, merge)
    paths, masses = Paths(tree), unseen_masses(tree)

    def prior_of(chain: Sequence[int]) -> float:
        """What is known beside the last node of a chain from the root."""
        known = prior
        for above, node_id in pairwise(chain):
            others = [paths.reward[i] for i in paths.through[above] if i not in paths.through[node_id]]
            known = (sum(others) + prior_draws * known) / (len(others) + prior_draws)
        return known

    for node_id, gain in enumerate(expected_variances(tree, prior, prior_draws, masses if unseen else None)):
        if not tree.nodes[node_id].num_draws or (unseen and not masses[node_id]):
            assert gain is None
            continue
        chain = [node_id]
        while chain[0]:
            chain.insert(0, tree.parents[chain[0]])
        rewards = [paths.reward[i] for i in paths.through[node_id]]
        right = sum(rewards) + prior_draws * prior_of(chain)
        decrease = decrease_of_variance(right, len(rewards) + prior_draws - right)
        assert gain == pytest.approx(
            len(rewards) * decrease * (masses[node_id] if unseen else 1.0) / paths.cost(node_id)
        )


@pytest.mark.parametrize(("answer_nats", "scale"), [(4.0, 0.5), (8.0, 1.0), (100.0, 1.0)])
def test_the_surprise_of_long_answers_is_put_down_to_their_wordings(answer_nats: float, scale: float) -> None:
    draws = [draw([A, BLANK_LINE, token, EOS], 0.0, logprobs=[-2.0] * 4) for token in (A, B)]  # 8 nats each
    logs = prefix_logprobs(build_tree(draws))
    assert temper(build_tree(draws), logs, answer_nats) == pytest.approx([scale * log for log in logs])


def test_where_everything_has_been_seen_nothing_is_drawn() -> None:
    certain = [draw([A, BLANK_LINE, A, EOS], 0.0, logprobs=[0.0] * 4)] * 4
    tree = build_tree(certain)
    assert unseen_masses(tree) == (0.0,) * len(tree.nodes)
    for sampler in (HitSampler(), ExpectedVarianceSampler(), IBSampler(min_unseen=0.01)):
        assert sampler.expand(tree, 1, random.Random(0)) == ()


def test_equal_answers_on_two_paths_count_once() -> None:
    half = math.log(0.5)
    draws = [draw([A, BLANK_LINE, A, EOS], 0.0, logprobs=[half, 0.0, half, 0.0]) for _ in range(2)]
    assert unseen_masses(build_tree(draws))[0] == pytest.approx(0.75)
    other = draw([A, BLANK_LINE, B, EOS], 0.0, logprobs=[half, 0.0, half, 0.0])
    masses = unseen_masses(build_tree([*draws, other]))
    assert masses[0] == pytest.approx(0.5)
    assert max(masses[1:]) == 0.0


def test_ib_never_draws_from_where_little_is_unseen() -> None:
    world, unseen_of = World(4, depth=6, width=2), 0.3
    grown = grow(world, IBSampler(min_unseen=unseen_of), random.Random(1))
    for count in range(4, len(grown)):
        tree, new = build_tree(grown[:count]), grown[count]
        node = next(i for i, one in enumerate(tree.nodes) if (one.draw, one.end) == (new.parent, new.cut))
        masses = unseen_masses(tree)
        assert masses[node] >= unseen_of
        allowed = [j for j, mass in zip(ib_scores(tree, IBSampler().score), masses, strict=True) if mass >= unseen_of]
        assert ib_scores(tree, IBSampler().score)[node] == max(j for j in allowed if j is not None)


@pytest.mark.parametrize(
    "make", [HitSampler, *(partial(kind, stops_when_mixed=True) for kind in (IBSampler, RandomSampler))], ids=str
)
def test_a_tree_may_end_as_soon_as_its_rewards_differ(make: type[HitSampler]) -> None:
    sizes = set()
    for seed in range(20):
        draws = grow(World(seed, depth=4, width=2, right_share=0.2), make(), random.Random(seed))
        sizes.add(len(draws))
        assert len(draws) in {4, 12} or build_tree(draws).is_mixed
        assert not build_tree(draws[:-1]).is_mixed or len(draws) == 4
    assert len(sizes) > 2


def test_hit_goes_on_by_chance_once_rewards_differ() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, BLANK_LINE, A, EOS], 1.0), draw([B, EOS], 0.0)])
    sampler = HitSampler(stops_when_mixed=False)
    chosen = {sampler.expand(tree, 1, random.Random(seed)) for seed in range(50)}
    assert chosen == {(Branch(None, 0, 1),), (Branch(0, 2, 1),), (Branch(0, 4, 1),)}


def test_gains_of_answers_of_thousands_of_tokens_do_not_vanish() -> None:
    draws = [draw([A] * 999 + [BLANK_LINE] + [B] * 999 + [EOS], 0.0, logprobs=[-2.0] * 2000) for _ in range(2)]
    for confidence in AnswerConfidence:
        assert all(gain is None or math.isfinite(gain) for gain in hit_gains(build_tree(draws), confidence))
    assert len(HitSampler().expand(build_tree(draws), 1, random.Random(0))) == 1


def test_a_prior_of_any_weight_leaves_numbers() -> None:
    tree = build_tree([draw([A, B, EOS], 1.0), draw([B, EOS], 0.0)])
    for prior_draws in (1e-308, 1e308):
        assert expected_variances(tree, 0.5, prior_draws)[0] is not None
