"""What a checkpoint keeps beside the policy: the run's progress and its ledger."""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import Field

from services.learner.ledger import FIRST_TASK, Ledger, TaskId
from shared.protocol.message import Message
from shared.protocol.status import Accounts, Evaluation
from shared.protocol.tree import TreeUsage
from shared.tree.diagnostics import TreeFigures, merge
from shared.tree.draw import WeightVersion


class SavedLedger(Message):
    cursor: str = str(FIRST_TASK)
    outstanding: dict[str, int] = Field(default_factory=dict)
    accounts: Accounts = Field(default_factory=Accounts)

    @classmethod
    def of(cls, ledger: Ledger) -> "SavedLedger":
        outstanding = {str(task_id): attempt for task_id, attempt in ledger.outstanding.items()}
        return cls(cursor=str(ledger.cursor), outstanding=outstanding, accounts=ledger.accounts)

    def load(self) -> Ledger:
        outstanding = {TaskId.parse(name): attempt for name, attempt in self.outstanding.items()}
        return Ledger(self.accounts, TaskId.parse(self.cursor), outstanding)


class RunTotals(Message):
    """Sums over all trees of a run's steps, and the time it took."""

    figures: TreeFigures = Field(default_factory=TreeFigures)
    usage: TreeUsage = Field(default_factory=TreeUsage)
    training_seconds: float = 0.0
    wall_seconds: float = 0.0

    def plus(self, figures: TreeFigures, usage: TreeUsage) -> "RunTotals":
        """With the trees of one more step."""
        both = replace(merge([self.figures, figures]), eta_pairs=())
        return self.model_copy(update={"figures": both, "usage": sum_usage([self.usage, usage])})


class SavedProgress(Message):
    """How far a run is. `version` is the policy's latest, published or not."""

    step: int = 0
    version: WeightVersion = WeightVersion(0, 0)
    origins: tuple[str, ...] = ()
    """Of the generations so far, the latest last: trees of other weights are not of this run."""
    model: str = ""
    """The fingerprint of the model that the run began with."""
    data: str = ""
    """The fingerprint of the problems that the ledger's cursor counts in."""
    seed: int | None = None
    """Of the order of these problems."""
    began: float | None = None
    """When the run began, in seconds since the epoch: a chat template that writes the date writes this one."""
    growth: str = ""
    """The fingerprint of how the tasks on the streams are grown."""
    totals: RunTotals = Field(default_factory=RunTotals)
    evaluations: tuple[Evaluation, ...] = ()

    def evaluation_at(self, step: int) -> Evaluation | None:
        return next((one for one in self.evaluations if one.step == step), None)


class LearnerState(Message):
    """state.json of a checkpoint; the policy and its optimizer are files beside it."""

    progress: SavedProgress
    ledger: SavedLedger


def sum_usage(usages: Iterable[TreeUsage]) -> TreeUsage:
    """What growing all these trees took."""
    every = tuple(usages)
    return TreeUsage(**{name: sum(getattr(one, name) for one in every) for name in TreeUsage.model_fields})
