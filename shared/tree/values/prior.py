"""Values with a prior that knows more than the leaves: the likelihood of the answer, or a value head (V4)."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from shared.kinds import values_of_settings, with_settings
from shared.tree.node import Tree
from shared.tree.values.calibration import Calibration, Observation
from shared.tree.values.estimator import ValueEstimator
from shared.tree.values.leaves import backup, counts

Part = TypeVar("Part")
SOURCE = "What the prior is: likelihood, of the gold answer at step ends, or head, the learner's value head"
SLOPE, OFFSET = "a: prior = σ(a·logit Φ + b), Φ what the source says", "b: prior = σ(a·logit Φ + b)"
FIT = "The learner fits a and b as it goes, from those given, for its credit; a sampler takes those given"


class PriorSource(StrEnum):
    """What says something of a node before its leaves do."""

    LIKELIHOOD = "likelihood"
    """Φ(s): the probability of the gold answer after the node, from a replica."""
    HEAD = "head"
    """The learner's value head, read at the node's end before it learns from the tree."""


class LeafValues(StrEnum):
    """How the leaves alone value a node."""

    BACKUP = "backup"
    """V2."""
    COUNTS = "counts"
    """V1."""


@dataclass(frozen=True, slots=True)
class NodePriors:
    """Which priors nodes have: prior(s) = σ(a·logit Φ(s) + b), Φ of the source (V4-c)."""

    source: Annotated[PriorSource, SOURCE] = PriorSource.LIKELIHOOD
    a: Annotated[float, SLOPE] = 1.0
    b: Annotated[float, OFFSET] = 0.0
    fit: Annotated[bool, FIT] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError(f"a and b are finite: {self.a}, {self.b}")

    def priors(self, tree: Tree) -> list[float | None]:
        """prior(s) of every node; None of leaves, whose answer is known, and where the source says nothing."""
        calibration = Calibration(self.a, self.b)
        said = zip(raw_estimates(tree, self.source), tree.nodes, strict=True)
        return [None if one is None or not node.num_draws else calibration.of(one) for one, node in said]


@dataclass(frozen=True, slots=True)
class WithPrior(NodePriors, ValueEstimator):
    """V4: the leaves' value and κ leaves of the prior's; a node without one is pulled to its parent, as in V3."""

    kappa: Annotated[float, "κ: how many leaves the prior counts as"] = 2.0
    leaves: Annotated[LeafValues, "How the leaves value a node: backup (V2) or counts (V1)"] = LeafValues.BACKUP

    def __post_init__(self) -> None:
        NodePriors.__post_init__(self)
        if not 0 <= self.kappa < math.inf:
            raise ValueError(f"kappa is not negative: {self.kappa}")

    def values(self, tree: Tree) -> Sequence[float]:
        """V4: p̃(s) = (n·p̂(s) + κ·prior(s))/(n + κ), n leaves under s, from the root down."""
        values = [*(counts(tree) if self.leaves is LeafValues.COUNTS else backup(tree))]
        for node_id, prior in enumerate(self.priors(tree)):
            if prior is None:
                prior = values[tree.parents[node_id]]  # at the root its own value
            n = tree.nodes[node_id].num_leaves
            values[node_id] = (n * values[node_id] + self.kappa * prior) / (n + self.kappa)
        return values


def raw_estimates(tree: Tree, source: PriorSource) -> Sequence[float | None]:
    """What the source says of every node, uncalibrated; None where it says nothing."""
    if source is PriorSource.LIKELIHOOD:
        return likelihoods(tree)
    return tree.priors or (None,) * len(tree.nodes)


def likelihoods(tree: Tree) -> list[float | None]:
    """Φ(s) of every node that ends where a step of its draw does, and whose draw was scored; None of others."""
    found: list[float | None] = []
    for node in tree.nodes:
        draw = None if node.draw is None else tree.draws[node.draw]
        if draw is None or draw.step_likelihoods is None:
            found.append(None)
            continue
        step = bisect_left(draw.step_ends, node.end)
        found.append(draw.step_likelihoods[step] if draw.step_ends[step] == node.end else None)
    return found


def observations(tree: Tree, source: PriorSource) -> list[Observation]:
    """What the source said of each node, and its counts: (Φ(s), n, V1), for all but leaves that it speaks of."""
    triples = zip(raw_estimates(tree, source), tree.nodes, counts(tree), strict=True)
    return [
        Observation(said, node.num_leaves, value)
        for said, node, value in triples
        if said is not None and node.num_draws
    ]


def priors_in(part: object) -> Iterator[NodePriors]:
    """Those among the settings of a sampler, a credit or an estimator, however deep."""
    if isinstance(part, NodePriors):
        yield part
    for value in values_of_settings(part).values():
        yield from priors_in(value)


def reads_head(part: object) -> bool:
    """Whether it needs the learner's value head."""
    return any(one.source is PriorSource.HEAD for one in priors_in(part))


def reads_likelihoods(part: object) -> bool:
    """Whether it needs Φ at step ends, which growth asks for."""
    return any(one.source is PriorSource.LIKELIHOOD for one in priors_in(part))


def recalibrate(part: Part, calibrations: dict[PriorSource, Calibration]) -> Part:
    """The same part, with these calibrations wherever it is to be fitted."""
    changed: dict[str, Any] = {}
    for name, before in values_of_settings(part).items():
        if (after := recalibrate(before, calibrations)) is not before:
            changed[name] = after
    if isinstance(part, NodePriors) and part.fit and part.source in calibrations:
        best = calibrations[part.source]
        changed |= {"a": best.a, "b": best.b}
    return with_settings(part, changed) if changed else part
