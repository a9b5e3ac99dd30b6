"""The learner's ledger: which tasks are outstanding, and how the others ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import InvalidInput
from shared.protocol.status import Accounts

MAX_REFEEDS = 2
_MAX_ID = 64


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """A task's position in the run: the pass over the data (epoch), and the index in that pass."""

    epoch: int
    index: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> "TaskId":
        """The inverse of `str`; InvalidInput for anything else."""
        epoch, dash, index = text.partition("-")
        if len(text) > _MAX_ID or not (dash and epoch.isdecimal() and index.isdecimal()):
            raise InvalidInput(f"a task id is <epoch>-<index>, not {text[:99]!r}")
        return cls(int(epoch), int(index))


FIRST_TASK = TaskId(0, 0)


class End(StrEnum):
    """How an attempt at a task ends. Each end frees capacity for another task."""

    USED = "used"
    SKIPPED = "skipped"
    """All rewards are equal: there is nothing to learn."""
    STALE = "stale"
    """A token of its tree is more than `max_staleness` updates away, or of weights that are not this run's."""
    FAILED = "failed"
    """The replicas gave it up (a dead letter), or its tree cannot be used."""


class Standing(StrEnum):
    """What the ledger knows of the task of a result that arrives."""

    OUTSTANDING = "outstanding"
    DUPLICATE = "duplicate"
    """The task has ended, or is outstanding under another attempt."""
    FOREIGN = "foreign"
    """This run never fed the task."""


class Ledger:
    """Counts tasks, each attempt by itself. Tasks are fed in ascending order, so a task before the cursor that is not
    outstanding has ended.

    The identity of `Accounts` holds after every call.
    """

    def __init__(
        self,
        accounts: Accounts | None = None,
        cursor: TaskId = FIRST_TASK,
        outstanding: Mapping[TaskId, int] | None = None,
    ) -> None:
        accounts = accounts or Accounts()
        self._outstanding = dict(outstanding or {})
        self._ends = {end: getattr(accounts, end.value) for end in End}
        self._duplicates = accounts.duplicates
        self._foreign = accounts.foreign
        self._cursor = cursor

    @property
    def cursor(self) -> TaskId:
        return self._cursor

    @property
    def outstanding(self) -> Mapping[TaskId, int]:
        """The attempt of every outstanding task, the longest outstanding first."""
        return self._outstanding

    @property
    def accounts(self) -> Accounts:
        """How many attempts are outstanding, and how many ended how."""
        outstanding = len(self._outstanding)
        return Accounts(
            fed=sum(self._ends.values()) + outstanding,
            outstanding=outstanding,
            duplicates=self._duplicates,
            foreign=self._foreign,
            **{end.value: count for end, count in self._ends.items()},
        )

    def feed(self, task_id: TaskId, successor: TaskId) -> None:
        """Makes the task at the cursor outstanding, and moves the cursor to `successor`."""
        if task_id != self._cursor or successor <= task_id:
            raise ValueError(f"tasks are fed in order: {task_id} then {successor}, the cursor is at {self._cursor}")
        self._cursor = successor
        self._outstanding[task_id] = 0

    def standing(self, task_id: TaskId, attempt: int) -> Standing:
        if self._outstanding.get(task_id) == attempt:
            return Standing.OUTSTANDING
        return Standing.DUPLICATE if task_id < self._cursor else Standing.FOREIGN

    def settle(self, task_id: TaskId, end: End) -> None:
        del self._outstanding[task_id]
        self._ends[end] += 1

    def refeed(self, task_id: TaskId, end: End) -> int | None:
        """Ends the outstanding attempt and begins the next one: returns its number, None after the last."""
        attempt = self._outstanding[task_id] + 1
        self.settle(task_id, end)
        if attempt > MAX_REFEEDS:
            return None
        self._outstanding[task_id] = attempt
        return attempt

    def count_unmatched(self, standing: Standing) -> None:
        """Counts a result that matches no outstanding attempt."""
        if standing is Standing.DUPLICATE:
            self._duplicates += 1
        else:
            self._foreign += 1
