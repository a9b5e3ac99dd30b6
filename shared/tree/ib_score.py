"""The IB-Score J(s) of a node: how much its draws explore, balanced against how much they decide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import ClassVar

from shared.tree.node import Tree
from shared.tree.values import ValueEstimator, node_values


class Confidence(StrEnum):
    """What the probability of a step of many tokens is taken to be."""

    GEOMETRIC = "geometric"
    """exp(mean token log-probability)."""
    JOINT = "joint"
    """exp(sum of token log-probabilities)."""
    SIBLINGS = "siblings"
    """JOINT, normalised over the distinct siblings."""


class ScoreForm(StrEnum):
    """Which form of the score."""

    PUBLISHED = "published"
    """IB-1: J(s) = (1 + β)/n · Σ η₁(c)·η₂(c)."""
    EXACT = "exact"
    """IB-1x: J(s) = 1 + β/n · Σ η₂(c)·(r(c)² − (1 + 1/β))."""


@dataclass(frozen=True, slots=True)
class IBSettings:
    """How nodes are scored."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    beta: float = 5.0
    form: ScoreForm = ScoreForm.PUBLISHED
    values: ValueEstimator = ValueEstimator.COUNTS
    confidence: Confidence = Confidence.GEOMETRIC
    kappa: float = 2.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta is positive: {self.beta}")
        if not self.kappa >= 0:
            raise ValueError(f"kappa is not negative: {self.kappa}")


def ib_scores(tree: Tree, settings: IBSettings) -> tuple[float | None, ...]:
    """J(s) of every node that has draws; None at leaves."""
    ratios = likelihood_ratios(tree, node_values(tree, settings.values, settings.kappa))
    return scores(tree, ratios, confidences(tree, settings.confidence), settings)


def scores(
    tree: Tree, ratios: Sequence[float], confidence: Sequence[float], settings: IBSettings
) -> tuple[float | None, ...]:
    """J(s) from r(c) and η₂(c) of every node; None at leaves."""
    beta, nodes = settings.beta, tree.nodes
    totals = [0.0] * len(nodes)
    exponent = 1 if settings.form is ScoreForm.PUBLISHED else 2
    for node, r, eta2 in zip(nodes, ratios, confidence, strict=True):
        if node.parent is not None:
            totals[node.parent] += node.multiplicity * (r**exponent - (1 + 1 / beta)) * eta2
    if settings.form is ScoreForm.PUBLISHED:
        return tuple(
            (1 + beta) * total / node.num_draws if node.num_draws else None
            for node, total in zip(nodes, totals, strict=True)
        )
    return tuple(
        1 + beta * total / node.num_draws if node.num_draws else None for node, total in zip(nodes, totals, strict=True)
    )


def likelihood_ratios(tree: Tree, values: Sequence[float]) -> tuple[float, ...]:
    """r(c) = p̂(c)/p̂(parent); 1 where the parent's value is 0, the limit of adding ε to both; 1 at the root."""
    above = [1.0 if node.parent is None else values[node.parent] for node in tree.nodes]
    return (1.0, *(value / base if base else 1.0 for value, base in zip(values[1:], above[1:], strict=True)))


def confidences(
    tree: Tree, confidence: Confidence, logprobs_of_draw: Sequence[Sequence[float]] | None = None
) -> tuple[float, ...]:
    """η₂ of every node (1 at the root), of the policy that sampled it or of the one whose log-probabilities of each
    draw's tokens are given."""
    logs = _step_logprobs(tree, logprobs_of_draw)
    match confidence:
        case Confidence.GEOMETRIC:
            lengths = (max(node.end - node.start, 1) for node in tree.nodes)
            return tuple(math.exp(log / length) for log, length in zip(logs, lengths, strict=True))
        case Confidence.JOINT:
            return tuple(map(math.exp, logs))
        case Confidence.SIBLINGS:
            return _among_siblings(tree, logs)


def _step_logprobs(tree: Tree, logprobs_of_draw: Sequence[Sequence[float]] | None) -> list[float]:
    """Σ log p over the tokens of every node."""
    of_draw = [draw.logprobs for draw in tree.draws] if logprobs_of_draw is None else logprobs_of_draw
    sums = [list(accumulate(logprobs, initial=0.0)) for logprobs in of_draw]
    logs = [0.0]
    for node in tree.nodes[1:]:
        assert node.draw is not None
        cut, upto = tree.draws[node.draw].cut, sums[node.draw]
        logs.append(upto[node.end - cut] - upto[node.start - cut])
    return logs


def _among_siblings(tree: Tree, logs: Sequence[float]) -> tuple[float, ...]:
    confidence = [1.0] * len(logs)
    for node in tree.nodes:
        if len(node.children) > 1:
            distinct = {tree.token_ids(child): logs[child] for child in node.children}
            highest = max(distinct.values())
            total = sum(math.exp(log - highest) for log in distinct.values())
            for child in node.children:
                confidence[child] = math.exp(logs[child] - highest) / total
    return tuple(confidence)
