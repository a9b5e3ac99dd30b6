"""A kind of the user's own, judged by an HTTP endpoint that speaks this service's protocol."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.config import CustomKindConfig
from shared.errors import IbtpoError
from shared.protocol.verdict import Outcome, Verdict, VerdictItem, VerdictRequest, VerdictResponse
from shared.runtime.client import http_client, raise_for_problem, reaching

_RULE = "own endpoint"
_BATCH_ITEMS = 64


class CustomEndpointCheck:
    """Posts a VerdictRequest to the endpoint and takes the VerdictResponse; what it does not answer has no reward."""

    is_repeatable = False

    def __init__(self, kind: str, settings: CustomKindConfig) -> None:
        self.kind = kind
        self._url = str(settings.url)
        self._seconds = settings.seconds
        self._turns = asyncio.Semaphore(settings.workers)
        self._client = http_client(settings.token, settings.seconds)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"url": self._url}

    def prepare(self, item: VerdictItem) -> Case[dict[str, Any]]:
        return Case(item.response, item.answer_key, item.limits)

    async def judge(self, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(cases), _BATCH_ITEMS):
                group.create_task(self._judge_some(start, cases[start : start + _BATCH_ITEMS], report))

    async def _judge_some(self, start: int, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
        items = tuple(
            # positions for ids: those of the batch may repeat
            VerdictItem(id=str(n), kind=self.kind, response=case.response, answer_key=case.key, limits=case.limits)
            for n, case in enumerate(cases, start)
        )
        try:
            async with self._turns:
                verdicts = await self._ask(items)
        except IbtpoError as error:
            for n in range(start, start + len(cases)):
                report(n, Judgement.failure(str(error), _RULE))
            return
        for n in range(start, start + len(cases)):
            verdict = verdicts.get(str(n))
            report(n, _judgement(verdict) if verdict else Judgement.failure("the endpoint gave no verdict", _RULE))

    async def _ask(self, items: tuple[VerdictItem, ...]) -> dict[str, Verdict]:
        request = VerdictRequest(items=items, deadline_seconds=self._seconds)
        async with reaching(f"the endpoint of kind {self.kind!r}", self._seconds):
            response = await self._client.post(
                self._url, content=request.model_dump_json(), headers={"content-type": "application/json"}
            )
        raise_for_problem(response)
        try:
            answer = VerdictResponse.model_validate_json(response.content)
        except ValidationError as error:
            raise IbtpoError(f"the endpoint's answer is no VerdictResponse: {error.errors()[0]['msg']}") from error
        return {verdict.id: verdict for verdict in answer.verdicts}


def _judgement(verdict: Verdict) -> Judgement:
    if verdict.reward is None or verdict.outcome is Outcome.INFRASTRUCTURE:
        return Judgement.failure(verdict.reason or "the endpoint gave no reward", _RULE)
    return Judgement(
        verdict.reward,
        verdict.outcome,
        verdict.reason,
        verdict.rule or _RULE,
        verdict.seconds,
        verdict.cpu_seconds,
        verdict.isolated,
    )
