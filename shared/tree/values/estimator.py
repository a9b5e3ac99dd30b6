"""What a value estimator is."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from shared.tree.node import Tree


class ValueEstimator(Protocol):
    """Estimates p̂(s), the probability that an answer through a node is right.

    One of your own is a frozen dataclass that subclasses this; its fields are its settings.
    """

    @abstractmethod
    def values(self, tree: Tree) -> Sequence[float]:
        """p̂(s) of every node, by node id. The tree has at least one draw that counts."""
