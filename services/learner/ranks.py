"""The ranks that train one policy: rank 0 issues commands, and all ranks carry them out together."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from services.learner.config import Precision
from services.learner.model.policy import Policy
from services.learner.model.process_group import ProcessGroup
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.protocol.message import Message
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion


class Operation(StrEnum):
    STEP = "step"
    ENGINE_GAP = "engine_gap"
    WEIGHTS = "weights"
    ADAPTERS = "adapters"
    OPTIMIZER = "optimizer"
    SHUTDOWN = "shutdown"


class Command(Message):
    """What rank 0 broadcasts: an operation with its arguments."""

    operation: Operation
    trees: tuple[bytes, ...] = ()
    version: WeightVersion = WeightVersion(0, 0)
    lr: float = 0.0
    seed: str = ""

    def pack(self) -> bytes:
        return bytes(msgpack.packb(self.model_dump()))

    @classmethod
    def unpack(cls, data: bytes) -> "Command":
        return cls.model_validate(msgpack.unpackb(data))


class RankWorkers:
    """Policy and trainer of all ranks. Rank 0 calls the methods; the other ranks run `serve`."""

    def __init__(self, process_group: ProcessGroup, policy: Policy, trainer: Trainer) -> None:
        self._process_group = process_group
        self.policy = policy
        self._trainer = trainer

    def step(self, trees: Sequence[BuiltTree], version: WeightVersion, lr: float, seed: str) -> Update:
        self._broadcast(Operation.STEP, [tree.scored for tree in trees], version=version, lr=lr, seed=seed)
        return self._trainer.step(trees, version, lr, seed)

    def engine_gap(self, trees: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        self._broadcast(Operation.ENGINE_GAP, trees, version=version)
        return self._trainer.engine_gap(trees, version)

    def save_for_serving(self, directory: Path) -> None:
        """Writes the policy for replicas, in `precision`."""
        weights = self._weights()
        if self._process_group.precision is Precision.BFLOAT16:
            weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        self.policy.write(directory, weights)

    def save(self, directory: Path) -> None:
        """Writes the policy for a checkpoint, in the precision of training: where adapters are trained, only these."""
        if self.policy.has_adapters:
            self.save_adapters(directory)
        else:
            self.policy.write(directory, self._weights())

    def save_adapters(self, directory: Path) -> None:
        """Writes the adapters as peft reads them."""
        self._broadcast(Operation.ADAPTERS)
        self.policy.write_adapters(directory, self.policy.adapter_weights())

    def optimizer_state(self) -> dict[str, Any]:
        self._broadcast(Operation.OPTIMIZER)
        return self.policy.optimizer_state()

    def shutdown(self) -> None:
        """Ends `serve` on the other ranks; the last call."""
        self._broadcast(Operation.SHUTDOWN)

    def serve(self) -> None:
        """Carries out rank 0's commands until it shuts this rank down. Unavailable when rank 0 is gone."""
        while (command := Command.unpack(self._process_group.receive_broadcast())).operation is not Operation.SHUTDOWN:
            trees = [ScoredTree.unpack(tree) for tree in command.trees]
            match command.operation:
                case Operation.STEP:
                    self._trainer.step(list(map(BuiltTree.of, trees)), command.version, command.lr, command.seed)
                case Operation.ENGINE_GAP:
                    self._trainer.engine_gap(trees, command.version)
                case Operation.WEIGHTS:
                    self.policy.weights()
                case Operation.ADAPTERS:
                    self.policy.adapter_weights()
                case Operation.OPTIMIZER:
                    self.policy.optimizer_state()

    def _weights(self) -> dict[str, Tensor]:
        self._broadcast(Operation.WEIGHTS)
        return self.policy.weights()

    def _broadcast(self, operation: Operation, trees: Sequence[ScoredTree] = (), **arguments: Any) -> None:
        if self._process_group.size > 1:
            packed = tuple(tree.pack() for tree in trees)
            self._process_group.broadcast(Command(operation=operation, trees=packed, **arguments).pack())
