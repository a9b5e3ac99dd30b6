"""Tokens that were given, and not sampled, are in no probability: against slow transcriptions over trajectories."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tree.credit import IBTPOCredit, assign_advantages
from shared.tree.draw import Draw, WeightVersion, logprob_before, trajectory
from shared.tree.ib_score import Confidence, IBSettings, confidences, ib_scores
from shared.tree.node import build_tree
from shared.tree.samplers import ActivePathSampler, EntropySampler, expected_variances, hit_gains, unseen_masses
from shared.tree.samplers.gains import AnswerConfidence, posterior_means
from shared.tree.values import BACKUP, COUNTS
from tests.tree.definitions import ROOT, Definitions, State, states_of
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, policy_logprob, records

brief = settings(max_examples=40, deadline=None)


def is_given(prefix: Sequence[int]) -> bool:
    """Whether the environment speaks after these tokens."""
    return (3 * sum(prefix) + 2 * len(prefix)) % 5 in (1, 2)


def with_given(draws: Sequence[Draw]) -> tuple[Draw, ...]:
    """The same draws, of which the environment gave some tokens; where it did, log-probabilities mean nothing."""
    found = []
    for draw_id, one in enumerate(draws):
        whole = trajectory(draws, draw_id)
        at = [nth for nth in range(len(one.token_ids)) if is_given(whole[: one.cut + nth])]
        logprobs = [-7.0 if nth in at else logprob for nth, logprob in enumerate(one.logprobs)]
        spans = tuple((nth, nth + 1) for nth in at)
        found.append(replace(one, given=spans, logprobs=tuple(logprobs), entropies=tuple(map(abs, logprobs))))
    return tuple(found)


grown = records(unjudged=True).map(with_given)


class Slow(Definitions):
    """METHOD's definitions, where a probability is of sampled tokens alone."""

    def step_logprobs(self, s: State) -> list[float]:
        whole = self.tokens[self.leaves(s)[0]]
        between = range(self.length(self.parent(s)), self.length(s))
        return [policy_logprob(whole[:at], whole[at]) for at in between if not is_given(whole[:at])]

    def eta2(self, confidence: str, s: State) -> float:
        if confidence == "geometric" and (s == ROOT or not self.step_logprobs(s)):
            return 1.0
        return super().eta2(confidence, s)


def probability(prefix: Sequence[int], whole: Sequence[int]) -> tuple[float, int]:
    """Of what the policy sampled after a prefix, and how many tokens that is."""
    sampled = [at for at in range(len(prefix), len(whole)) if not is_given(whole[:at])]
    return math.exp(sum(policy_logprob(whole[:at], whole[at]) for at in sampled)), len(sampled)


@given(grown, st.booleans(), st.sampled_from(Confidence), st.sampled_from([COUNTS, BACKUP]))
@brief
def test_confidences_scores_and_credit_are_of_sampled_tokens(
    draws: tuple[Draw, ...], merge: bool, confidence: Confidence, values: type[COUNTS]
) -> None:
    tree, slow = build_tree(draws, merge), Slow(draws, merge)
    chosen = IBSettings(values=values, confidence=confidence)
    etas2, scores = confidences(tree, confidence), ib_scores(tree, chosen)
    other = confidences(tree, confidence, [one.logprobs for one in draws])
    credit = IBTPOCredit(values=values, confidence=confidence, lam=1.0)
    advantages = assign_advantages(credit, tree)
    for node_id, state in states_of(tree, slow).items():
        assert etas2[node_id] == other[node_id] == pytest.approx(slow.eta2(confidence, state))
        expected = slow.ib1(values, confidence, state)
        assert scores[node_id] == (None if expected is None else pytest.approx(expected))
        if tree.is_mixed and node_id:
            a = slow.a_gl(values, state) + slow.a_ib(values, confidence, state)
            assert advantages.of_nodes[node_id] == pytest.approx(a)


@given(grown, st.booleans(), st.sampled_from(AnswerConfidence))
@brief
def test_gains_count_what_was_sampled(draws: tuple[Draw, ...], merge: bool, confidence: AnswerConfidence) -> None:
    tree = build_tree(draws, merge)
    unseen, hits = unseen_masses(tree), hit_gains(tree, confidence)
    variances, means = expected_variances(tree, 0.5, 2.0, unseen), posterior_means(tree, 0.5, 2.0)
    counted = [i for i in range(len(draws)) if draws[i].counted_reward is not None]
    tokens = {i: trajectory(draws, i) for i in counted}

    def sure(prefix: tuple[int, ...], whole: tuple[int, ...]) -> float:
        joint, count = probability(prefix, whole)
        return joint if confidence is AnswerConfidence.JOINT else joint ** (1 / max(count, 1))

    for node_id, node in enumerate(tree.nodes):
        if not node.num_draws:
            continue
        through = [i for i in counted if node_id == 0 or node_id in tree.path(i)]
        prefix = tokens[through[0]][: node.end]
        alike = {whole for whole in tokens.values() if whole[: len(prefix)] == prefix}
        mass = max(0.0, 1.0 - sum(probability(prefix, whole)[0] for whole in alike))
        assert unseen[node_id] == pytest.approx(mass, abs=2e-6)
        if not unseen[node_id]:
            assert hits[node_id] is variances[node_id] is None
            continue
        cost = max(fmean(probability(prefix, tokens[i])[1] for i in through), 1.0)
        known = sure((), prefix) * fmean(sure(prefix, tokens[i]) for i in through)
        assert math.exp(hits[node_id] or 0.0) == pytest.approx(known * unseen[node_id] / cost)
        n = node.num_leaves
        decrease = n * means[node_id] * (1 - means[node_id]) / (n + 3) ** 2
        assert variances[node_id] == pytest.approx(decrease * unseen[node_id] / cost)


@given(grown)
@brief
def test_the_log_probability_of_a_path_is_that_of_its_sampled_tokens(draws: tuple[Draw, ...]) -> None:
    for draw_id, one in enumerate(draws):
        whole = trajectory(draws, draw_id)
        for position in range(1, one.end + 1):
            joint, count = probability((), whole[:position])
            assert logprob_before(draws, draw_id, position) == (pytest.approx(math.log(joint)), count)


@given(grown, st.integers(0, 9))
@brief
def test_samplers_of_tokens_never_fork_before_a_given_one_nor_score_it(draws: tuple[Draw, ...], seed: int) -> None:
    tree = build_tree(draws)
    for sampler in (ActivePathSampler(), EntropySampler(forks_per_answer=9)):
        for one in sampler.expand(tree, 1, random.Random(seed)):
            assert one.parent is not None
            whole = trajectory(draws, one.parent)
            assert not is_given(whole[: one.cut])
            assert isinstance(sampler, EntropySampler) or not is_given(whole[: one.cut - 1])


def test_a_path_becomes_active_by_its_sampled_tokens() -> None:
    first = draw([A, A, B, EOS], entropies=[1.0, 1.0, 2.0, 0.0])
    second = draw([B, A, B, EOS], before=[first], parent=0, cut=3, entropies=[1.5, 1.5, 0.0, 0.0])
    sampler = ActivePathSampler(initial_draws=1, rounds=3)
    assert list(sampler.active_paths(build_tree([first, second]))) == [0]
    assert list(sampler.active_paths(build_tree([first, replace(second, given=((2, 4),))]))) == [1]


def test_a_step_that_was_given_as_a_whole_is_certain() -> None:
    one = replace(draw([A, BLANK_LINE, B, EOS]), given=((0, 2),))
    assert confidences(build_tree([one]), Confidence.GEOMETRIC)[1] == 1.0


def test_equal_tokens_are_one_node_only_if_both_were_sampled_or_both_given() -> None:
    one, given_one = draw([A, BLANK_LINE, B, EOS]), replace(draw([A, BLANK_LINE, B, EOS]), given=((0, 1),))
    later = draw([A, BLANK_LINE, B, EOS], version=WeightVersion(0, 2))
    assert len(build_tree([one, one], merge=True).nodes) == 3
    assert len(build_tree([one, given_one], merge=True).nodes) == 5
    assert len(build_tree([one, later], merge=True).nodes) == 5
    every = ((0, 4),)
    assert len(build_tree([replace(one, given=every), replace(later, given=every)], merge=True).nodes) == 3
