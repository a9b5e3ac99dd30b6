"""The figures that show how a run goes, of one tree or of many."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from shared.tree.draw import Draw, is_full_reward
from shared.tree.ib_score import IBSettings, confidences, etas1, scores, value_ratios
from shared.tree.node import Tree
from shared.tree.values import ValueEstimator, node_values, root_value

EtaPair: TypeAlias = tuple[float, float]
ValuesOf: TypeAlias = Callable[[Tree, ValueEstimator], Sequence[float] | None]
"""p̂(s) of every node; None where it cannot be had."""

_SAME_VALUE = 1e-9
"""Values this close differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean that adds: over the union of two sets it is the sum of theirs."""

    total: float = 0.0
    count: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Mean":
        """The mean of some values, perhaps of none."""
        every = tuple(values)
        return cls(sum(every), len(every))

    @property
    def value(self) -> float | None:
        """None where there is nothing to average."""
        return self.total / self.count if self.count else None

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)


@dataclass(frozen=True, slots=True)
class TreeFigures:
    """The figures of trees as means that add (METHOD, Diagnostics); `merge` adds those of many trees."""

    rewards: Mean = Mean()
    """Over the trajectories that count."""
    root_values: Mean = Mean()
    mixed: Mean = Mean()
    """Eff-Rate: the share of trees whose rewards differ."""
    all_right: Mean = Mean()
    """The share of trees whose rewards are all full."""
    all_wrong: Mean = Mean()
    """The share of trees whose rewards are all 0."""
    fork_scores: Mean = Mean()
    covariances: Mean = Mean()
    truncated: Mean = Mean()
    """1 for each answer that the token limit cut, else 0."""
    answer_tokens: Mean = Mean()
    longest_answer: int = 0
    without_values: int = 0
    """Trees without a score or covariance, as their value estimator failed."""
    eta_pairs: tuple[EtaPair, ...] = ()
    """(η₁, η₂) of the draws of nodes with at least two, for a scatter plot; a sample of them after `merge`."""

    @property
    def trees(self) -> int:
        """How many trees have a draw that counts."""
        return self.mixed.count

    @property
    def mixed_trees(self) -> int:
        """How many of them have rewards that differ."""
        return int(self.mixed.total)

    @property
    def avg_rate(self) -> float | None:
        """Avg-Rate: mean reward of leaves; biased on trees."""
        return self.rewards.value

    @property
    def root_value(self) -> float | None:
        """Mean over trees of the mean of their first leaves; unbiased."""
        return self.root_values.value

    @property
    def ib_score(self) -> float | None:
        """IB-Score: mean J over the nodes with at least two draws."""
        return self.fork_scores.value

    @property
    def cov_eta(self) -> float | None:
        """Balance: mean Cov(η₁, η₂) over the nodes of at least two draws whose values differ."""
        return self.covariances.value


def with_lengths(figures: TreeFigures, draws: Sequence[Draw]) -> TreeFigures:
    """The figures with how long the answers of these draws are, and how many of them are cut."""
    return replace(
        figures,
        truncated=Mean.of(draw.is_cut for draw in draws),
        answer_tokens=Mean.of(draw.end for draw in draws),
        longest_answer=max((draw.end for draw in draws), default=0),
    )


def diagnose(tree: Tree, settings: IBSettings, num_first: int, values_of: ValuesOf = node_values) -> TreeFigures:
    """The figures of a tree with `num_first` initial draws; empty for a tree in which no draw counts."""
    if not tree.rewards:
        return TreeFigures()
    first = root_value(tree, num_first)
    of_rewards = TreeFigures(
        rewards=Mean.of(tree.rewards),
        root_values=Mean() if first is None else Mean.of([first]),
        mixed=Mean.of([tree.is_mixed]),
        all_right=Mean.of([is_full_reward(min(tree.rewards))]),
        all_wrong=Mean.of([max(tree.rewards) == 0.0]),
    )
    values = values_of(tree, settings.values)
    if values is None:
        return replace(of_rewards, without_values=1)
    ratios, etas2 = value_ratios(tree, values), confidences(tree, settings.confidence)
    etas = tuple(zip(etas1(ratios, settings.beta), etas2, strict=True))
    j = scores(tree, ratios, etas2, settings)
    cov = _covariances(tree, etas)
    forks = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws >= 2]
    return replace(
        of_rewards,
        fork_scores=Mean.of(score for node_id in forks if (score := j[node_id]) is not None),
        covariances=Mean.of(cov[node_id] for node_id in forks if _differ(tree, node_id, values)),
        eta_pairs=tuple(etas[child] for node_id in forks for child in tree.nodes[node_id].children),
    )


def _covariances(tree: Tree, etas: Sequence[EtaPair]) -> list[float]:
    """Cov(η₁, η₂) = E[η₁·η₂] − E[η₁]·E[η₂] over the draws of every node; 0 at leaves."""
    products = tree.mean_over_draws([eta1 * eta2 for eta1, eta2 in etas])
    means1 = tree.mean_over_draws([eta1 for eta1, _ in etas])
    means2 = tree.mean_over_draws([eta2 for _, eta2 in etas])
    return [
        (product or 0.0) - (mean1 or 0.0) * (mean2 or 0.0)
        for product, mean1, mean2 in zip(products, means1, means2, strict=True)
    ]


def _differ(tree: Tree, node_id: int, values: Sequence[float]) -> bool:
    of_draws = [values[child] for child in tree.nodes[node_id].children]
    return max(of_draws) - min(of_draws) > _SAME_VALUE


def merge(figures: Iterable[TreeFigures], max_pairs: int = 512) -> TreeFigures:
    """The figures of all their trees, with at most `max_pairs` evenly spaced η pairs."""
    every = tuple(figures)
    pairs = [pair for one in every for pair in one.eta_pairs]
    stride = max(1, -(-len(pairs) // max_pairs))
    return TreeFigures(
        rewards=sum((one.rewards for one in every), Mean()),
        root_values=sum((one.root_values for one in every), Mean()),
        mixed=sum((one.mixed for one in every), Mean()),
        all_right=sum((one.all_right for one in every), Mean()),
        all_wrong=sum((one.all_wrong for one in every), Mean()),
        fork_scores=sum((one.fork_scores for one in every), Mean()),
        covariances=sum((one.covariances for one in every), Mean()),
        truncated=sum((one.truncated for one in every), Mean()),
        answer_tokens=sum((one.answer_tokens for one in every), Mean()),
        longest_answer=max((one.longest_answer for one in every), default=0),
        without_values=sum(one.without_values for one in every),
        eta_pairs=tuple(pairs[::stride]),
    )
