"""The ranks that train one policy: rank 0 issues commands, and all ranks carry them out together."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from services.learner.model.act_probe import score_tokens
from services.learner.model.policy import Kept, Policy
from services.learner.model.process_group import ProcessGroup
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from services.learner.training.value_learner import write_values
from shared.errors import InvalidInput
from shared.plugins import BoundedValues
from shared.protocol.act_probe import ActReading, probe_tokens
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion


class Operation(StrEnum):
    """What rank 0 has the other ranks do with it."""

    FOLLOW = "follow"
    """A step, or the engine's gap: what it deals."""
    ACT_PROBE = "act_probe"
    WEIGHTS = "weights"
    ADAPTERS = "adapters"
    CHECKPOINT = "checkpoint"
    """The directory follows."""
    SHUTDOWN = "shutdown"


class RankWorkers:
    """Policy and trainer of all ranks. Rank 0 calls the methods; the other ranks run `serve`."""

    def __init__(self, process_group: ProcessGroup, policy: Policy, trainer: Trainer) -> None:
        self._process_group = process_group
        self.policy = policy
        self._trainer = trainer
        self._writer = ThreadPoolExecutor(1, "checkpoint")

    def step(
        self,
        trees: Sequence[BuiltTree],
        version: WeightVersion,
        lr: float,
        seed: str,
        ties: Sequence[BuiltTree] = (),
    ) -> Update:
        with self._process_group.naming_failures():
            self._command(Operation.FOLLOW)
            return self._trainer.step(trees, version, lr, seed, ties)

    def bounded_values(self) -> BoundedValues:
        """For the figures of a step; beside what computes credit of the user's own."""
        return BoundedValues(self._trainer.own)

    def engine_gap(self, trees: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        with self._process_group.naming_failures():
            self._command(Operation.FOLLOW)
            return self._trainer.engine_gap(trees, version)

    @property
    def size(self) -> int:
        """How many they are."""
        return self._process_group.size

    def read_act(self, version: WeightVersion) -> ActReading | None:
        """What the present weights, `version`, say of the act-probe; None where the context is too short for it."""
        if len(self._probe_tokens) < 2:
            return None
        with self._process_group.naming_failures():
            self._command(Operation.ACT_PROBE)
            logprobs = self._score_probe()
        is_float32 = self._process_group.dtype == torch.float32
        return ActReading.of(version, self.policy.model.vocab_size, logprobs, is_float32=is_float32)

    @property
    def _probe_tokens(self) -> tuple[int, ...]:
        return probe_tokens(self.policy.model.vocab_size, self.policy.model.context_length)

    def _score_probe(self) -> list[float]:
        return score_tokens(self.policy.model.module, self._probe_tokens, self._process_group)

    def copy_for_serving(self, into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The weights as replicas get them, in `precision`: a copy on the CPU, which training does not change, in the
        memory of an earlier one where there is that."""
        self._command(Operation.WEIGHTS)
        return self.policy.weights(self._process_group.dtype, into)

    def write_for_serving(self, weights: dict[str, Tensor], directory: Path) -> None:
        """Writes such a copy as replicas read it; also while training goes on."""
        self.policy.write(directory, weights)

    def save_for_serving(self, directory: Path) -> None:
        """Writes the policy as it is now for replicas."""
        self.write_for_serving(self.copy_for_serving(), directory)

    def save_adapters(self, directory: Path) -> None:
        """Writes the adapters as peft reads them."""
        self._command(Operation.ADAPTERS)
        self.policy.write_adapters(directory, self.policy.adapter_weights())

    def begin_checkpoint(self, draft: Path) -> Future[None]:
        """Copies what a checkpoint keeps; from then on training may go on, while every rank writes its part of the
        copy. Only when one is done the next may begin."""
        self._command(Operation.CHECKPOINT)
        self._process_group.send_all(str(draft.resolve()).encode())
        return self._begin_checkpoint(draft)

    def _begin_checkpoint(self, draft: Path) -> Future[None]:
        return self._writer.submit(self._write_checkpoint, self.policy.copy(), self._trainer.values.state(), draft)

    def _write_checkpoint(self, kept: Kept, values: dict[str, Tensor], draft: Path) -> None:
        self.policy.write_kept(kept, draft)
        if self._process_group.is_rank0:
            write_values(values, draft)

    def shutdown(self) -> None:
        """Ends `serve` on the other ranks; the last call."""
        self._command(Operation.SHUTDOWN)
        self._trainer.close()

    def serve(self) -> None:
        """Carries out rank 0's commands until it shuts this rank down. Unavailable when rank 0 is gone."""
        while (operation := Operation(self._process_group.receive().decode())) is not Operation.SHUTDOWN:
            match operation:
                case Operation.FOLLOW:
                    self._trainer.follow()
                case Operation.ACT_PROBE:
                    self._score_probe()
                case Operation.WEIGHTS:
                    self.policy.weights(self._process_group.dtype)
                case Operation.ADAPTERS:
                    self.policy.adapter_weights()
                case Operation.CHECKPOINT:
                    self._begin_checkpoint(Path(self._process_group.receive().decode()))

    def _command(self, operation: Operation) -> None:
        self._process_group.send_all(operation.encode())


def check_same_code(here: Mapping[str, str], of_rank0: Mapping[str, str]) -> None:
    """InvalidInput where a module of the user's own is another version on this rank, by the digests of both."""
    for module in sorted(of_rank0.keys() | here.keys()):
        ours, theirs = here.get(module, "none"), of_rank0.get(module, "none")
        if ours != theirs:
            raise InvalidInput(
                f"{module} is another version on this rank ({ours}) than on rank 0 ({theirs}): install the same"
            )
