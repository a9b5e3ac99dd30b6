"""Assigns the credit of a tree; a credit, or value estimator in it, of the user's own does so in another process."""

import math
from collections.abc import Mapping, Sequence, Set

from shared.errors import InvalidInput
from shared.kinds import packages_of
from shared.plugins import OwnCodeFailed, OwnProcesses
from shared.tree.credit import CREDITS, Advantages, Credit, SideInformation, assign_advantages
from shared.tree.node import Tree


class CreditFailed(Exception):
    """The credit made nothing of a tree; says why, in one line."""


class CreditAssigner:
    """A credit whose every call is bounded where it is the user's own."""

    def __init__(self, credit: Credit, own: OwnProcesses) -> None:
        self._credit = credit
        self._kind = CREDITS.kind_of(credit)
        self._own = own if packages_of([credit]) else None

    def assign(self, tree: Tree, side: SideInformation) -> tuple[Advantages, Sequence[float]]:
        """The advantage and the weight of every node. CreditFailed where a credit of the user's own fails."""
        if self._own is None:
            of_nodes = assign_advantages(self._credit, tree, side)
            return of_nodes, self._credit.weights(tree, of_nodes)
        try:
            return self._own.call(assign_checked, self._credit, tree, side)
        except OwnCodeFailed as error:
            raise CreditFailed(f"credit {self._kind}: {error}") from error

    def step_scale(self, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
        """What is taken off every advantage of a step, and what then divides it. InvalidInput where one of the user's
        own fails: it is of the whole step."""
        if self._own is None:
            return self._credit.step_scale(rewards, advantages)
        try:
            return self._own.call(scale_checked, self._credit, rewards, advantages)
        except OwnCodeFailed as error:
            raise InvalidInput(f"credit {self._kind}, step_scale: {error}") from error


def assign_checked(credit: Credit, tree: Tree, side: SideInformation) -> tuple[Advantages, tuple[float, ...]]:
    """The advantages and weights of nodes; ValueError unless all are finite numbers, one for each."""
    of_nodes = assign_advantages(credit, tree, side)
    weights = credit.weights(tree, of_nodes)
    if len(weights) != len(tree.nodes):
        raise ValueError(f"{len(weights)} weights for {len(tree.nodes)} nodes: a credit gives one for each")
    found = Advantages(
        _numbers(of_nodes.of_nodes),
        None if of_nodes.global_part is None else _numbers(of_nodes.global_part),
        None if of_nodes.of_paths is None else tuple(map(_numbers, of_nodes.of_paths)),
    )
    if found.global_part is not None and len(found.global_part) != len(tree.nodes):
        raise ValueError(
            f"{len(found.global_part)} global parts for {len(tree.nodes)} nodes: give one for each, or None"
        )
    if min(checked := _numbers(weights), default=0.0) < 0:
        raise ValueError(f"a node's weight is not negative: {min(checked)}")
    return found, checked


def scale_checked(credit: Credit, rewards: Sequence[float], advantages: Mapping[float, float]) -> tuple[float, float]:
    """ValueError unless it is a number, and one that can divide."""
    shift, divisor = _numbers(credit.step_scale(rewards, advantages))
    if divisor == 0:
        raise ValueError("it divides by 0")
    return shift, divisor


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, Mapping | Set):
        raise ValueError(f"numbers are in the order of nodes, a sequence, not {values!r:.80}")
    found = tuple(map(float, values))
    if not all(map(math.isfinite, found)):
        raise ValueError("a number is NaN or infinite: give finite ones")
    return found
