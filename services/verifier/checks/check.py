"""The seam between the judge and a kind of answer: what a check takes, reports and owes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one answer was judged. Without a reward exactly when the verifier itself failed."""

    reward: float | None
    outcome: Outcome
    reason: str = ""
    rule: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    isolated: bool = True

    def __post_init__(self) -> None:
        if (self.reward is None) != (self.outcome is Outcome.INFRASTRUCTURE):
            raise ValueError(f"reward {self.reward} with outcome {self.outcome}: only infrastructure has none")

    @staticmethod
    def failure(reason: str, rule: str = "") -> "Judgement":
        """The verifier's own failure: no reward, never trained on."""
        return Judgement(None, Outcome.INFRASTRUCTURE, reason, rule)


@dataclass(frozen=True, slots=True)
class Case(Generic[Key]):
    """One answer with its key as the check itself prepared it."""

    response: str
    key: Key
    limits: ItemLimits | None = None


# Takes a case's position in its batch; called once per case, in any order.
ReportJudgement = Callable[[int, Judgement], None]


class Check(Protocol[Key]):
    """Judges answers of one kind.

    A check bounds its own concurrency: `judge` may be called for many batches at once. A case's time starts when it
    runs, not while it waits. Cancelling `judge` (a batch's deadline) must stop what it started and leave nothing
    behind; cases that it did not report by then, or by its return, become failures of the verifier.
    A check that needs starting and stopping is given by an async context manager, which the wiring enters before the
    first request.
    """

    @property
    def kind(self) -> str:
        """The item's `kind` this check answers to."""
        ...

    @property
    def is_repeatable(self) -> bool:
        """Whether equal (response, answer_key, limits) always get equal judgements, so that they may be cached."""
        ...

    def refusal(self) -> str | None:
        """Why this check cannot judge on this machine (the service answers 503 with it), or None."""
        ...

    def prepare(self, item: VerdictItem) -> Case[Key]:
        """Reads the key. Raises InvalidInput for one that can never be judged, and for an oversized response.

        Called on the event loop for each item before any is judged: it must be linear in the item's size.
        """
        ...

    async def judge(self, cases: Sequence[Case[Key]], report: ReportJudgement) -> None:
        """Judges every case, reporting each as soon as it is known. An exception fails only what is unreported."""
        ...

    def health(self) -> Mapping[str, Any]:
        """What /healthz tells of this check: workers, isolation layers."""
        ...
