"""What a run remembers beside the policy: where it is, its books, and its figures so far."""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import Field

from services.learner.ledger import FIRST_TASK, Ledger, TaskId
from shared.protocol.message import Message
from shared.protocol.status import Accounts, Evaluation
from shared.protocol.tree import TreeUsage
from shared.tree.diagnostics import TreeFigures, merge
from shared.tree.draw import WeightVersion


class Books(Message):
    """A ledger, as it is written down."""

    cursor: str = str(FIRST_TASK)
    outstanding: dict[str, int] = Field(default_factory=dict)
    accounts: Accounts = Field(default_factory=Accounts)

    @classmethod
    def of(cls, ledger: Ledger) -> "Books":
        """The ledger as it is now."""
        outstanding = {str(task_id): attempt for task_id, attempt in ledger.outstanding.items()}
        return cls(cursor=str(ledger.cursor), outstanding=outstanding, accounts=ledger.accounts)

    def ledger(self) -> Ledger:
        """The ledger, to go on with."""
        outstanding = {TaskId.parse(name): attempt for name, attempt in self.outstanding.items()}
        return Ledger(self.accounts, TaskId.parse(self.cursor), outstanding)


class Totals(Message):
    """Sums over all trees that steps took, and the time it took."""

    figures: TreeFigures = Field(default_factory=TreeFigures)
    usage: TreeUsage = Field(default_factory=TreeUsage)
    training_seconds: float = 0.0
    wall_seconds: float = 0.0

    def plus(self, figures: TreeFigures, usage: TreeUsage) -> "Totals":
        """With the trees of one more step."""
        both = replace(merge([self.figures, figures]), eta_pairs=())
        return self.model_copy(update={"figures": both, "usage": sum_of_usage([self.usage, usage])})


class RunProgress(Message):
    """How far a run is. `version` is the last update of the policy, published or not."""

    step: int = 0
    version: WeightVersion = WeightVersion(0, 0)
    data: str = ""
    """The fingerprint of the problems that the cursor counts in."""
    totals: Totals = Field(default_factory=Totals)
    evaluations: tuple[Evaluation, ...] = ()

    def evaluation_at(self, step: int) -> Evaluation | None:
        """The evaluation after so many steps, where there was one."""
        return next((one for one in self.evaluations if one.step == step), None)


class LearnerState(Message):
    """What a checkpoint says in words; the policy and its optimizer lie beside it."""

    progress: RunProgress
    books: Books


def sum_of_usage(usages: Iterable[TreeUsage]) -> TreeUsage:
    """What growing all the trees took."""
    every = tuple(usages)
    return TreeUsage(**{name: sum(getattr(one, name) for one in every) for name in TreeUsage.model_fields})
