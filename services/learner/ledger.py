"""The learner's books: which tasks are out, and how the others ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import InvalidInput
from shared.protocol.status import Accounts

MAX_REFEEDS = 2
_MAX_ID = 64


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """A place in the run's sequence of tasks: pass over the data, and position within it."""

    epoch: int
    index: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> "TaskId":
        """The inverse of `str`; InvalidInput for anything else."""
        epoch, dash, index = text.partition("-")
        if len(text) > _MAX_ID or not (dash and epoch.isdecimal() and index.isdecimal()):
            raise InvalidInput(f"a task id reads <epoch>-<index>, not {text[:99]!r}")
        return cls(int(epoch), int(index))


FIRST_TASK = TaskId(0, 0)


class End(StrEnum):
    """How a feeding of a task ends; each returns one credit."""

    USED = "used"
    SKIPPED = "skipped"
    """Its rewards are all equal: there is nothing to learn from."""
    STALE = "stale"
    """A token of its tree is too many updates away."""
    FAILED = "failed"
    """It is a dead letter, or its tree cannot be used."""


class Standing(StrEnum):
    """What a result that arrives is to the books."""

    OUTSTANDING = "outstanding"
    DUPLICATE = "duplicate"
    """Its task has ended already: it was grown twice, or is fed anew with another attempt."""
    FOREIGN = "foreign"
    """Its task was never fed by this run."""


class Ledger:
    """Counts feedings. Tasks are fed in ascending order, so that an ended one is any before the cursor that is not out.

    The identity of `Accounts` holds after every call: each one moves a feeding from one place to another.
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
        """The first task that was never fed."""
        return self._cursor

    @property
    def outstanding(self) -> Mapping[TaskId, int]:
        """The attempt that is out, of each task that is; the longest out come first."""
        return self._outstanding

    @property
    def accounts(self) -> Accounts:
        """Where every feeding is, now."""
        out = len(self._outstanding)
        return Accounts(
            fed=sum(self._ends.values()) + out,
            outstanding=out,
            duplicates=self._duplicates,
            foreign=self._foreign,
            **{end.value: count for end, count in self._ends.items()},
        )

    def feed(self, task_id: TaskId, following: TaskId) -> None:
        """Puts the task at the cursor out; the cursor moves to `following`."""
        if task_id != self._cursor or following <= task_id:
            raise ValueError(f"tasks are fed in order: {task_id} then {following}, the cursor is at {self._cursor}")
        self._cursor = following
        self._outstanding[task_id] = 0

    def standing(self, task_id: TaskId, attempt: int) -> Standing:
        """What a result of this feeding is."""
        if self._outstanding.get(task_id) == attempt:
            return Standing.OUTSTANDING
        return Standing.DUPLICATE if task_id < self._cursor else Standing.FOREIGN

    def settle(self, task_id: TaskId, end: End) -> None:
        """Ends the feeding that is out."""
        del self._outstanding[task_id]
        self._ends[end] += 1

    def refeed(self, task_id: TaskId, end: End) -> int | None:
        """Ends the feeding that is out, and puts the next attempt out: its number, None when there is none."""
        attempt = self._outstanding[task_id] + 1
        self.settle(task_id, end)
        if attempt > MAX_REFEEDS:
            return None
        self._outstanding[task_id] = attempt
        return attempt

    def turn_away(self, standing: Standing) -> None:
        """Counts a result that is not wanted."""
        if standing is Standing.DUPLICATE:
            self._duplicates += 1
        else:
            self._foreign += 1
