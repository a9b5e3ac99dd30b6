"""What the learner finds out about values beside counts: a value head, and calibrations that are fitted as it goes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.learner.config import LearnerConfig
from services.learner.training.trajectories import BuiltTree, Floats, Trajectory
from services.learner.training.value_head import ValueHead
from shared.errors import InvalidInput
from shared.tree.credit import Credit
from shared.tree.node import Tree
from shared.tree.values import PriorSource
from shared.tree.values.calibration import Calibration, CalibrationFit
from shared.tree.values.leaves import counts
from shared.tree.values.prior import NodePriors, observations, priors_in, raw_estimates, recalibrate
from shared.tree.values.reliability import Reliability

KEPT_VALUES = "values.safetensors"
"""File of a checkpoint."""
_MEMORY = 0.98
"""A fit counts what a step said by so much less with each step after it, and so follows the policy."""
_WIDTH = "width"


@dataclass(frozen=True, slots=True)
class ValueReport:
    """What values said of a step's trees before they learnt from them."""

    reliability: Reliability | None
    """Of the value head or, without one, of the likelihood."""
    trees_without_prior: int
    """Trees of which the credit's source says nothing: their values are those of V3."""


class ValueLearner:
    """Gives trees their priors, and then learns from them. Rank 0 alone has trees, and this."""

    def __init__(self, config: LearnerConfig) -> None:
        self._credit = config.advantage
        self._plan = config.value_head_plan
        self._seed = config.seed
        self._head: ValueHead | None = None
        self._width = 0
        self._wanted = [*priors_in(config.advantage)]
        self._fits = {
            one.source: CalibrationFit(Calibration(one.a, one.b)) for one in reversed(self._wanted) if one.fit
        }

    @property
    def is_active(self) -> bool:
        """Whether a step has anything to do here."""
        return bool(self._plan or self._wanted)

    @property
    def reads_states(self) -> bool:
        """Whether it needs the policy's hidden state at the end of every node."""
        return self._plan is not None

    @property
    def credit(self) -> Credit:
        """The credit, calibrated by the steps so far."""
        return recalibrate(self._credit, {source: one.best for source, one in self._fits.items()})

    def inform(self, trees: Sequence[BuiltTree], states: Sequence[Floats]) -> list[BuiltTree]:
        """The trees with what the value head says of their nodes; `states` [N, D] of each tree, where it reads any."""
        if self._plan is None:
            return list(trees)
        return [
            replace(tree, nodes=replace(tree.nodes, priors=tuple(self._head_for(own).values(torch.from_numpy(own)))))
            if len(own)
            else tree
            for tree, own in zip(trees, states, strict=True)
        ]

    def learn(self, trees: Sequence[BuiltTree], states: Sequence[Floats], used: int) -> ValueReport:
        """Learns from trees that it has informed; the credit takes the first `used` of them."""
        nodes = [tree.nodes for tree in trees if len(tree.nodes.nodes) > 1]
        main = NodePriors(PriorSource.HEAD) if self._plan else next(priors_in(self.credit))
        calibration = Calibration(main.a, main.b)
        said = [one for tree in nodes for one in observations(tree, main.source)]
        reliability = Reliability.of([one._replace(estimate=calibration.of(one.estimate)) for one in said])
        missing = sum(
            all(one is None for one in raw_estimates(tree.nodes, wanted.source))
            for tree in trees[:used]
            for wanted in self._wanted
        )
        for source, one in self._fits.items():
            self._fits[source] = one.add((seen for tree in nodes for seen in observations(tree, source)), _MEMORY)
        if filled := [own for own in states if len(own)]:
            self._head_for(filled[0]).learn(torch.from_numpy(np.concatenate(filled)), *lessons(nodes))
        return ValueReport(reliability, missing)

    def state(self) -> dict[str, Tensor]:
        """A copy of what a checkpoint keeps."""
        tensors = {
            f"fit.{source}": torch.tensor([one.best.a, one.best.b, *one.curvature], dtype=torch.float64)
            for source, one in self._fits.items()
        }
        if self._head is not None:
            tensors |= {_WIDTH: torch.tensor(self._width), **self._head.state()}
        return tensors

    def restore(self, directory: Path) -> None:
        """Goes on from a checkpoint; one without values, of an earlier release or of other settings, leaves what is
        new as new. InvalidInput where they do not fit."""
        path = directory / KEPT_VALUES
        if not self.is_active or not path.exists():
            return
        try:
            tensors = load_file(path)
            for source in self._fits.keys() & {PriorSource(name[4:]) for name in tensors if name.startswith("fit.")}:
                a, b, *curvature = tensors[f"fit.{source}"].tolist()
                self._fits[source] = CalibrationFit(Calibration(a, b), (curvature[0], curvature[1], curvature[2]))
            if self._plan is not None and _WIDTH in tensors:
                self._make_head(int(tensors[_WIDTH])).restore(tensors)
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise InvalidInput(
                f"the value head in {path} cannot be taken on ({error}): give the earlier learner.value_head, or "
                "remove the file to begin with a new one"
            ) from error

    def _head_for(self, states_ND: Floats) -> ValueHead:
        return self._head or self._make_head(states_ND.shape[1])

    def _make_head(self, width: int) -> ValueHead:
        assert self._plan is not None
        self._width, self._head = width, ValueHead(width, self._plan, self._seed)
        return self._head


def lessons(trees: Iterable[Tree]) -> tuple[list[float], list[int]]:
    """What a head learns of every node: its value, V1, and the number of its leaves; 0 of a leaf, whose answer is known
    and which nobody has to predict."""
    trees = tuple(trees)
    weights = [node.num_leaves if node.num_draws else 0 for tree in trees for node in tree.nodes]
    return [value for tree in trees for value in counts(tree)], weights


def write_values(tensors: dict[str, Tensor], directory: Path) -> None:
    """Writes what `state` copied; nothing where there is nothing."""
    if tensors:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, directory / KEPT_VALUES)


def reading_trajectories(tree: BuiltTree, group: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, list[int]]]:
    """The fewest tokens that show the hidden state at the end of every node: trajectories of the tree with the places
    to read there, and the nodes that these are."""
    nodes_of: dict[int, list[int]] = {}
    for node_id, node in enumerate(tree.nodes.nodes[1:], start=1):
        assert node.draw is not None
        nodes_of.setdefault(node.draw, []).append(node_id)
    for number, (draw_id, node_ids) in enumerate(nodes_of.items()):
        chosen = node_ids if number else [0, *node_ids]  # any of them shows the prompt's end
        places = np.array([tree.nodes.nodes[node_id].end for node_id in chosen], np.int64)
        yield group[draw_id].first(int(places.max()), places), chosen
