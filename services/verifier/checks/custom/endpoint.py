"""A user's own kind, judged by an HTTP endpoint that speaks this service's protocol."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.config import CustomKindConfig
from services.verifier.surrogates import load_json
from shared.errors import IbtpoError, MalformedAnswer, first_reason
from shared.protocol.verdict import Outcome, Verdict, VerdictItem, VerdictRequest
from shared.runtime.client import http_client
from shared.runtime.exchange import Exchange

_RULE = "custom endpoint"
_BATCH_ITEMS = 64


@asynccontextmanager
async def open_custom_endpoint_check(kind: str, config: CustomKindConfig) -> AsyncIterator["CustomEndpointCheck"]:
    """The check, with its HTTP client."""
    async with http_client(config.token, config.seconds) as client:
        yield CustomEndpointCheck(kind, config, client)


class CustomEndpointCheck:
    """Posts VerdictRequests to the endpoint. An item without a verdict in the response has no reward."""

    is_repeatable = False

    def __init__(self, kind: str, config: CustomKindConfig, client: httpx.AsyncClient) -> None:
        self.kind = kind
        self._config = config
        self._may_request = asyncio.Semaphore(config.workers)
        self._exchange = Exchange(client, "", f"the endpoint of kind {kind!r}")

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"url": self._config.url}

    def prepare(self, item: VerdictItem) -> Case[dict[str, Any]]:
        return Case(item.response, item.answer_key, item.limits)

    async def judge(self, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(cases), _BATCH_ITEMS):
                group.create_task(self._judge_some(start, cases[start : start + _BATCH_ITEMS], report))

    async def _judge_some(self, start: int, cases: Sequence[Case[dict[str, Any]]], report: ReportJudgement) -> None:
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
                report(n, Judgement.failure(str(error), _RULE))
            return
        for n in range(start, start + len(cases)):
            report(n, _to_judgement(verdicts.get(str(n))))

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


def _to_judgement(verdict: Verdict | str | None) -> Judgement:
    if not isinstance(verdict, Verdict):
        return Judgement.failure(verdict or "the endpoint gave no verdict", _RULE)
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
