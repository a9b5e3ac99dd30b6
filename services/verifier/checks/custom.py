"""A user's own kinds: judged by an importable function in worker processes, or by an HTTP endpoint of our protocol."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from services.verifier.checks.check import Case, Check, Judgement, ReportJudgement, judge_concurrently
from services.verifier.config import CustomKindConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.surrogates import load_json
from services.verifier.workers.pool import PoolSettings, Reply, ReplyStatus, WorkerPool, open_worker_pool
from shared.errors import IbtpoError, MalformedAnswer, first_reason
from shared.protocol.verdict import Outcome, Verdict, VerdictItem, VerdictRequest
from shared.runtime.client import http_client
from shared.runtime.config import without_secrets
from shared.runtime.exchange import Exchange

_FUNCTION, _ENDPOINT = "custom function", "custom endpoint"
_BATCH_ITEMS = 64

CustomCase = Case[dict[str, Any]]


class _CustomCheck(Check[dict[str, Any]]):
    """Takes every item; who judges it reads the key."""

    def __init__(self, kind: str, config: CustomKindConfig) -> None:
        self.kind = kind
        self._config = config

    def prepare(self, item: VerdictItem) -> CustomCase:
        return Case(item.response, item.answer_key, item.limits)


@asynccontextmanager
async def open_custom_function_check(
    kind: str, config: CustomKindConfig, metrics: VerifierMetrics
) -> AsyncIterator["CustomFunctionCheck"]:
    target = str(config.function)
    settings = PoolSettings(kind, target, config.workers, config.memory_bytes, config.items_per_worker)
    async with open_worker_pool(settings, metrics) as pool:
        yield CustomFunctionCheck(kind, config, pool)


class CustomFunctionCheck(_CustomCheck):
    """The reward is what `function(response, answer_key)` returns: a number from 0 to 1, or None for no reward.

    If it raises, overruns its time or returns anything else, the verifier has failed, not the answer: no reward.
    """

    def __init__(self, kind: str, config: CustomKindConfig, pool: WorkerPool) -> None:
        super().__init__(kind, config)
        self._pool = pool

    def health(self) -> Mapping[str, Any]:
        return {"function": self._config.function, "live": self._pool.num_live}

    async def judge(self, cases: Sequence[CustomCase], report: ReportJudgement) -> None:
        await judge_concurrently(cases, self._config.workers, self._judge, report)

    async def _judge(self, case: CustomCase) -> Judgement:
        start = time.perf_counter()
        reply = await self._pool.call((case.response, case.key), self._config.seconds)
        return _judgement_of_reply(reply, time.perf_counter() - start)


def _judgement_of_reply(reply: Reply, seconds: float) -> Judgement:
    if reply.status is not ReplyStatus.ANSWERED or reply.detail:
        return Judgement.failure(reply.detail or reply.status.name.lower(), _FUNCTION)
    value = reply.value
    if value is None:
        return Judgement.failure("the function gave no reward", _FUNCTION)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return Judgement.failure(f"the function returned {value!r}"[:200] + ", not a number from 0 to 1", _FUNCTION)
    outcome = Outcome.RIGHT if value == 1 else Outcome.WRONG
    return Judgement(float(value), outcome, "", _FUNCTION, seconds, reply.cpu_seconds, isolated=False)


@asynccontextmanager
async def open_custom_endpoint_check(kind: str, config: CustomKindConfig) -> AsyncIterator["CustomEndpointCheck"]:
    async with http_client(config.token, config.seconds) as client:
        yield CustomEndpointCheck(kind, config, client)


class CustomEndpointCheck(_CustomCheck):
    """Posts VerdictRequests to the endpoint. An item without a verdict in the response has no reward."""

    def __init__(self, kind: str, config: CustomKindConfig, client: httpx.AsyncClient) -> None:
        super().__init__(kind, config)
        self._may_request = asyncio.Semaphore(config.workers)
        self._exchange = Exchange(client, "", f"the endpoint of kind {kind!r}")

    def health(self) -> Mapping[str, Any]:
        return {"url": without_secrets(self._config.url or "")}

    async def judge(self, cases: Sequence[CustomCase], report: ReportJudgement) -> None:
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(cases), _BATCH_ITEMS):
                group.create_task(self._judge_some(start, cases[start : start + _BATCH_ITEMS], report))

    async def _judge_some(self, start: int, cases: Sequence[CustomCase], report: ReportJudgement) -> None:
        items = tuple(
            # positions as ids: those of the caller may repeat
            VerdictItem(id=str(n), kind=self.kind, response=case.response, answer_key=case.key, limits=case.limits)
            for n, case in enumerate(cases, start)
        )
        try:
            async with self._may_request:
                verdicts = await self._request(items)
        except IbtpoError as error:
            for n in range(start, start + len(cases)):
                report(n, Judgement.failure(str(error), _ENDPOINT))
            return
        for n in range(start, start + len(cases)):
            report(n, _judgement_of_verdict(verdicts.get(str(n))))

    async def _request(self, items: tuple[VerdictItem, ...]) -> dict[str, Verdict | str]:
        """The verdict of each item that has one, or why it cannot be read."""
        seconds = self._config.seconds
        request = VerdictRequest(items=items, deadline_seconds=seconds)
        body = await self._exchange.request("POST", str(self._config.url), seconds, message=request)
        try:
            rows = {str(row["id"]): row for row in load_json(body)["verdicts"]}
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise MalformedAnswer(f"{self._exchange.name} answered with what cannot be read: {error!r:.200}") from error
        return {row_id: _read_verdict(row) for row_id, row in rows.items()}


def _read_verdict(row: Any) -> Verdict | str:
    try:
        return Verdict.model_validate(row)
    except ValidationError as error:
        return f"the endpoint's verdict cannot be read: {first_reason(error)}"


def _judgement_of_verdict(verdict: Verdict | str | None) -> Judgement:
    if not isinstance(verdict, Verdict):
        return Judgement.failure(verdict or "the endpoint gave no verdict", _ENDPOINT)
    if verdict.reward is None or not verdict.outcome.is_judged:
        return Judgement.failure(verdict.reason or "the endpoint gave no reward", _ENDPOINT)
    return Judgement(
        **(verdict.model_dump(exclude={"id"}) | {"rule": verdict.rule or _ENDPOINT, "tests": verdict.tests})
    )
