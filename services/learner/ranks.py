"""The ranks that train one policy: rank 0 issues commands, and all ranks carry them out together."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.learner.config import Precision
from services.learner.model.policy import Policy
from services.learner.model.process_group import ProcessGroup
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion


class Operation(StrEnum):
    """What rank 0 has the other ranks do with it."""

    FOLLOW = "follow"
    """A step, or the engine's gap: what it deals."""
    WEIGHTS = "weights"
    ADAPTERS = "adapters"
    OPTIMIZER = "optimizer"
    SHUTDOWN = "shutdown"


class RankWorkers:
    """Policy and trainer of all ranks. Rank 0 calls the methods; the other ranks run `serve`."""

    def __init__(self, process_group: ProcessGroup, policy: Policy, trainer: Trainer) -> None:
        self._process_group = process_group
        self.policy = policy
        self._trainer = trainer

    def step(self, trees: Sequence[BuiltTree], version: WeightVersion, lr: float, seed: str) -> Update:
        self._command(Operation.FOLLOW)
        return self._trainer.step(trees, version, lr, seed)

    def engine_gap(self, trees: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        self._command(Operation.FOLLOW)
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
        self._command(Operation.ADAPTERS)
        self.policy.write_adapters(directory, self.policy.adapter_weights())

    def optimizer_state(self) -> dict[str, Any]:
        self._command(Operation.OPTIMIZER)
        return self.policy.optimizer_state()

    def shutdown(self) -> None:
        """Ends `serve` on the other ranks; the last call."""
        self._command(Operation.SHUTDOWN)

    def serve(self) -> None:
        """Carries out rank 0's commands until it shuts this rank down. Unavailable when rank 0 is gone."""
        while (operation := Operation(self._process_group.receive().decode())) is not Operation.SHUTDOWN:
            match operation:
                case Operation.FOLLOW:
                    self._trainer.follow()
                case Operation.WEIGHTS:
                    self.policy.weights()
                case Operation.ADAPTERS:
                    self.policy.adapter_weights()
                case Operation.OPTIMIZER:
                    self.policy.optimizer_state()

    def _weights(self) -> dict[str, Tensor]:
        self._command(Operation.WEIGHTS)
        return self.policy.weights()

    def _command(self, operation: Operation) -> None:
        self._process_group.send_all(operation.encode())
