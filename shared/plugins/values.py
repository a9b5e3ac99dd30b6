"""The values of nodes for figures and views, in which an estimator of the user's own is bounded and may fail."""

import time

from shared.kinds import packages_of
from shared.plugins.processes import OwnCodeFailed, OwnProcesses
from shared.tree.node import Tree
from shared.tree.values import VALUES, ValueEstimator, node_values


class BoundedValues:
    """p̂(s) of every node of a tree; None where an estimator of the user's own fails.

    One of the user's own is asked in another process. Once its failures have taken as long as one call may, it is not
    asked again: many trees cost no more time than one.
    """

    def __init__(self, own: OwnProcesses) -> None:
        self._own = own
        self._lost_seconds = 0.0
        self.reason = ""
        """Why the first tree without values has none; empty while there is none."""

    def __call__(self, tree: Tree, estimator: ValueEstimator) -> tuple[float, ...] | None:
        if not packages_of([estimator]):
            return node_values(tree, estimator)
        if self._lost_seconds >= self._own.seconds:
            return None
        started = time.monotonic()
        try:
            return self._own.call(node_values, tree, estimator)
        except OwnCodeFailed as error:
            self._lost_seconds += time.monotonic() - started
            self.reason = self.reason or f"value estimator {VALUES.kind_of(estimator)}: {error}"
            return None
