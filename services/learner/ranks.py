"""The processes that train one policy: what the first of them asks for, all do at once."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from services.learner.config import Precision
from services.learner.training.policy import Policy
from services.learner.training.process_group import World
from services.learner.training.trainer import Trainer
from services.learner.training.update import Update
from shared.protocol.message import Message
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion

_NO_VERSION = WeightVersion(0, 0)


class Work(StrEnum):
    """What a crew can be asked to do together."""

    STEP = "step"
    ENGINE_GAP = "engine_gap"
    WEIGHTS = "weights"
    OPTIMIZER = "optimizer"
    END = "end"


class Order(Message):
    """What the first process tells the others to do with it. The fields beyond `work` are those of the calls."""

    work: Work
    trees: tuple[bytes, ...] = ()
    version: WeightVersion = _NO_VERSION
    lr: float = 0.0
    seed: str = ""

    def pack(self) -> bytes:
        """The order on the wire."""
        packed: bytes = msgpack.packb(self.model_dump())
        return packed

    @classmethod
    def unpack(cls, word: bytes) -> "Order":
        """The inverse of `pack`."""
        return cls.model_validate(msgpack.unpackb(word))


class Crew:
    """Policy and trainer, as a run uses them. The first process leads by calling the methods, the others `follow`."""

    def __init__(self, world: World, policy: Policy, trainer: Trainer) -> None:
        self._world = world
        self.policy = policy
        self._trainer = trainer

    def step(self, trees: Sequence[ScoredTree], version: WeightVersion, lr: float, seed: str) -> Update:
        """See `Trainer.step`."""
        self._tell(Work.STEP, trees, version, lr=lr, seed=seed)
        return self._trainer.step(trees, version, lr, seed)

    def engine_gap(self, trees: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        """See `Trainer.engine_gap`."""
        self._tell(Work.ENGINE_GAP, trees, version)
        return self._trainer.engine_gap(trees, version)

    def save_to_serve(self, directory: Path) -> None:
        """Writes the policy as replicas load it: in the precision that it is trained in."""
        weights = self._weights()
        if self._world.precision is Precision.BFLOAT16:
            weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        self.policy.write(directory, weights)

    def save(self, directory: Path) -> None:
        """Writes the policy as it is in training, for a checkpoint."""
        self.policy.write(directory, self._weights())

    def optimizer_state(self) -> dict[str, Any]:
        """See `Policy.optimizer_state`."""
        self._tell(Work.OPTIMIZER)
        return self.policy.optimizer_state()

    def dismiss(self) -> None:
        """Lets the others go; the last call."""
        self._tell(Work.END)

    def follow(self) -> None:
        """Does what the first process asks for, until it dismisses this one. Unavailable when it has gone."""
        while (order := Order.unpack(self._world.hear())).work is not Work.END:
            trees = [ScoredTree.unpack(tree) for tree in order.trees]
            match order.work:
                case Work.STEP:
                    self._trainer.step(trees, order.version, order.lr, order.seed)
                case Work.ENGINE_GAP:
                    self._trainer.engine_gap(trees, order.version)
                case Work.WEIGHTS:
                    self.policy.weights()
                case Work.OPTIMIZER:
                    self.policy.optimizer_state()

    def _weights(self) -> dict[str, Tensor]:
        self._tell(Work.WEIGHTS)
        return self.policy.weights()

    def _tell(
        self,
        work: Work,
        trees: Sequence[ScoredTree] = (),
        version: WeightVersion = _NO_VERSION,
        *,
        lr: float = 0.0,
        seed: str = "",
    ) -> None:
        if self._world.size > 1:
            packed = tuple(tree.pack() for tree in trees)
            self._world.tell(Order(work=work, trees=packed, version=version, lr=lr, seed=seed).pack())
