"""The figures by which a run is read: of one tree, and of many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.tree.ib_score import IBSettings, confidences, likelihood_ratios, scores
from shared.tree.node import Tree
from shared.tree.values import node_values, root_value


@dataclass(frozen=True, slots=True)
class TreeFigures:
    """Sums and counts over trees, so that figures add; the means are None where there is nothing to average."""

    trees: int = 0
    mixed_trees: int = 0
    trajectories: int = 0
    reward_sum: float = 0.0
    root_value_sum: float = 0.0
    root_values: int = 0
    ib_score_sum: float = 0.0
    ib_score_nodes: int = 0
    ib_score_all_sum: float = 0.0
    ib_score_all_nodes: int = 0
    cov_eta_sum: float = 0.0
    cov_eta_nodes: int = 0
    eta_pairs: tuple[tuple[float, float], ...] = ()
    """(η₁, η₂) of draws of nodes that have several, for a scatter plot: a sample once many trees are merged."""

    @property
    def avg_rate(self) -> float | None:
        """Mean reward of leaves; biased on trees."""
        return _mean(self.reward_sum, self.trajectories)

    @property
    def root_value(self) -> float | None:
        """Mean over trees of the mean of their first leaves."""
        return _mean(self.root_value_sum, self.root_values)

    @property
    def eff_rate(self) -> float | None:
        """Share of trees whose rewards are not all equal."""
        return _mean(self.mixed_trees, self.trees)

    @property
    def ib_score(self) -> float | None:
        """Mean J over nodes with at least two draws."""
        return _mean(self.ib_score_sum, self.ib_score_nodes)

    @property
    def ib_score_all(self) -> float | None:
        """Mean J over all nodes with draws: mostly minus the mean confidence."""
        return _mean(self.ib_score_all_sum, self.ib_score_all_nodes)

    @property
    def cov_eta(self) -> float | None:
        """Mean Cov(η₁, η₂) over the nodes whose draws differ in value."""
        return _mean(self.cov_eta_sum, self.cov_eta_nodes)


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def diagnose(tree: Tree, settings: IBSettings, num_first: int) -> TreeFigures:
    """The figures of one tree, whose first `num_first` draws are from the root; of none when no draw counts."""
    rewards = tree.rewards
    if not rewards:
        return TreeFigures()
    values = node_values(tree, settings.values, settings.kappa)
    ratios, eta2 = likelihood_ratios(tree, values), confidences(tree, settings.confidence)
    j = scores(tree, ratios, eta2, settings)
    eta1 = [r - (1 + 1 / settings.beta) for r in ratios]
    forks = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws >= 2]
    covs = [
        _covariance(tree, node_id, eta1, eta2)
        for node_id in forks
        if len({values[child] for child in tree.nodes[node_id].children}) > 1
    ]
    first = root_value(tree, num_first)
    return TreeFigures(
        trees=1,
        mixed_trees=int(tree.is_mixed),
        trajectories=len(rewards),
        reward_sum=sum(rewards),
        root_value_sum=first or 0.0,
        root_values=int(first is not None),
        ib_score_sum=sum(j[node_id] or 0.0 for node_id in forks),
        ib_score_nodes=len(forks),
        ib_score_all_sum=sum(score for score in j if score is not None),
        ib_score_all_nodes=sum(score is not None for score in j),
        cov_eta_sum=sum(covs),
        cov_eta_nodes=len(covs),
        eta_pairs=tuple((eta1[child], eta2[child]) for node_id in forks for child in tree.nodes[node_id].children),
    )


def _covariance(tree: Tree, node_id: int, eta1: Sequence[float], eta2: Sequence[float]) -> float:
    """Cov(η₁, η₂) over the draws of a node."""
    node = tree.nodes[node_id]
    draws = [(tree.nodes[child].multiplicity / node.num_draws, eta1[child], eta2[child]) for child in node.children]
    mean1 = sum(share * x for share, x, _ in draws)
    mean2 = sum(share * y for share, _, y in draws)
    return sum(share * (x - mean1) * (y - mean2) for share, x, y in draws)


def merge(figures: Iterable[TreeFigures], max_pairs: int = 512) -> TreeFigures:
    """The figures of all the trees together, with an evenly spaced sample of at most `max_pairs` η pairs."""
    every = tuple(figures)
    pairs = [pair for one in every for pair in one.eta_pairs]
    stride = max(1, -(-len(pairs) // max_pairs))
    return TreeFigures(
        trees=sum(one.trees for one in every),
        mixed_trees=sum(one.mixed_trees for one in every),
        trajectories=sum(one.trajectories for one in every),
        reward_sum=sum(one.reward_sum for one in every),
        root_value_sum=sum(one.root_value_sum for one in every),
        root_values=sum(one.root_values for one in every),
        ib_score_sum=sum(one.ib_score_sum for one in every),
        ib_score_nodes=sum(one.ib_score_nodes for one in every),
        ib_score_all_sum=sum(one.ib_score_all_sum for one in every),
        ib_score_all_nodes=sum(one.ib_score_all_nodes for one in every),
        cov_eta_sum=sum(one.cov_eta_sum for one in every),
        cov_eta_nodes=sum(one.cov_eta_nodes for one in every),
        eta_pairs=tuple(pairs[::stride]),
    )
