"""The IB-Score J(s) of a node: how openly its draws explore, balanced against how much they decide."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Annotated, ClassVar

from shared.tree.draw import Draw
from shared.tree.node import Tree
from shared.tree.values import COUNTS, AnyValues, node_values


class Confidence(StrEnum):
    """η₂ of a step: how the probability of its tokens is computed."""

    GEOMETRIC = "geometric"
    """exp of the mean log-probability of the tokens that were sampled; 1 where all were given."""
    JOINT = "joint"
    """exp of their sum."""
    SIBLINGS = "siblings"
    """JOINT, normalised over the distinct siblings."""


class ScoreForm(StrEnum):
    """Which J(s)."""

    PUBLISHED = "published"
    """IB-1: J(s) = (1 + β)/n Σ_c η₁(c)·η₂(c)."""
    EXACT = "exact"
    """IB-1x: J(s) = 1 + β/n Σ_c η₂(c)·(r(c)² − (1 + 1/β))."""


@dataclass(frozen=True, slots=True)
class Estimation:
    """What scores and credit have in common: β, and how values and confidences are estimated."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    beta: Annotated[float, "β: how much the values of a node's draws count, against the confidence in them"] = 5.0
    values: Annotated[AnyValues, "How the value p̂(s) of a node is estimated (V1 to V4)"] = COUNTS
    confidence: Annotated[Confidence, "What the probability η₂ of a step is taken to be"] = Confidence.GEOMETRIC

    def __post_init__(self) -> None:
        if not 1e-9 <= self.beta <= 1e9:  # beyond, 1/β or β times a number is no number
            raise ValueError(f"beta is positive, from 1e-9 to 1e9: {self.beta}")


@dataclass(frozen=True, slots=True)
class IBSettings(Estimation):
    """How nodes are scored."""

    form: Annotated[ScoreForm, "Which score J(s): IB-1 as published, or its exact expectation's IB-1x"] = (
        ScoreForm.PUBLISHED
    )


def ib_scores(tree: Tree, settings: IBSettings) -> tuple[float | None, ...]:
    """J(s) of every node; None at leaves."""
    ratios = value_ratios(tree, node_values(tree, settings.values))
    return scores(tree, ratios, confidences(tree, settings.confidence), settings)


def scores(
    tree: Tree, ratios: Sequence[float], confidence: Sequence[float], settings: IBSettings
) -> tuple[float | None, ...]:
    """J(s) of every node, given r and η₂ of every node; None at leaves."""
    beta = settings.beta
    match settings.form:
        case ScoreForm.PUBLISHED:
            etas = zip(etas1(ratios, beta), confidence, strict=True)
            means = tree.mean_over_draws([eta1 * eta2 for eta1, eta2 in etas])
            return tuple(None if mean is None else (1 + beta) * mean for mean in means)
        case ScoreForm.EXACT:
            pairs = zip(confidence, ratios, strict=True)
            means = tree.mean_over_draws([eta2 * (r * r - (1 + 1 / beta)) for eta2, r in pairs])
            return tuple(None if mean is None else 1 + beta * mean for mean in means)


def value_ratios(tree: Tree, values: Sequence[float]) -> tuple[float, ...]:
    """r(c) = p̂(c)/p̂(parent) of every node; where p̂(parent) = 0 it is 1, the limit of adding ε to both. r(root) = 1."""
    return tuple(
        value / values[parent] if values[parent] else 1.0 for value, parent in zip(values, tree.parents, strict=True)
    )


def etas1(ratios: Iterable[float], beta: float) -> list[float]:
    """η₁(c) = r(c) − (1 + 1/β)."""
    bound = 1 + 1 / beta
    return [r - bound for r in ratios]


def confidences(
    tree: Tree, confidence: Confidence, logprobs_of_draw: Sequence[Sequence[float]] | None = None
) -> tuple[float, ...]:
    """η₂ of every node, 1 at the root: under the policy that sampled it or, with `logprobs_of_draw` (of every draw's
    new tokens), under another policy."""
    logs = step_logprobs(tree, logprobs_of_draw)
    match confidence:
        case Confidence.GEOMETRIC:
            lengths = sampled_lengths(tree)
            return tuple(math.exp(log / max(length, 1)) for log, length in zip(logs, lengths, strict=True))
        case Confidence.JOINT:
            return tuple(map(math.exp, logs))
        case Confidence.SIBLINGS:
            return _normalize_over_siblings(tree, logs)


def step_logprobs(tree: Tree, logprobs_of_draw: Sequence[Sequence[float]] | None = None) -> list[float]:
    """Σ log p over the sampled tokens of every node."""
    if logprobs_of_draw is None:
        return _sums_of_nodes(tree, [draw.cumulative_logprobs for draw in tree.draws])
    pairs = zip(tree.draws, logprobs_of_draw, strict=True)
    return _sums_of_nodes(tree, [tuple(accumulate(draw.of_sampled(logs), initial=0.0)) for draw, logs in pairs])


def sampled_lengths(tree: Tree) -> list[int]:
    """How many tokens of every node were sampled, and not given."""
    if not any(draw.given for draw in tree.draws):
        return [node.end - node.start for node in tree.nodes]
    return [*map(int, _sums_of_nodes(tree, [draw.cumulative_sampled for draw in tree.draws]))]


def _sums_of_nodes(tree: Tree, sums: Sequence[Sequence[float]]) -> list[float]:
    """Over the tokens of every node, given the running sums over every draw's new tokens."""
    return [
        0.0 if node.draw is None else _sum_between(tree.draws, sums, node.draw, node.start, node.end)
        for node in tree.nodes
    ]


def _sum_between(draws: Sequence[Draw], sums: Sequence[Sequence[float]], draw_id: int, start: int, end: int) -> float:
    """Σ over positions [start, end) of a draw's trajectory, given the running sums over every draw's new tokens."""
    total = 0.0
    at: int | None = draw_id
    while at is not None:
        draw, of_draw = draws[at], sums[at]
        total += of_draw[end - draw.cut] - of_draw[max(0, start - draw.cut)]
        at, end = (draw.parent, draw.cut) if start < draw.cut else (None, start)
    return total


def _normalize_over_siblings(tree: Tree, logs: Sequence[float]) -> tuple[float, ...]:
    """exp(log)/Σ exp(log), computed relative to the likeliest sibling, as probabilities of long steps underflow."""
    shares = [1.0] * len(logs)
    for node in tree.nodes:
        if len(node.children) > 1:
            distinct = {tree.token_ids(child): logs[child] for child in node.children}
            likeliest = max(distinct.values())
            total = sum(math.exp(log - likeliest) for log in distinct.values())
            for child in node.children:
                shares[child] = math.exp(logs[child] - likeliest) / total
    return tuple(shares)
