"""The verifier's HTTP surface: `POST /v1/verdicts`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from services.verifier.checks.check import Judgement
from services.verifier.judge import Batch, Judge
from shared.protocol.verdict import Verdict, VerdictItem, VerdictRequest, VerdictResponse

NDJSON = "application/x-ndjson"
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string", "description": "one Verdict a line, first done first"}}}}
}


def build_router(judge: Judge, deadline_seconds: float) -> APIRouter:
    """The service's routes; `deadline_seconds` is that of a batch which names none."""
    router = APIRouter()

    @router.post("/v1/verdicts", response_model=VerdictResponse, responses=_STREAMED)
    async def verdicts(body: VerdictRequest, request: Request) -> Response:
        """Judges a batch. With `Accept: application/x-ndjson` each verdict is sent as soon as it is known."""
        batch = judge.admit(body.items)
        deadline = body.deadline_seconds or deadline_seconds
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(judge, batch, deadline, body.items), media_type=NDJSON)
        answer = await _whole(judge, batch, deadline, body.items)
        return Response(answer.model_dump_json(), media_type="application/json")

    return router


async def _whole(judge: Judge, batch: Batch, deadline_seconds: float, items: Sequence[VerdictItem]) -> VerdictResponse:
    """All verdicts, in the order of the items."""
    judgements: list[Judgement | None] = [None] * len(items)
    await judge.judge(batch, deadline_seconds, judgements.__setitem__)
    return VerdictResponse(
        verdicts=tuple(_verdict(item, judged) for item, judged in zip(items, judgements, strict=True) if judged)
    )


async def _lines(
    judge: Judge, batch: Batch, deadline_seconds: float, items: Sequence[VerdictItem]
) -> AsyncIterator[bytes]:
    """One verdict a line, in the order of completion."""
    done: asyncio.Queue[bytes | None] = asyncio.Queue()

    def deliver(position: int, judgement: Judgement) -> None:
        done.put_nowait(_verdict(items[position], judgement).model_dump_json().encode() + b"\n")

    judging = asyncio.create_task(judge.judge(batch, deadline_seconds, deliver))
    judging.add_done_callback(lambda _: done.put_nowait(None))
    try:
        while (line := await done.get()) is not None:
            yield line
        await judging
    finally:
        judging.cancel()


def _verdict(item: VerdictItem, judged: Judgement) -> Verdict:
    return Verdict(
        id=item.id,
        reward=judged.reward,
        outcome=judged.outcome,
        reason=judged.reason,
        rule=judged.rule,
        seconds=judged.seconds,
        cpu_seconds=judged.cpu_seconds,
        isolated=judged.isolated,
    )
