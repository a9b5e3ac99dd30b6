"""Checkpoints of a run: each is complete or absent; the newest few are kept."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import ValidationError

from services.learner.model.policy import KEPT_MOMENTS, KEPT_POLICY, Policy
from services.learner.record.state import LearnerState
from shared.errors import InvalidInput, first_reason
from shared.files import sync_directory

_STATE = "state.json"
_UNSHARDED_MOMENTS = "optimizer.pt"
"""Of earlier releases."""
_PARTIAL = ".partial"
_OLD = ".old"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory with `policy/` as transformers reads it, `optimizer/` as torch.distributed.checkpoint reads it, and
    the run's state."""

    directory: Path

    @property
    def policy(self) -> Path:
        return self.directory / KEPT_POLICY

    def state(self) -> LearnerState:
        """InvalidInput when another release wrote it."""
        try:
            return LearnerState.model_validate_json((self.directory / _STATE).read_bytes())
        except (ValidationError, OSError) as error:
            reason = first_reason(error) if isinstance(error, ValidationError) else error.strerror or error
            raise InvalidInput(
                f"checkpoint {self.directory} cannot be read ({reason}); remove it to resume from the one before"
            ) from error

    def restore_optimizer(self, policy: Policy) -> None:
        """Loads AdamW's state into `policy`, whose weights are this checkpoint's. InvalidInput if it cannot be read.
        Collective."""
        unsharded = self.directory / _UNSHARDED_MOMENTS
        try:
            if unsharded.exists():
                # mapped, so that ranks of one machine share the memory
                policy.restore_unsharded(torch.load(unsharded, weights_only=True, mmap=True))
            else:
                policy.restore(self.directory / KEPT_MOMENTS)
        except (OSError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise InvalidInput(
                f"the optimizer's state in {self.directory} cannot be read ({error}); remove the checkpoint to resume "
                "from the one before"
            ) from error


class CheckpointStore:
    """The checkpoints under `root`, one directory per step. Construction repairs what a killed process left there; no
    other process may use `root`."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root = root
        self._keep = keep
        for old in root.glob(f".*{_OLD}"):
            final = root / old.name.removeprefix(".").removesuffix(_OLD)
            if not final.exists():
                old.rename(final)
        for leftover in (*root.glob(f".*{_OLD}"), *root.glob(f".*{_PARTIAL}")):
            shutil.rmtree(leftover, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        steps = self._steps()
        return Checkpoint(self._root / str(steps[-1])) if steps else None

    def draft(self, step: int) -> Path:
        """An empty directory for the parts of a checkpoint, which does not count before `finish`."""
        draft = self._root / f".{step}{_PARTIAL}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        return draft

    def finish(self, draft: Path, state: LearnerState) -> Checkpoint:
        """Makes a draft with all its parts a checkpoint, durable when this returns, and removes the oldest. Blocking:
        disk."""
        final = self._root / str(state.progress.step)
        (draft / _STATE).write_text(state.model_dump_json(indent=1), encoding="utf-8")
        _sync(draft)
        self._replace(final, draft)
        for step in self._steps()[: -self._keep]:
            shutil.rmtree(self._root / str(step), ignore_errors=True)
        return Checkpoint(final)

    def _replace(self, final: Path, draft: Path) -> None:
        """Puts the draft in place. A run that was resumed and stopped before a step replaces its own checkpoint."""
        old = self._root / f".{final.name}{_OLD}"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        draft.rename(final)
        sync_directory(self._root)
        shutil.rmtree(old, ignore_errors=True)

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self._root.glob("*") if path.name.isdecimal())


def _sync(directory: Path) -> None:
    """Flushes all files below `directory` to disk, so that a rename can publish them."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_directory(path)
    sync_directory(directory)
