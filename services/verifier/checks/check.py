"""What the judge and the checks share: a check judges the answers of one kind."""

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import InvalidInput
from shared.protocol.verdict import MAX_FINAL_ANSWER, ItemLimits, Outcome, TestVerdict, VerdictItem

Key = TypeVar("Key")
Item = TypeVar("Item")
Model = TypeVar("Model", bound=BaseModel)

_YIELD_SECONDS = 0.002
_TURNS = 8  # a request takes several turns of the event loop
LONG_RESPONSE = 1 << 16
"""Characters; looking through a longer one takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one answer was judged. `reward` is None exactly if it could not be judged.

    `final_answer`: what the response states, as `name_answer` has it; empty if it states nothing that counts, None for
    a kind whose answers are not compared with one another.
    """

    reward: float | None
    outcome: Outcome
    reason: str = ""
    rule: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    isolated: bool = True
    tests: tuple[TestVerdict, ...] = ()
    final_answer: str | None = None

    def __post_init__(self) -> None:
        if (self.reward is None) is self.outcome.is_judged:
            raise ValueError(f"reward {self.reward} with outcome {self.outcome}: unjudged answers alone have none")
        if self.outcome is Outcome.NO_ANSWER:
            object.__setattr__(self, "final_answer", "")

    @staticmethod
    def failure(reason: str, rule: str = "") -> "Judgement":
        """The verifier's own failure: no reward, never trained on."""
        return Judgement(None, Outcome.INFRASTRUCTURE, reason, rule)


class Case(NamedTuple, Generic[Key]):
    """One answer, with its key as the check prepared it."""

    response: str
    key: Key
    limits: ItemLimits | None = None


# Called once per case, in any order, with the case's position in the batch.
ReportJudgement = Callable[[int, Judgement], None]


class Check(ABC, Generic[Key]):
    """Judges answers of one kind.

    A check bounds its own concurrency: `judge` may be called for many batches at once. A case's time starts when it
    runs, not while it waits. If `judge` is cancelled (the batch's deadline), it stops everything it started; cases
    that it has not reported become failures of the verifier.

    `is_repeatable`: equal (response, answer_key, limits) always get equal judgements, so that they may be cached.
    """

    kind: str
    is_repeatable = False

    def refusal(self) -> str | None:
        """Why this check cannot judge on this machine (the service answers 503 with it), or None."""
        return None

    def health(self) -> Mapping[str, Any]:
        """What /healthz says about this check: workers, isolation layers."""
        return {"ready": True}

    @abstractmethod
    def prepare(self, item: VerdictItem) -> Case[Key]:
        """Reads the key. Raises InvalidInput if it can never be judged, or if the response is too long.

        Called for each item before any is judged, on the event loop, which runs other tasks between two items, or in
        a thread if the response is long: it must be linear in the item's size.
        """

    async def vet(self, cases: Sequence[Case[Key]]) -> None:
        """Raises InvalidInput if a key that `prepare` only took, because reading it takes long, can never be judged."""

    @abstractmethod
    async def judge(self, cases: Sequence[Case[Key]], report: ReportJudgement) -> None:
        """Judges every case and reports each as soon as it is known. An exception fails only the unreported ones."""


class TextCheck(Check[Key]):
    """Judges by a look at the text: on the event loop, or beside it if the text is long."""

    is_repeatable = True

    async def judge(self, cases: Sequence[Case[Key]], report: ReportJudgement) -> None:
        async for position, case in yielding(cases):
            if len(case.response) > LONG_RESPONSE:
                report(position, await asyncio.to_thread(self.judge_text, case))
            else:
                report(position, self.judge_text(case))

    @abstractmethod
    def judge_text(self, case: Case[Key]) -> Judgement: ...


class AnswerKey(BaseModel):
    """Base of every key: hashable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_key(model: type[Model], item: VerdictItem) -> Model:
    """The item's answer key as `model`. InvalidInput names the item and the wrong field."""
    try:
        return model.model_validate(item.answer_key)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, ("answer_key", *first["loc"])))
        fields = ", ".join(model.model_fields)
        raise InvalidInput(
            f"item {item.id!r} (kind {item.kind!r}): {field}: {first['msg']}; its answer_key has the fields {fields}"
        ) from None


def name_answer(text: str) -> str:
    """A final answer as verdicts carry it: two of one kind are equal exactly if the texts are. Long ones are cut."""
    if len(text) <= MAX_FINAL_ANSWER:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[: MAX_FINAL_ANSWER - len(digest) - 1]}…{digest}"


async def yielding(items: Iterable[Item]) -> AsyncIterator[tuple[int, Item]]:
    """The items with their indices; other tasks of the event loop run every few milliseconds."""
    last_yield = time.perf_counter()
    for index, item in enumerate(items):
        if time.perf_counter() - last_yield > _YIELD_SECONDS:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            last_yield = time.perf_counter()
        yield index, item


async def judge_concurrently(
    items: Sequence[Item], concurrency: int, judge: Callable[[Item], Awaitable[Judgement]], report: ReportJudgement
) -> None:
    """Judges the items in their order, at most `concurrency` at once, and reports each by its index."""

    async def judge_and_report(numbered: tuple[int, Item]) -> None:
        index, item = numbered
        report(index, await judge(item))

    await run_concurrently(list(enumerate(items)), concurrency, judge_and_report)


async def run_concurrently(items: Sequence[Item], concurrency: int, run: Callable[[Item], Awaitable[None]]) -> None:
    """Runs the items in their order, at most `concurrency` at once."""
    waiting = iter(items)

    async def run_waiting() -> None:
        for item in waiting:
            await run(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(len(items), concurrency)):
            group.create_task(run_waiting())
