"""The value p̂(s) of a node: an estimate of the probability that an answer through it is right."""

import math
from collections.abc import Iterable, Mapping, Set
from itertools import islice
from typing import Annotated, TypeAlias

from shared.kinds import Kinds
from shared.tree.node import Tree
from shared.tree.values.estimator import ValueEstimator
from shared.tree.values.leaves import BACKUP, COUNTS, Backup, Counts, Shrunk, root_value
from shared.tree.values.prior import NodePriors, PriorSource, WithPrior, reads_head, reads_likelihoods

_LEAVES = "shared.tree.values.leaves"
VALUES: Kinds[ValueEstimator] = Kinds(
    "value estimator",
    ValueEstimator,  # type: ignore[type-abstract]
    {
        "counts": f"{_LEAVES}:Counts",
        "backup": f"{_LEAVES}:Backup",
        "shrunk": f"{_LEAVES}:Shrunk",
        "prior": "shared.tree.values.prior:WithPrior",
    },
)
AnyValues: TypeAlias = Annotated[ValueEstimator, VALUES]

__all__ = [
    "BACKUP",
    "COUNTS",
    "VALUES",
    "AnyValues",
    "Backup",
    "Counts",
    "NodePriors",
    "PriorSource",
    "Shrunk",
    "ValueEstimator",
    "WithPrior",
    "node_values",
    "reads_head",
    "reads_likelihoods",
    "root_value",
]


def node_values(tree: Tree, estimator: ValueEstimator) -> tuple[float, ...]:
    """p̂(s) of every node. A tree of which no draw counts is a root of value 0.

    ValueError for an estimator that does not give every node a number.
    """
    if len(tree.nodes) == 1:
        return (0.0,)
    found = estimator.values(tree)
    if not isinstance(found, Iterable) or isinstance(found, Mapping | Set):
        raise ValueError(
            f"the value estimator {VALUES.kind_of(estimator)} gives a sequence of one number for each of "
            f"{len(tree.nodes)} nodes, not {found!r:.80}"
        )
    values = tuple(map(float, islice(found, len(tree.nodes) + 1)))  # it may be endless
    if len(values) != len(tree.nodes) or not all(map(math.isfinite, values)):
        raise ValueError(
            f"the value estimator {VALUES.kind_of(estimator)} gives {len(values)} values for {len(tree.nodes)} nodes, "
            "or some that are not finite: it gives one number for each"
        )
    return values
