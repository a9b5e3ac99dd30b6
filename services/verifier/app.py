"""The verifier's HTTP surface: `POST /v1/verdicts`."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NotRequired, TypedDict

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from services.verifier.checks.check import Judgement
from services.verifier.json_body import describe_body, read_batch
from services.verifier.judge import AdmittedBatch, Judge
from services.verifier.surrogates import make_text
from shared.protocol.verdict import Outcome, VerdictItem, VerdictResponse

NDJSON = "application/x-ndjson"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string", "description": "one Verdict a line, first done first"}}}},
    429: {},
}


def build_router(judge: Judge, deadline_seconds: float) -> APIRouter:
    """The service's routes; `deadline_seconds` applies to batches that name no deadline."""
    router = APIRouter()

    @router.post("/v1/verdicts", response_model=VerdictResponse, responses=_ANSWERS, openapi_extra=describe_body())
    async def verdicts(request: Request) -> Response:
        """Judges a batch. With `Accept: application/x-ndjson` each verdict is sent as soon as it is known."""
        arrived = time.monotonic()  # before its body has come: the caller waits from here on
        body = await read_batch(request)
        deadline = body.deadline_seconds or deadline_seconds
        batch = await judge.admit(body.items, body.unreadable, arrived, deadline)
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_stream_lines(judge, batch, deadline, body.items), media_type=NDJSON)
        return Response(await _judge_all(judge, batch, deadline, body.items), media_type="application/json")

    return router


async def _judge_all(
    judge: Judge, batch: AdmittedBatch, deadline_seconds: float, items: Sequence[VerdictItem]
) -> bytes:
    """A VerdictResponse, in the order of the items."""
    verdicts = [b""] * len(items)

    def report(position: int, judgement: Judgement) -> None:
        # one by one: to write thousands at once would hold up the event loop
        verdicts[position] = to_json(_to_json(items[position], judgement))

    await judge.judge(batch, deadline_seconds, report)
    return b'{"verdicts":[' + b",".join(verdicts) + b"]}"


def _stream_lines(
    judge: Judge, batch: AdmittedBatch, deadline_seconds: float, items: Sequence[VerdictItem]
) -> AsyncIterator[bytes]:
    """One Verdict a line, in the order of completion.

    Judging starts at once, not with the first line: a client that leaves before it would leave the batch pending.
    """
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def report(position: int, judgement: Judgement) -> None:
        lines.put_nowait(to_json(_to_json(items[position], judgement)) + b"\n")

    judging = asyncio.create_task(judge.judge(batch, deadline_seconds, report))
    judging.add_done_callback(lambda _: lines.put_nowait(None))

    async def stream() -> AsyncIterator[bytes]:
        try:
            while (line := await lines.get()) is not None:
                yield line
            await judging
        finally:
            judging.cancel()

    return stream()


class _VerdictJson(TypedDict):
    """A Verdict as JSON; building the pydantic model would cost as much as judging."""

    id: str
    reward: float | None
    outcome: Outcome
    reason: str
    rule: str
    seconds: float
    cpu_seconds: float
    isolated: bool
    final_answer: NotRequired[str]
    tests: NotRequired[list[dict[str, Any]]]


def _to_json(item: VerdictItem, judgement: Judgement) -> _VerdictJson:
    verdict: _VerdictJson = {
        "id": item.id,
        "reward": judgement.reward,
        "outcome": judgement.outcome,
        "reason": make_text(judgement.reason),  # it may quote what a program raised
        "rule": judgement.rule,
        "seconds": judgement.seconds,
        "cpu_seconds": judgement.cpu_seconds,
        "isolated": judgement.isolated,
    }
    if judgement.final_answer is not None:
        verdict["final_answer"] = make_text(judgement.final_answer)
    if judgement.tests:
        verdict["tests"] = [test.model_dump() for test in judgement.tests]
    return verdict
