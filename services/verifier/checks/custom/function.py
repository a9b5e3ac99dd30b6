"""A kind of the user's own, judged by an importable function in killable worker processes."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.config import CustomKindConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, Reply, ReplyStatus, WorkerPool
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "own function"


class CustomFunctionCheck:
    """Rewards with what `function(response, answer_key)` returns: a number from 0 to 1, or None for no reward.

    It runs in processes of its own. Raising, overrunning its time, or returning anything else is a failure of the
    verifier, not of the answer: no reward.
    """

    is_repeatable = False

    def __init__(self, kind: str, settings: CustomKindConfig, metrics: VerifierMetrics) -> None:
        self.kind = kind
        self._settings = settings
        target = str(settings.function)
        self._pool = WorkerPool(
            PoolSettings(kind, target, settings.workers, settings.memory_bytes, settings.items_per_worker), metrics
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"function": self._settings.function, "live": self._pool.num_live}

    def prepare(self, item: VerdictItem) -> Case[dict[str, Any]]:
        return Case(item.response, item.answer_key, item.limits)

    async def judge(self, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
        waiting = iter(enumerate(cases))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(cases), self._settings.workers)):
                group.create_task(self._work_through(waiting, report))

    async def _work_through(self, waiting: Iterator[tuple[int, Case[dict[str, Any]]]], report: ReportJudgement) -> None:
        for position, case in waiting:
            start = time.perf_counter()
            reply = await self._pool.ask((case.response, case.key), self._settings.seconds)
            report(position, _judgement(reply, time.perf_counter() - start))


def _judgement(reply: Reply, seconds: float) -> Judgement:
    if reply.status is not ReplyStatus.ANSWERED or reply.detail:
        return Judgement.failure(reply.detail or reply.status.name.lower(), _RULE)
    value = reply.value
    if value is None:
        return Judgement.failure("the function gave no reward", _RULE)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return Judgement.failure(f"the function returned {value!r}"[:200] + ", not a number from 0 to 1", _RULE)
    outcome = Outcome.RIGHT if value == 1 else Outcome.WRONG
    return Judgement(float(value), outcome, "", _RULE, seconds, reply.cpu_seconds, isolated=False)
