"""Samplers that continue the node of the highest gain per token: what one more draw from it may tell."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Annotated

from shared.tree.node import Tree
from shared.tree.samplers.nodes import NodeSampler
from shared.tree.samplers.sampler import Branch
from shared.tree.samplers.unseen import prefix_lengths, prefix_logprobs, temper, unseen_masses


class AnswerConfidence(StrEnum):
    """How the probability of an answer's part is measured in a gain."""

    GEOMETRIC = "geometric"
    """exp of the mean token log-probability: of long answers, too."""
    JOINT = "joint"
    """exp of their sum."""


ANSWER_NATS = "c: surprise of a mean answer, in nats, beyond which U(s) puts it down to many wordings of a thought"


@dataclass(frozen=True, slots=True)
class HitSampler(NodeSampler):
    """While all rewards of a tree are equal, draws from the node of the highest gain S-5: where one more draw most
    likely finds an answer not seen yet, and a right one, per token.
    """

    confidence: Annotated[AnswerConfidence, "How the probability of the parts of an answer is measured"] = (
        AnswerConfidence.GEOMETRIC
    )
    answer_nats: Annotated[float, ANSWER_NATS] = 4.0
    stops_when_mixed: Annotated[bool, "End the tree once rewards differ; if not, random nodes get what is left"] = True

    def __post_init__(self) -> None:
        NodeSampler.__post_init__(self)
        _check_nats(self.answer_nats)

    def choose(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        if tree.is_mixed:
            return self.branch_random(tree, rng)
        return self.branch_highest(tree, hit_gains(tree, self.confidence, self.answer_nats), rng)


@dataclass(frozen=True, slots=True)
class ExpectedVarianceSampler(NodeSampler):
    """Draws from the node of the highest gain S-6: where one more outcome is expected to tell most per token."""

    prior: Annotated[float, "p₀: the probability of a right answer, before any is seen"] = 0.5
    prior_draws: Annotated[float, "κ: how many draws what is known beside a node counts for there"] = 2.0
    answer_nats: Annotated[float, ANSWER_NATS] = 4.0
    unseen_mass: Annotated[bool, "Multiply by U(s): a second draw of what is certain tells nothing"] = True

    def __post_init__(self) -> None:
        NodeSampler.__post_init__(self)
        if not 0.0 < self.prior < 1.0:
            raise ValueError(f"prior lies between 0 and 1: {self.prior}")
        if not 0.0 < self.prior_draws < math.inf:
            raise ValueError(f"prior_draws is positive: {self.prior_draws}")
        _check_nats(self.answer_nats)

    def choose(self, tree: Tree, rng: random.Random) -> tuple[Branch, ...]:
        masses = None
        if self.unseen_mass:
            masses = unseen_masses(tree, temper(tree, prefix_logprobs(tree), self.answer_nats))
        gains = expected_variances(tree, self.prior, self.prior_draws, masses)
        return self.branch_highest(tree, gains, rng)


def hit_gains(tree: Tree, confidence: AnswerConfidence, answer_nats: float = math.inf) -> tuple[float | None, ...]:
    """log of S-5 of every node, but for U(root), which all have in common; None at leaves, and where all is seen."""
    logs, lengths = prefix_logprobs(tree), prefix_lengths(tree)
    unseen, ends = unseen_masses(tree, temper(tree, logs, answer_nats)), _answer_ends(tree)
    is_joint = confidence is AnswerConfidence.JOINT
    gains: list[float | None] = []
    for node_id, node in enumerate(tree.nodes):
        if not node.num_draws or not unseen[node_id]:
            gains.append(None)
            continue
        reached = logs[node_id] / (1 if is_joint else lengths[node_id] or 1)
        rests = [
            (logs[leaf] - logs[node_id]) / (1 if is_joint else lengths[leaf] - lengths[node_id] or 1)
            for leaf in ends[node_id]
        ]
        cost = _cost(lengths, node_id, ends)
        gains.append(reached + math.log(unseen[node_id]) + _log_mean_exp(rests) - math.log(cost))
    return tuple(gains)


def expected_variances(
    tree: Tree, prior: float, prior_draws: float, unseen: Sequence[float] | None = None
) -> tuple[float | None, ...]:
    """S-6 of every node, with U(s) if `unseen`; None at leaves, and where one more draw cannot tell anything."""
    masses = unseen or (1.0,) * len(tree.nodes)
    ends, means, lengths = _answer_ends(tree), posterior_means(tree, prior, prior_draws), prefix_lengths(tree)
    gains: list[float | None] = []
    for node_id, (node, mean) in enumerate(zip(tree.nodes, means, strict=True)):
        if not node.num_draws or not masses[node_id]:
            gains.append(None)
            continue
        size = node.num_leaves + prior_draws
        decrease = mean * (1 - mean) / (size + 1) / (size + 1)  # of the posterior's variance, by one more outcome
        gains.append(node.num_leaves * decrease * masses[node_id] / _cost(lengths, node_id, ends))
    return tuple(gains)


def posterior_means(tree: Tree, prior: float, prior_draws: float) -> tuple[float, ...]:
    """p̃(s) of S-6: the mean of a Beta distribution, whose prior is what is known of the parent without the answers
    under s. So no answer counts twice, however many nodes in a row it alone runs through.
    """
    right = [sum(tree.nodes[leaf].reward or 0.0 for leaf in leaves) for leaves in _answer_ends(tree)]
    priors, means = [prior] * len(tree.nodes), []
    for node_id, (node, parent) in enumerate(zip(tree.nodes, tree.parents, strict=True)):
        if node_id:
            others = tree.nodes[parent].num_leaves - node.num_leaves
            known = right[parent] - right[node_id] + prior_draws * priors[parent]
            priors[node_id] = known / (others + prior_draws)
        means.append((right[node_id] + prior_draws * priors[node_id]) / (node.num_leaves + prior_draws))
    return tuple(means)


def _check_nats(answer_nats: float) -> None:
    if not answer_nats > 0.0:
        raise ValueError(f"answer_nats is positive: {answer_nats}")


def _answer_ends(tree: Tree) -> tuple[list[int], ...]:
    """Of every node, the leaves of the trajectories through it, one for each trajectory."""
    ends: tuple[list[int], ...] = tuple([] for _ in tree.nodes)
    for leaf in tree.leaf_of_draw:
        if leaf is not None:
            node_id = leaf
            while node_id:
                ends[node_id].append(leaf)
                node_id = tree.parents[node_id]
            ends[0].append(leaf)
    return ends


def _cost(lengths: Sequence[int], node_id: int, ends: Sequence[Sequence[int]]) -> float:
    """The mean number of tokens that its trajectories sample after it, at least 1."""
    return max(fmean(lengths[leaf] for leaf in ends[node_id]) - lengths[node_id], 1.0)


def _log_mean_exp(logs: Sequence[float]) -> float:
    """log of the mean of exp, as joint probabilities of long answers underflow."""
    highest = max(logs)
    return highest + math.log(fmean(math.exp(log - highest) for log in logs))
