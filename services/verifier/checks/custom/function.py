"""A user's own kind, judged by an importable function in worker processes that can be killed."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.verifier.checks.check import Case, Judgement, ReportJudgement, judge_concurrently
from services.verifier.config import CustomKindConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, Reply, ReplyStatus, WorkerPool, open_worker_pool
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "custom function"


@asynccontextmanager
async def open_custom_function_check(
    kind: str, config: CustomKindConfig, metrics: VerifierMetrics
) -> AsyncIterator["CustomFunctionCheck"]:
    """The check, with its workers."""
    target = str(config.function)
    settings = PoolSettings(kind, target, config.workers, config.memory_bytes, config.items_per_worker)
    async with open_worker_pool(settings, metrics) as pool:
        yield CustomFunctionCheck(kind, config, pool)


class CustomFunctionCheck:
    """The reward is what `function(response, answer_key)` returns: a number from 0 to 1, or None for no reward.

    If it raises, overruns its time or returns anything else, the verifier has failed, not the answer: no reward.
    """

    is_repeatable = False

    def __init__(self, kind: str, config: CustomKindConfig, pool: WorkerPool) -> None:
        self.kind = kind
        self._config = config
        self._pool = pool

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"function": self._config.function, "live": self._pool.num_live}

    def prepare(self, item: VerdictItem) -> Case[dict[str, Any]]:
        return Case(item.response, item.answer_key, item.limits)

    async def judge(self, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
        await judge_concurrently(cases, self._config.workers, self._judge, report)

    async def _judge(self, case: Case[dict[str, Any]]) -> Judgement:
        start = time.perf_counter()
        reply = await self._pool.call((case.response, case.key), self._config.seconds)
        return _to_judgement(reply, time.perf_counter() - start)


def _to_judgement(reply: Reply, seconds: float) -> Judgement:
    if reply.status is not ReplyStatus.ANSWERED or reply.detail:
        return Judgement.failure(reply.detail or reply.status.name.lower(), _RULE)
    value = reply.value
    if value is None:
        return Judgement.failure("the function gave no reward", _RULE)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return Judgement.failure(f"the function returned {value!r}"[:200] + ", not a number from 0 to 1", _RULE)
    outcome = Outcome.RIGHT if value == 1 else Outcome.WRONG
    return Judgement(float(value), outcome, "", _RULE, seconds, reply.cpu_seconds, isolated=False)
