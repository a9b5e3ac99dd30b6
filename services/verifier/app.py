"""The verifier's HTTP surface: `POST /v1/verdicts`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypedDict

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from services.verifier.checks.check import Judgement
from services.verifier.json_body import describe_body, read_body
from services.verifier.judge import AdmittedBatch, Judge
from shared.protocol.verdict import Outcome, VerdictItem, VerdictRequest, VerdictResponse

NDJSON = "application/x-ndjson"
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string", "description": "one Verdict a line, first done first"}}}}
}


def build_router(judge: Judge, deadline_seconds: float) -> APIRouter:
    """The service's routes; `deadline_seconds` is that of a batch which names none."""
    router = APIRouter()

    @router.post(
        "/v1/verdicts", response_model=VerdictResponse, responses=_STREAMED, openapi_extra=describe_body(VerdictRequest)
    )
    async def verdicts(request: Request) -> Response:
        """Judges a batch. With `Accept: application/x-ndjson` each verdict is sent as soon as it is known."""
        body = await read_body(request, VerdictRequest)
        batch = judge.admit(body.items)
        deadline = body.deadline_seconds or deadline_seconds
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(judge, batch, deadline, body.items), media_type=NDJSON)
        return Response(await _whole(judge, batch, deadline, body.items), media_type="application/json")

    return router


async def _whole(judge: Judge, batch: AdmittedBatch, deadline_seconds: float, items: Sequence[VerdictItem]) -> bytes:
    """The VerdictResponse, in the order of the items."""
    verdicts: list[_VerdictJson | None] = [None] * len(items)

    def deliver(position: int, judgement: Judgement) -> None:
        verdicts[position] = _verdict(items[position], judgement)

    await judge.judge(batch, deadline_seconds, deliver)
    return to_json({"verdicts": verdicts})


async def _lines(
    judge: Judge, batch: AdmittedBatch, deadline_seconds: float, items: Sequence[VerdictItem]
) -> AsyncIterator[bytes]:
    """One verdict a line, in the order of completion."""
    done: asyncio.Queue[bytes | None] = asyncio.Queue()

    def deliver(position: int, judgement: Judgement) -> None:
        done.put_nowait(to_json(_verdict(items[position], judgement)) + b"\n")

    judging = asyncio.create_task(judge.judge(batch, deadline_seconds, deliver))
    judging.add_done_callback(lambda _: done.put_nowait(None))
    try:
        while (line := await done.get()) is not None:
            yield line
        await judging
    finally:
        judging.cancel()


class _VerdictJson(TypedDict):
    """A Verdict as it is written; making the model of each would cost as much as judging it."""

    id: str
    reward: float | None
    outcome: Outcome
    reason: str
    rule: str
    seconds: float
    cpu_seconds: float
    isolated: bool


def _verdict(item: VerdictItem, judged: Judgement) -> _VerdictJson:
    return {
        "id": item.id,
        "reward": judged.reward,
        "outcome": judged.outcome,
        "reason": judged.reason,
        "rule": judged.rule,
        "seconds": judged.seconds,
        "cpu_seconds": judged.cpu_seconds,
        "isolated": judged.isolated,
    }
